"""The ledger: what was last acknowledged by Regal, per key and across runs, in any SQL database that locks rows.

A run *claims* what it is about to send, sends what the verdict lets it, and *settles* it::

    verdicts = ledger.claim(claims)          # committed: another run sees it from here on
    ...                                      # send those that are Verdict.GO
    ledger.settle(acknowledged=[...], unknown=[...], released=[...])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy.engine import Connection, Engine

from airflow_provider_regal.journal import ledger_rules as rules
from airflow_provider_regal.journal import ledger_store as store
from airflow_provider_regal.journal.ledger_engine import making, prepare_engine, reading, sqlite_engine, writing
from airflow_provider_regal.journal.ledger_error import LedgerError, WrongLedgerError
from airflow_provider_regal.journal.ledger_keys import MARK_NAME, StoredKeys
from airflow_provider_regal.journal.ledger_rules import OPT_IN, PHONE, By, Claim, Entry, Verdict
from airflow_provider_regal.journal.ledger_schema import bring_up_to_date
from airflow_provider_regal.journal.ledger_store import ConsentRow, Place
from airflow_provider_regal.journal.ledger_text import LONGEST_NAME, short
from airflow_provider_regal.journal.ledger_types import claim_types, read_types

__all__ = ["Claim", "ConsentRow", "Ledger", "LedgerError", "Verdict", "prepare_engine", "sqlite_engine"]

_IDENTIFY: Final = "identify"
_REJECTED: Final = "rejected"
_AFTER: Final = {Verdict.GO: rules.sending, Verdict.STALE: rules.denied}


def _now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """What Regal acknowledged for one account; makes its tables, or changes them to this version's, when opened.

    ``keys`` says how what its entries are about is stored, ``source`` and ``account`` are as they are stored.

    :param engine: of SQLite or a database that locks rows and enforces primary keys.
    :param account: every read and write is about this one.
    :param run: who claims: the run folder. All tries of a task instance are one run.
    :param source: which sync acknowledges (``dag_id.task_id``).
    :param secret: keys are stored as an HMAC-SHA256 with it, so that the ledger names nobody; None stores them as they
        are. An account keeps the secret it began with.
    :param lease_s: seconds for which another run's claim of an opt-in is believed to be on its way.
    :param keep_secret: an account that is new keeps the secret (or to have none) from now on; False for a mere look.
    :param now: the clock.
    :raises LedgerError: the database cannot be used.
    :raises WrongLedgerError: a newer version of this package made its tables, or the account has another secret.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        account: str,
        run: str,
        source: str = "",
        secret: bytes | None = None,
        lease_s: float = 120.0,
        keep_secret: bool = True,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._engine = prepare_engine(engine)
        self.account = short(account)
        self._run = short(run, LONGEST_NAME)
        self.source = short(source, LONGEST_NAME)
        self.keys = StoredKeys(secret)
        self._lease_s = lease_s
        self._now = now
        making(engine, bring_up_to_date)
        self._check_secret(keep_secret=keep_secret)

    def _check_secret(self, *, keep_secret: bool) -> None:
        # With another secret nothing would be found that is known, and opt-outs would be forgotten without a word.
        mine, known = self.keys.mark, self.types().get(MARK_NAME)
        if known is None and keep_secret:
            known = self.claim_types({MARK_NAME: mine})[MARK_NAME]
        if known not in (mine, None):
            raise WrongLedgerError(
                f"The ledger of account {self.account!r} was written with another [regal] ledger_key, or without one, "
                "so that nothing it knows would be found, opt-outs included. Give that key back, or take a new ledger."
            )

    @property
    def file(self) -> str | None:
        """Name the file of a ledger in SQLite; None where it is in another database, or in memory."""
        return self._engine.url.database or None if self._engine.dialect.name == "sqlite" else None

    def claim(self, claims: Sequence[Claim]) -> list[Verdict]:
        """Decide what may be sent; what may is claimed for this run, durably and for all runs at once to see.

        A key may stand in it more than once: each claim is decided on with those before it.

        :raises LedgerError: nothing was claimed.
        """
        verdicts: list[Verdict] = []

        def work(connection: Connection) -> None:
            verdicts.clear()  # of a try that was rolled back
            by = self._by()

            def decide(entry: Entry | None, claim: Claim) -> Entry | None:
                verdicts.append(rules.verdict(entry, claim, by))
                after = _AFTER.get(verdicts[-1])
                return entry if after is None else after(entry, claim, by)

            store.change(connection, self.account, [(self._place(claim), claim) for claim in claims], decide)

        writing(self._engine, work)
        return verdicts

    def settle(
        self,
        acknowledged: Sequence[Claim] = (),
        unknown: Sequence[Claim] = (),
        released: Sequence[Claim] = (),
        said_again: Sequence[Claim] = (),
    ) -> None:
        """Record what became of claims, in one transaction; also of such that were never made, and again.

        :param acknowledged: Regal has them.
        :param unknown: Regal may have them.
        :param released: surely not sent; taken back where they are still this run's.
        :param said_again: acknowledged before; now another row says so.
        :raises LedgerError: nothing was recorded.
        """
        by_rule = (rules.acknowledged, rules.unknown, rules.released, rules.said_again)
        told = zip(by_rule, (acknowledged, unknown, released, said_again), strict=True)
        if items := [(self._place(claim), (rule, claim)) for rule, claims in told for claim in claims]:
            by = self._by()
            self._change(items, lambda entry, item: item[0](entry, item[1], by))

    def baseline(self, claims: Iterable[Claim]) -> int:
        """Record as acknowledged what Regal is known to have, all of it or nothing.

        The database stays locked for other writers for as long as this takes, if it is SQLite.

        :param claims: read once, in constant memory.
        :returns: how many.
        :raises LedgerError: nothing was recorded.
        """
        by = self._by()

        def work(connection: Connection) -> int:
            count = 0
            for batch in store.batches(claims):
                items = [(self._place(claim), claim) for claim in batch]
                store.change(connection, self.account, items, lambda entry, claim: rules.acknowledged(entry, claim, by))
                count += len(batch)
            return count

        return writing(self._engine, work, tries=1)  # what was read of the claims cannot be read again

    def were_granted(self, opt_ins: Sequence[Claim]) -> list[bool]:
        """Say which opt-ins this run has claimed; one that was denied was never sent."""
        by = self._by()
        return [rules.was_granted(entry, claim, by) for entry, claim in self._looked_up(opt_ins)]

    def end_a_yes(self, opt_outs: Sequence[Claim]) -> list[bool]:
        """Say of opt-outs whether Regal has, or may have, an older opt-in."""
        return [rules.ends_a_yes(entry, claim) for entry, claim in self._looked_up(opt_outs)]

    def bar(self, opt_outs: Iterable[tuple[str, str, str | None]]) -> list[str]:
        """Commit the times of opt-outs before anything is sent: no opt-in of that time or before will be let through.

        :param opt_outs: identifier, channel and time; None where the opt-out does not say: it counts as given now,
            whatever else is known. Read once. What was committed before an error stays.
        :returns: the times.
        :raises LedgerError: not all could be committed.
        """
        by, times = self._by(), list[str]()
        for batch in store.batches(opt_outs):
            told = [(OPT_IN, channel, self.keys.stored(key)) for key, channel, _ in batch]
            decided = [at or by.now for _, _, at in batch]
            self._change([*zip(told, decided, strict=True)], lambda entry, at: rules.barred(entry, at, by))
            times += decided
        return times

    def has_consents(self) -> bool:
        """Say whether any opt-in or opt-out was ever acknowledged for the account."""
        return reading(self._engine, lambda connection: store.has_consents(connection, self.account))

    def consents(self) -> Iterator[ConsentRow]:
        """Stream what is known of all opt-ins, in the order of their stored keys and in constant memory.

        What is written meanwhile may or may not be in it. ``subscribed`` is 1, 0 or None.
        """
        last: ConsentRow | None = None
        while True:
            page = reading(self._engine, partial(store.consent_page, account=self.account, after=last))
            yield from page
            if len(page) < store.PAGE:
                return
            last = page[-1]

    def contact_hashes(self, keys: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
        """Give the hashes of row and payload that contacts were last acknowledged with; unknown keys are left out."""
        found = self._read(_IDENTIFY, keys)
        return {key: (entry.row_hash, entry.payload_hash) for key, entry in found.items()}

    def contacts_acknowledged(self, keys: Sequence[str]) -> dict[str, str]:
        """Say when contacts were last acknowledged; unknown keys are left out."""
        return {key: entry.acknowledged_at or "" for key, entry in self._read(_IDENTIFY, keys).items()}

    def mark_contacts(self, contacts: Sequence[tuple[str, str | None, str | None]]) -> None:
        """Record key, hash of the row and hash of the payload of contacts that Regal acknowledged."""
        self._mark(_IDENTIFY, [(key, {"row_hash": row, "payload_hash": payload}) for key, row, payload in contacts])

    def mark_phones(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Record user id and phone of contacts whose phone Regal acknowledged."""
        by, told = self._by(), [(self.keys.stored(user_id), self.keys.stored(phone)) for user_id, phone in pairs]
        entry = Entry(state=rules.ACKNOWLEDGED, acknowledged_at=by.now, source=by.source, run=by.run, changed_at=by.now)
        for batch in store.batches(told):
            items = [((PHONE, store.short_of(phone), user), phone) for user, phone in batch]
            self._change(items, lambda _, phone: entry._replace(row_hash=phone))

    def phones_of(self, user_ids: Iterable[str]) -> dict[str, list[str]]:
        """Give the phones, as stored, that Regal acknowledged for these contacts; those without any are left out."""
        stored = {self.keys.stored(user_id): user_id for user_id in user_ids}
        found: dict[str, list[str]] = {}
        for user, phone in reading(self._engine, lambda connection: store.phones(connection, self.account, stored)):
            found.setdefault(stored[user], []).append(phone)
        return found

    def mark_rejected(self, hashes: Iterable[str]) -> None:
        """Record that these rows were rejected; the run that was the first stays on record."""
        known = set(self._read(_REJECTED, hashes := list(hashes)))
        self._mark(_REJECTED, [(one, {}) for one in hashes if one not in known])

    def known_rejections(self, hashes: Iterable[str]) -> set[str]:
        """Say which of these rows an earlier run has rejected."""
        return {key for key, entry in self._read(_REJECTED, hashes).items() if entry.run != self._run}

    def types(self) -> dict[str, str]:
        """Give the types that traits and properties were first sent with."""
        return reading(self._engine, lambda connection: read_types(connection, self.account))

    def claim_types(self, wanted: dict[str, str]) -> dict[str, str]:
        """Record the types of names not seen before; gives what holds now for the names asked about."""
        return writing(self._engine, lambda connection: claim_types(connection, self.account, wanted))

    def erase(self, identifiers: Iterable[str]) -> int:
        """Remove every entry of the account about these keys; all or nothing.

        :returns: how many entries.
        """
        stored = {*map(self.keys.stored, identifiers)}
        return writing(self._engine, lambda connection: store.erase(connection, self.account, stored))

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _by(self) -> By:
        return By.at(self._now(), run=self._run, source=self.source, lease_s=self._lease_s)

    def _place(self, claim: Claim) -> Place:
        return claim.call, claim.channel, claim.key if claim.stored else self.keys.stored(claim.key)

    def _change(self, items: Sequence[tuple[Place, Any]], decide: Callable[[Entry | None, Any], Entry | None]) -> None:
        writing(self._engine, lambda connection: store.change(connection, self.account, items, decide))

    def _looked_up(self, claims: Sequence[Claim]) -> list[tuple[Entry | None, Claim]]:
        if not claims:
            return []
        places = [self._place(claim) for claim in claims]
        found = reading(self._engine, lambda connection: store.read_places(connection, self.account, {*places}))
        return [(found.get(place), claim) for place, claim in zip(places, claims, strict=True)]

    def _read(self, call: str, keys: Iterable[str]) -> dict[str, Entry]:
        stored = {self.keys.stored(key): key for key in keys}
        if not stored:
            return {}
        found = reading(self._engine, lambda connection: store.read(connection, self.account, call, stored))
        return {stored[key]: entry for key, entry in found.items()}

    def _mark(self, call: str, told: Sequence[tuple[str, dict[str, str | None]]]) -> None:
        by = self._by()
        entry = Entry(state=rules.ACKNOWLEDGED, acknowledged_at=by.now, source=by.source, run=by.run, changed_at=by.now)
        for batch in store.batches(told):
            items = [((call, "", self.keys.stored(key)), hashes) for key, hashes in batch]
            self._change(items, lambda _, hashes: entry._replace(**hashes))
