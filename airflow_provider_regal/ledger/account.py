"""One account's records: consents, contacts, message ids, phones, types.

A delivery *claims* what it is about to send, sends what the verdicts allow, and *settles* it. Both happen inside its
commits, in the same transaction as the states of its rows::

    verdicts = account.claim(connection, claims)      # other deliveries see the claims after the commit
    ...                                               # send those that are Verdict.GO
    account.settle(connection, acknowledged=[...], unknown=[...], released=[...])
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.engine import Connection

from airflow_provider_regal.errors import WrongLedgerError
from airflow_provider_regal.ledger import rules, schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import CONSENTS, MESSAGES, Key, batches, raw_rows
from airflow_provider_regal.ledger.lookup import Lookup
from airflow_provider_regal.ledger.people import consent_log
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.people.owed import OwedOptOut, count_owed, owed_opt_outs
from airflow_provider_regal.ledger.rules import OPT_IN, By, Claim, Entry, Verdict
from airflow_provider_regal.ledger.text import LONGEST_NAME, from_ledger_time, short, to_ledger_time
from airflow_provider_regal.ledger.upserts import write_rows

#: identifier, channel, subscribed, evidence_at, opt_out_at, state, pending_subscribed, pending_at, source, inferred_at,
#: row_hash
ConsentRow = tuple[
    str, str, int | None, str | None, str | None, str, int | None, str | None, str | None, str | None, str | None
]
#: contact key, hash of the row, hash of the payload
Contact = tuple[str, str | None, str | None]

#: A claim that is older is made again before it is sent.
FRESH_FOR_S: Final = 30.0
# Others respect a claim for this long beyond what a request of its delivery may take. Well above FRESH_FOR_S: a machine
# may stand still between its decision to send and the first byte.
_LEASE_S: Final = 90.0
PAGE: Final = 2_000
_AT_ONCE: Final = 500
_AFTER: Final = {Verdict.GO: rules.sending, Verdict.STALE: rules.denied}

_c = schema.consents.c
_CONSENTS: Final = (
    select(
        *(_c[name] for name in ("identifier", "channel", "subscribed", "evidence_at", "opt_out_at", "state")),
        *(_c[name] for name in ("pending_subscribed", "pending_at", "source", "inferred_at", "row_hash")),
    )
    .where(_c.account == bindparam("account"))
    .order_by(_c.identifier, _c.channel)
    .limit(PAGE)
)
# Not (key > x or (key = x and ...)): for that, databases would scan from the account's start.
_MORE_CONSENTS: Final = _CONSENTS.where(
    (_c.identifier >= bindparam("last")) & ((_c.identifier > bindparam("last")) | (_c.channel > bindparam("channel")))
)
_ANY_CONSENT: Final = (
    select(_c.identifier).where((_c.account == bindparam("account")) & _c.acknowledged_at.is_not(None)).limit(1)
)
_COUNT_CONSENTS: Final = select(func.count()).where((_c.account == bindparam("account")) & _c.subscribed.is_not(None))
_CONTACTS: Final = Lookup(schema.contacts, ("contact", "row_hash", "payload_hash", "acknowledged_at"), "contact")
_PHONES: Final = Lookup(schema.contact_phones, ("user_id", "phone"), "user_id")
_USERS: Final = Lookup(schema.contact_phones, ("user_id", "phone"), "phone")
_DECISIONS: Final = Lookup(schema.consents, ("identifier", "channel", "subscribed"), "identifier")
_HOLD: Final = select(schema.deliveries.c.hold_s).where(schema.deliveries.c.id == bindparam("delivery"))
_t = schema.types.c
_TYPES: Final = select(_t.name, _t.type, _t.since).where(_t.account == bindparam("account")).order_by(_t.name)


class Account:
    """One account's records in the ledger.

    ``identifiers`` defines how identifiers are stored; ``name`` and ``source`` are in the stored form. ``delivery`` is
    the one that claims and settles; all tries of a task instance are one delivery.

    :param account: the account of every read and write.
    :param source: the task that sends (``dag_id.task_id``).
    :param secret: identifiers are stored as an HMAC-SHA256 with this secret; None stores them in plain text. An account
        can't change its secret.
    :param lease_s: seconds for which another delivery's claim of an opt-in counts as being sent. None: as long as its
        requests may take, which each delivery records, and 90 seconds more.
    :param fresh_for_s: seconds after which a claim of an opt-in is made again before it is sent.
    :param now: the clock; by default the database's.
    """

    def __init__(
        self,
        database: Database,
        *,
        account: str,
        source: str = "",
        secret: bytes | None = None,
        lease_s: float | None = None,
        fresh_for_s: float = FRESH_FOR_S,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.database = database
        self.name = short(account)
        self.source = short(source, LONGEST_NAME)
        self.identifiers = Identifiers(secret)
        self.delivery = ""
        self.fresh_for_s = fresh_for_s
        self._lease_s = lease_s
        self.now = now or database.now

    def register(self, api_key: str, *, keep: bool = True) -> None:
        """Check that this account may use the ledger; store a new one with its key's hash and its secret.

        :param keep: False to check without storing.
        :raises WrongLedgerError: another account has this API key, or this one was written with another secret.
        """
        if self.database.read(lambda connection: self._is_registered(connection, api_key)) or not keep:
            return
        self.database.write(lambda connection: self._register(connection, api_key))

    def _is_registered(self, connection: Connection, api_key: str) -> bool:
        table = schema.accounts.c
        hashed = self._hash_of(connection, api_key)
        found = connection.execute(
            select(table.account, table.api_key_hash, table.identifiers).where(
                or_(table.account == self.name, table.api_key_hash == hashed)
            )
        ).fetchall()
        mine = next((row for row in found if row[0] == self.name), None)
        if mine is not None:
            self._check_secret(mine[2])
        if other := sorted(row[0] for row in found if row[0] != self.name and row[1] == hashed):
            raise WrongLedgerError(
                f"The accounts {self.name!r} and {other[0]!r} have the same API key, so they are one account at Regal, "
                "and its consent would be split in two. Set the same account in the extras of both connections "
                f'({{"account": "{other[0]}"}}).'
            )
        return mine is not None and mine[1] == hashed

    def join(self) -> None:
        """Check that this account may be written to when its API key is not available; store the secret of a new one.

        :raises WrongLedgerError: it was written with another secret.
        """

        def work(connection: Connection) -> None:
            table = schema.accounts
            mark = connection.execute(select(table.c.identifiers).where(table.c.account == self.name)).first()
            if mark is None:
                connection.execute(table.insert(), {"account": self.name, "identifiers": self.identifiers.mark})
            else:
                self._check_secret(mark[0])

        self.database.write(work)

    def _check_secret(self, mark: str | None) -> None:
        if mark != self.identifiers.mark:
            # No record would be found, and opt-outs would be lost silently.
            raise WrongLedgerError(
                f"The ledger of account {self.name!r} was written with another [regal] ledger_key, or without one, so "
                "nothing in it would be found, opt-outs included. Restore that key, or use a new ledger."
            )

    def _register(self, connection: Connection, api_key: str) -> None:
        if self._is_registered(connection, api_key):
            return
        hashed = self._hash_of(connection, api_key)
        table = schema.accounts
        known = connection.execute(table.update().where(table.c.account == self.name).values(api_key_hash=hashed))
        if not known.rowcount:
            row = {"account": self.name, "api_key_hash": hashed, "identifiers": self.identifiers.mark}
            connection.execute(table.insert(), row)

    def _hash_of(self, connection: Connection, api_key: str) -> str:
        salt = str(connection.execute(select(schema.schema_version.c.salt)).scalar_one())
        return hashlib.blake2b(api_key.encode(), key=salt.encode(), digest_size=32).hexdigest()

    # -- within a commit ----------------------------------------------------------------------------------------------

    def claim(self, connection: Connection, claims: Sequence[Claim]) -> list[Verdict]:
        """Decide what may be sent, and claim that for this delivery.

        A key may occur several times: each decision takes the previous claims into account.
        """
        by = self._by(connection)
        verdicts: dict[int, Verdict] = {}

        def decide(entry: Entry | None, item: tuple[int, Claim]) -> Entry | None:
            number, claim = item
            verdicts[number] = rules.verdict(entry, claim, by)
            after = _AFTER.get(verdicts[number])
            return entry if after is None else after(entry, claim, by)

        self._change(connection, [(claim, (number, claim)) for number, claim in enumerate(claims)], decide, by)
        return [verdicts[number] for number in range(len(claims))]

    def verdicts(self, claims: Sequence[Claim]) -> list[Verdict]:
        """Return what :meth:`claim` would decide now, without claiming."""

        def read(connection: Connection) -> list[Verdict]:
            by, keys = self._by(connection), {self._key(claim) for claim in claims}
            consents = {key for key in keys if len(key) > 1}
            found = {
                **CONSENTS.read(connection, self.name, consents),
                **MESSAGES.read(connection, self.name, keys - consents),
            }
            return [rules.verdict(found.get(self._key(claim)), claim, by) for claim in claims]

        return self.database.read(read) if claims else []

    def settle(
        self,
        connection: Connection,
        acknowledged: Sequence[Claim] = (),
        unknown: Sequence[Claim] = (),
        released: Sequence[Claim] = (),
        *,
        said_again: Sequence[Claim] = (),
        known_to_regal: Sequence[Claim] = (),
    ) -> None:
        """Record the results of claims, also of claims that were never made, and repeatedly.

        :param acknowledged: Regal has them.
        :param unknown: Regal may have them.
        :param released: not sent; removed if they are still this delivery's.
        :param said_again: acknowledged before, and now stated by another row.
        :param known_to_regal: reported by Regal itself.
        """
        by = self._by()
        told = (
            (rules.acknowledged, acknowledged),
            (rules.unknown, unknown),
            (rules.released, released),
            (rules.said_again, said_again),
            (rules.known_to_regal, known_to_regal),
        )
        items = [(claim, (rule, claim)) for rule, claims in told for claim in claims]
        self._change(connection, items, lambda entry, item: item[0](entry, item[1], by), by)

    def keep_contacts(self, connection: Connection, contacts: Iterable[Contact]) -> None:
        """Record key, row hash and payload hash of contacts that Regal acknowledged."""
        at = to_ledger_time(self.now())
        delivery = int(self.delivery) if self.delivery.isdigit() else None
        newest = {self.identifiers.stored(key): (row, payload) for key, row, payload in contacts}
        rows = [(self.name, key, row, payload, at, delivery) for key, (row, payload) in sorted(newest.items())]
        columns = ("account", "contact", "row_hash", "payload_hash", "acknowledged_at", "delivery")
        write_rows(connection, schema.contacts, columns, rows, "replace")

    def keep_phones(self, connection: Connection, pairs: Iterable[tuple[str, str]]) -> None:
        """Record user id and phone of contacts whose phone Regal acknowledged."""
        stored = self.identifiers.stored
        rows = sorted({(self.name, stored(user_id), stored(phone)) for user_id, phone in pairs})
        write_rows(connection, schema.contact_phones, ("account", "user_id", "phone"), rows, "keep")

    def keep_types(self, connection: Connection, types: Mapping[str, str]) -> None:
        """Record the types of names; a type that is already recorded stays."""
        now = to_ledger_time(self.now()) if types else None
        kinds = sorted({short(name): kind for name, kind in types.items()}.items())
        rows = [(self.name, name, kind, now) for name, kind in kinds]
        write_rows(connection, schema.types, ("account", "name", "type", "since"), rows, "keep")

    def log(self, connection: Connection, lines: Sequence[LoggedConsent]) -> None:
        """Add lines to the consent log."""
        consent_log.add_lines(
            connection,
            lines,
            account=self.name,
            task=self.source,
            delivery=self.delivery,
            stored=self.identifiers.stored,
            now=to_ledger_time(self.now()),
        )

    def log_withheld(self, connection: Connection, lines: Sequence[LoggedConsent]) -> None:
        """Add lines for withheld decisions, except those withheld before for the same reason."""
        stored = self.identifiers.stored
        for some in batches(lines, _AT_ONCE):
            keys = [(stored(line.identifier), line.channel, line.given_at, line.reason) for line in some]
            before = consent_log.withheld_before(connection, self.name, [key[0] for key in keys])
            self.log(connection, [line for line, key in zip(some, keys, strict=True) if key not in before])

    def _change(
        self,
        connection: Connection,
        items: Sequence[tuple[Claim, Any]],
        decide: Callable[[Entry | None, Any], Any],
        by: By,
    ) -> None:
        consents = [(self._key(claim), (claim, item)) for claim, item in items if claim.call == OPT_IN]
        messages = [(self._key(claim), item) for claim, item in items if claim.call != OPT_IN]

        def decide_on_consent(entry: Entry | None, told: tuple[Claim, Any]) -> Entry | None:
            claim, item = told
            return rules.with_debt(decide(entry, item), by, reachable=is_address(claim.key))

        CONSENTS.change(connection, self.name, consents, decide_on_consent)
        MESSAGES.change(connection, self.name, messages, decide)

    # -- on its own ---------------------------------------------------------------------------------------------------

    def bar(self, opt_outs: Iterable[tuple[str, str, str | None]]) -> list[str]:
        """Commit the times of opt-outs when they are read: from then on, no opt-in of that time or before is sent.

        :param opt_outs: identifier, channel and time; with None, the opt-out counts as given now. Read once. What was
            committed before an error stays.
        :returns: the times.
        :raises LedgerError: not all could be committed.
        """
        by, times = self._by(), list[str]()
        for batch in batches(opt_outs):
            decided = [at or by.now for _, _, at in batch]
            told = zip(batch, decided, strict=True)
            self._write_barriers(
                [((self.identifiers.stored(key), channel), (at, is_address(key))) for (key, channel, _), at in told],
                by,
            )
            times += decided
        return times

    def _write_barriers(self, items: Sequence[tuple[Key, tuple[str, bool]]], by: By) -> None:
        def bar(entry: Entry | None, told: tuple[str, bool]) -> Entry | None:
            at, reachable = told
            return rules.with_debt(rules.barred(entry, at, by), by, reachable=reachable)

        self.database.write(lambda connection: CONSENTS.change(connection, self.name, items, bar))

    def record_said_again(self, claims: Iterable[Claim]) -> None:
        """Record which rows now state what was acknowledged before."""
        for some in batches(claims):
            self.database.write(partial(self.settle, said_again=some))

    def record_known(self, decisions: Iterable[tuple[Claim, LoggedConsent | None]]) -> None:
        """Record what Regal reports it has.

        :param decisions: each with its line of the consent log; None if the log has it.
        """
        for some in batches(decisions):
            self.database.write(partial(self._record, decisions=some, known_to_regal=True))

    def baseline(self, decisions: Iterable[tuple[Claim, LoggedConsent | None]]) -> int:
        """Record as acknowledged what Regal is known to have, all of it or nothing.

        :param decisions: see :meth:`record_known`; read once, in constant memory.
        :returns: how many.
        :raises LedgerError: nothing was recorded.
        """
        return self.database.write(
            lambda connection: sum(self._record(connection, some) for some in batches(decisions)), once=True
        )

    def _record(
        self,
        connection: Connection,
        decisions: Sequence[tuple[Claim, LoggedConsent | None]],
        *,
        known_to_regal: bool = False,
    ) -> int:
        claims = [claim for claim, _ in decisions]
        if known_to_regal:
            self.settle(connection, known_to_regal=claims)
        else:
            self.settle(connection, acknowledged=claims)
        self.log(connection, [line for _, line in decisions if line is not None])
        return len(claims)

    def were_granted(self, opt_ins: Sequence[Claim]) -> list[bool]:
        """Return which opt-ins this delivery has claimed; an opt-in that was denied was never sent."""
        by = self._by()
        return [rules.was_granted(entry, claim, by) for entry, claim in self._looked_up(opt_ins)]

    def end_a_yes(self, opt_outs: Sequence[Claim]) -> list[bool]:
        """Return for each opt-out whether Regal has, or may have, an older opt-in."""
        return [rules.ends_a_yes(entry, claim) for entry, claim in self._looked_up(opt_outs)]

    def has_consents(self) -> bool:
        """Return whether any opt-in or opt-out was ever acknowledged for the account."""
        return self.database.read(
            lambda connection: connection.execute(_ANY_CONSENT, {"account": self.name}).first() is not None
        )

    def count_consents(self) -> int:
        """Count the account's opt-ins and opt-outs that Regal has, according to the ledger."""
        told = {"account": self.name}
        return self.database.read(lambda connection: int(connection.execute(_COUNT_CONSENTS, told).scalar_one()))

    def consents(self) -> Iterator[ConsentRow]:
        """Stream all consents on record, in the order of their stored keys and in constant memory.

        Concurrent writes may or may not be included. ``subscribed`` is 1, 0 or None.
        """
        last: ConsentRow | None = None
        while True:
            told = {"account": self.name} | ({} if last is None else {"last": last[0], "channel": last[1]})
            statement = _CONSENTS if last is None else _MORE_CONSENTS
            page: list[ConsentRow] = self.database.read(partial(raw_rows, statement=statement, told=told))
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1]

    def owed_opt_outs(self, *, on_their_way: Collection[int] = ()) -> Iterator[OwedOptOut]:
        """Stream the opt-outs that Regal lacks, oldest first, with identifiers in the stored form.

        :param on_their_way: deliveries that are sending their opt-outs now; these are left out.
        """
        return owed_opt_outs(self.database, self.name, without=on_their_way)

    def count_owed(self, *, on_their_way: Collection[int] = ()) -> int:
        """Count the opt-outs that Regal lacks."""
        return count_owed(self.database, self.name, without=on_their_way).opt_outs

    def contact_hashes(self, keys: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
        """Return the row and payload hashes of contacts when last acknowledged; unknown keys are left out."""
        return {key: (row, payload) for key, (row, payload, _) in self._contacts(keys).items()}

    def contacts_acknowledged(self, keys: Sequence[str]) -> dict[str, str]:
        """Return when contacts were last acknowledged; unknown keys are left out."""
        return {key: at for key, (_, _, at) in self._contacts(keys).items()}

    def _contacts(self, keys: Sequence[str]) -> dict[str, tuple[str | None, str | None, str]]:
        if not keys:
            return {}
        stored = {self.identifiers.stored(key): key for key in keys}
        return {stored[key]: (row, payload, at) for key, row, payload, at in self._look_up(_CONTACTS, stored)}

    def phones_of(self, user_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return contacts -> phones Regal acknowledged for them, in stored form; those without any are left out."""
        stored = {self.identifiers.stored(user_id): user_id for user_id in user_ids}
        found: dict[str, list[str]] = {}
        for user, phone in self._look_up(_PHONES, stored):
            found.setdefault(stored[user], []).append(phone)
        return found

    def users_of(self, phones: Iterable[str]) -> dict[str, set[str]]:
        """Return phones -> user ids Regal acknowledged them for, in stored form; those without any are left out."""
        stored = {self.identifiers.stored(phone): phone for phone in phones}
        found: dict[str, set[str]] = {}
        for user, phone in self._look_up(_USERS, stored):
            found.setdefault(stored[phone], set()).add(user)
        return found

    def _look_up(self, lookup: Lookup, keys: Collection[str]) -> list[Any]:
        if not keys:
            return []
        return self.database.read(lambda connection: lookup.rows(connection, self.name, keys))

    def plain_phones_of(self, user_id: str) -> list[str]:
        """Return the phones on record for a contact; none if the ledger has only hashes."""
        return self.phones_of([user_id]).get(user_id, []) if self.identifiers.plain else []

    def lost_by_promotion(self, primaries: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
        """Return channels for which a contact's opt-in is on record with another phone, but not with the primary one.

        :param primaries: user ids and their primary phones.
        :returns: the channels; contacts without any are left out.
        """
        if not primaries or not self.has_consents():
            return []
        stored = self.identifiers.stored
        known = self.phones_of({user_id for user_id, _ in primaries})
        others = {
            (user_id, phone): {other for other in known[user_id] if other != stored(phone)}
            for user_id, phone in primaries
            if len(known.get(user_id, ())) > 1
        }
        opted_in: dict[str, set[str]] = {}
        keys = {stored(phone) for _, phone in others}.union(*others.values())
        for key, channel, subscribed in self._look_up(_DECISIONS, keys):
            if subscribed:
                opted_in.setdefault(key, set()).add(channel)
        found = []
        for (_, phone), phones in others.items():
            elsewhere = set[str]().union(*(opted_in.get(one, ()) for one in phones))
            if lost := sorted(elsewhere - opted_in.get(stored(phone), set())):
                found.append(tuple(lost))
        return found

    def types(self) -> dict[str, tuple[str, str | None]]:
        """Return the types of traits and properties, and since when they are used."""
        rows = self.database.read(lambda connection: raw_rows(connection, _TYPES, {"account": self.name}))
        return {name: (kind, since) for name, kind, since in rows}

    def accept_type(self, name: str, kind: str) -> bool:
        """Record a new type for a name; return False if none is on record.

        :param name: in the stored form.
        """
        change = (
            schema.types.update()
            .where((_t.account == self.name) & (_t.name == name))
            .values(type=kind, since=to_ledger_time(self.now()))
        )
        return bool(self.database.write(lambda connection: connection.execute(change).rowcount))

    def _by(self, connection: Connection | None = None) -> By:
        """:param connection: to look up what others claim; only :func:`rules.verdict` asks for that."""
        lease_of = cache(lambda delivery: self._lease_of(connection, delivery))
        return By(self.delivery, self.source, to_ledger_time(self.now()), lease_of)

    def _lease_of(self, connection: Connection | None, delivery: str) -> float:
        if self._lease_s is not None or connection is None:
            return self._lease_s or 0.0
        told = {"delivery": int(delivery) if delivery.isdigit() else 0}
        return float(connection.execute(_HOLD, told).scalar() or 0) + _LEASE_S

    def _key(self, claim: Claim) -> Key:
        key = claim.key if claim.stored else self.identifiers.stored(claim.key)
        return (key, claim.channel) if claim.call == OPT_IN else (key,)

    def _looked_up(self, claims: Sequence[Claim]) -> list[tuple[Entry | None, Claim]]:
        keys = [self._key(claim) for claim in claims]
        found = self.database.read(lambda connection: CONSENTS.read(connection, self.name, {*keys})) if keys else {}
        return [(found.get(key), claim) for key, claim in zip(keys, claims, strict=True)]


def is_address(key: str) -> bool:
    """Return whether an opt-out of a key can be sent: it is a phone or an email, not a user id."""
    return not key.startswith("user:")


def age_s(since: str, now: datetime) -> float:
    """Return the age of a ledger time in seconds."""
    return (now - from_ledger_time(since)).total_seconds()
