"""Who must not be contacted: people who were suppressed, and people who were forgotten.

==========  ===============================================  =======================================================
kind        on record                                        what is sent of them
==========  ===============================================  =======================================================
suppressed  phone, email or user:<id>, in stored form        only opt-outs
forgotten   a keyed hash of that, and times of opt-outs      only opt-outs that were not known then
==========  ===============================================  =======================================================
"""

from __future__ import annotations

import hmac
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.engine import Connection

from airflow_provider_regal.events.identifiers import read_email, read_phone, read_user_id
from airflow_provider_regal.events.names import OPT_IN_KEYS
from airflow_provider_regal.events.python_values import is_blank
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import CONSENTS, batches, raw_rows
from airflow_provider_regal.ledger.lookup import Lookup
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.rules import Entry, has_opted_out
from airflow_provider_regal.ledger.schema import LONGEST_MESSAGE
from airflow_provider_regal.ledger.text import LONGEST_NAME, fit, short, to_ledger_time
from airflow_provider_regal.ledger.upserts import write_rows

SUPPRESSED: Final = "suppressed"
FORGOTTEN: Final = "forgotten"
USER: Final = "user:"
OptInAt = tuple[str, str, str]  # identifier, channel, time
_LOOK_AGAIN_S: Final = 1.0
_AT_ONCE: Final = 500
_PAGE: Final = 1_000
_s = schema.suppressions.c
_mine: Final = _s.account == bindparam("account")
_ANY: Final = select(_s.kind).where(_mine).limit(1)
_ANY_FORGOTTEN: Final = select(_s.kind).where(_mine & (_s.kind == FORGOTTEN)).limit(1)
_FOUND: Final = Lookup(schema.suppressions, ("identifier", "kind", "opt_outs"), "identifier")
_SALT: Final = select(schema.schema_version.c.salt)


def read_identifier(text: str) -> str:
    """Read an identifier from a text: a phone, else an email, else a user id; the prefix ``user:`` makes it a user id.

    :returns: the phone in E.164, the email in lower case, or ``user:<id>``.
    :raises ValueError: it is none of them.
    """
    given = text.strip()
    if given.startswith(USER):
        return USER + _user_id(given.removeprefix(USER).strip())
    try:
        return read_phone(given)
    except ValueError:
        if given.startswith(("+", "(")):
            raise
    if "@" in given:
        try:
            return read_email(given)
        except ValueError as error:
            raise ValueError(f"{error}; if it is a user id, write user: before it") from None
    return USER + _user_id(given)


def _user_id(text: str) -> str:
    if is_blank(text):
        raise ValueError("is empty")
    return read_user_id(text)


def key_of(identifiers: Identifiers, identifier: str) -> str:
    """Return the table's key for a phone, an email, or ``user:<id>``."""
    if identifier.startswith(USER):
        return short(USER + identifiers.stored(identifier.removeprefix(USER)))
    return identifiers.stored(identifier)


def forgotten_key(salt: str, key: str) -> str:
    """Return the table's key for a forgotten person; every ledger has its own salt."""
    return hmac.digest(salt.encode(), f"{FORGOTTEN} {key}".encode("utf-8", "surrogatepass"), "sha256").hex()


class Hold(NamedTuple):
    """A person must not be contacted.

    :param is_forgotten: also, nothing that was known about the person is recorded again.
    :param opt_outs: identifier and channel -> time of the newest opt-out when the person was forgotten.
    """

    is_forgotten: bool
    opt_outs: Mapping[tuple[str, str], str]

    def is_news(self, identifier: str, channel: str, at: str | None) -> bool:
        """Return whether an opt-out was unknown when the person was forgotten; one without a time counts as known."""
        known = self.opt_outs.get((identifier, channel))
        return known is None or (at is not None and at > known)


class Suppressions:
    """An account's suppressions, for a delivery to look up.

    :param monotonic: the clock, in seconds. The check whether there are any is repeated after a second.
    """

    def __init__(self, account: Account, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._account = account
        self._monotonic = monotonic
        self._any = self._any_forgotten = False
        self._looked_at = float("-inf")
        self._salt = ""

    def find(self, people: Sequence[Collection[str]]) -> list[Hold | None]:
        """Find which of these people must not be contacted.

        For a user id, the phones on record count as well, and the id itself if it is an email or a phone.

        :param people: the identifiers of each: phones, emails, ``user:<id>``.
        """
        if not self.is_any():
            return [None] * len(people)
        user_ids = {one.removeprefix(USER) for person in people for one in person if one.startswith(USER)}
        phones = self._account.phones_of(user_ids) if user_ids else {}
        named = [{key: one for one in person for key in self._keys(one, phones)} for person in people]
        found = self._account.database.read(partial(self._read, keys={key for keys in named for key in keys}))
        return [_hold(keys, found) if found and not found.keys().isdisjoint(keys) else None for keys in named]

    def opted_out(self, people: Sequence[Collection[str]], opt_ins: Sequence[Iterable[OptInAt]]) -> list[bool]:
        """Find which of these people have opted out of every channel on record for their identifiers.

        :param opt_ins: for each, those of the event: they count if they are newer than what is on record.
        """
        if not people:
            return []
        user_ids = {one.removeprefix(USER) for person in people for one in person if one.startswith(USER)}
        phones, stored = self._account.phones_of(user_ids), self._account.identifiers.stored
        keys_of_each = [
            {
                (key, channel)
                for one in person
                for key in (stored(one), *phones.get(one.removeprefix(USER), ()))
                for channel in OPT_IN_KEYS
            }
            for person in people
        ]
        wanted = {key for keys in keys_of_each for key in keys}
        found = self._account.database.read(lambda connection: CONSENTS.read(connection, self._account.name, wanted))
        told_by_each = [{(stored(one), channel): at for one, channel, at in told} for told in opt_ins]
        decisions = [
            [one for key in keys if (one := has_opted_out(found.get(key, Entry()), told.get(key))) is not None]
            for keys, told in zip(keys_of_each, told_by_each, strict=True)
        ]
        return [bool(told) and all(told) for told in decisions]

    def any_forgotten(self) -> bool:
        """Return whether any person was forgotten."""
        return self.is_any() and self._any_forgotten

    def is_any(self) -> bool:
        """Return whether any person is suppressed or was forgotten."""
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_AGAIN_S:
            self._any, self._looked_at = self._exists(_ANY), now
            self._any_forgotten = self._any and self._exists(_ANY_FORGOTTEN)
        return self._any

    def _exists(self, statement: Any) -> bool:
        told = {"account": self._account.name}
        return bool(self._account.database.read(partial(raw_rows, statement=statement, told=told)))

    def _keys(self, identifier: str, phones: Mapping[str, Sequence[str]]) -> Iterator[str]:
        keys = [key_of(self._account.identifiers, one) for one in _spellings(identifier)]
        if identifier.startswith(USER):
            keys += phones.get(identifier.removeprefix(USER), ())
        yield from keys
        if self._any_forgotten:
            self._salt = self._salt or self._account.database.read(salt_of)
            yield from (forgotten_key(self._salt, key) for key in keys)

    def _read(self, connection: Connection, keys: Collection[str]) -> dict[str, tuple[str, str | None]]:
        return {key: (kind, opt_outs) for key, kind, opt_outs in _FOUND.rows(connection, self._account.name, keys)}


def _spellings(identifier: str) -> tuple[str, ...]:
    if identifier.startswith(USER):
        user_id = identifier.removeprefix(USER).strip()
        if "@" in user_id:
            return identifier, user_id.lower()
        if user_id.startswith("+"):
            return identifier, user_id
    return (identifier,)


def _hold(named: Mapping[str, str], found: Mapping[str, tuple[str, str | None]]) -> Hold:
    is_forgotten, known = False, dict[tuple[str, str], str]()
    for key, identifier in named.items():
        kind, opt_outs = found.get(key, (None, None))
        is_forgotten = is_forgotten or kind == FORGOTTEN
        known |= {(identifier, channel): at for channel, at in json.loads(opt_outs or "{}").items()}
    return Hold(is_forgotten, known)


def salt_of(connection: Connection) -> str:
    """Return the ledger's own salt."""
    return str(connection.execute(_SALT).scalar_one())


# -- changes ----------------------------------------------------------------------------------------------------------


def suppress(
    account: Account,
    people: Iterable[str],
    *,
    by: str | None = None,
    source: str | None = None,
    note: str | None = None,
) -> int:
    """Suppress people; those already suppressed stay unchanged.

    :param people: phones, emails, ``user:<id>``; read once.
    :returns: how many are new.
    """
    account.join()
    more = (by and fit(by, LONGEST_NAME), source and fit(source, LONGEST_NAME), note and fit(note, LONGEST_MESSAGE))
    columns = ("account", "identifier", "kind", "added_at", "added_by", "source", "note")
    added = 0
    for some in batches({key_of(account.identifiers, one): None for one in people}, _PAGE):

        def work(connection: Connection, some: Sequence[str] = some) -> int:
            known = {key for key, *_ in _FOUND.rows(connection, account.name, some)}
            at = to_ledger_time(account.now())
            rows = [(account.name, key, SUPPRESSED, at, *more) for key in sorted({*some} - known)]
            write_rows(connection, schema.suppressions, columns, rows, "keep")
            return len(rows)

        added += account.database.write(work)
    return added


def unsuppress(account: Account, people: Iterable[str]) -> Counter[str]:
    """Allow people to be contacted again. The opt-outs of forgotten people are on record again, and owed.

    :returns: how many were ``suppressed`` and ``forgotten``, and how many ``opt_outs`` were restored.
    """
    account.join()
    counted = Counter[str]()
    for some in batches({*people}, _PAGE):
        counted.update(_let_go(account, some))
    return counted


def _let_go(account: Account, people: Sequence[str]) -> Counter[str]:
    def read(connection: Connection) -> list[Any]:
        salt = salt_of(connection)
        for one in people:
            key = key_of(account.identifiers, one)
            named[key] = named[forgotten_key(salt, key)] = one
        return _FOUND.rows(connection, account.name, named)

    named: dict[str, str] = {}
    found = account.database.read(read)
    told = [(named[key], json.loads(opt_outs)) for key, _, opt_outs in found if opt_outs]
    back = account.bar((one, channel, at) for one, times in told for channel, at in times.items())
    # Only now: if anything fails, they stay in effect.
    account.database.write(lambda connection: _remove(connection, account.name, [key for key, *_ in found]))
    return Counter([kind for _, kind, _ in found]) + Counter(opt_outs=len(back))


def _remove(connection: Connection, account: str, keys: Sequence[str]) -> None:
    for some in batches(keys, _AT_ONCE):
        connection.execute(delete(schema.suppressions).where((_s.account == account) & _s.identifier.in_(some)))


def leave_hashes(
    connection: Connection, account: Account, opt_outs: Mapping[str, Mapping[str, str]], *, by: str | None
) -> None:
    """Store hashes of people who are forgotten, with the times of their opt-outs; existing hashes stay unchanged.

    :param opt_outs: key of each identifier -> channel -> time.
    """
    salt, at = salt_of(connection), to_ledger_time(account.now())
    hashed = {forgotten_key(salt, key): dict(told) for key, told in opt_outs.items()}
    for key, _, told in _FOUND.rows(connection, account.name, hashed):
        for channel, before in json.loads(told or "{}").items():
            hashed[key][channel] = max(before, hashed[key].get(channel, before))
    columns = ("account", "identifier", "kind", "added_at", "added_by", "opt_outs")
    rows = [
        (account.name, key, FORGOTTEN, at, by and fit(by, LONGEST_NAME), json.dumps(told) if told else None)
        for key, told in sorted(hashed.items())
    ]
    write_rows(connection, schema.suppressions, columns, rows, "replace")


# -- lists ------------------------------------------------------------------------------------------------------------


class Suppression(NamedTuple):
    """A line of the table, without opt-outs.

    :param identifier: in stored form; for a forgotten person a hash.
    """

    account: str
    identifier: str
    kind: str
    added_at: str
    added_by: str | None
    source: str | None
    note: str | None


_LIST: Final = select(*(_s[name] for name in Suppression._fields)).order_by(_s.account, _s.identifier).limit(_PAGE)


def list_suppressions(database: Database, account: str | None = None) -> Iterator[Suppression]:
    """Stream all suppressions, of one account or of all, in constant memory."""
    statement = _LIST if account is None else _LIST.where(_s.account == account)
    last: Suppression | None = None
    while True:
        after = statement
        if last is not None:
            after = statement.where(
                (_s.account >= last.account) & ((_s.account > last.account) | (_s.identifier > last.identifier))
            )
        page = database.read(partial(raw_rows, statement=after, told={}))
        yield from map(Suppression._make, page)
        if len(page) < _PAGE:
            return
        last = Suppression._make(page[-1])


def find_suppressions(
    database: Database, people: Iterable[str], *, identifiers: Identifiers, account: str | None = None
) -> list[Suppression]:
    """List the suppressions of some people: phones, emails, ``user:<id>``."""
    keys = {key_of(identifiers, one) for one in people}

    def read(connection: Connection) -> list[Suppression]:
        salt, found = salt_of(connection), list[Suppression]()
        for some in batches(sorted(keys | {forgotten_key(salt, key) for key in keys}), _AT_ONCE):
            # The account is the first column of every key of the table.
            accounts = select(schema.accounts.c.account) if account is None else [account]
            wanted = _LIST.limit(None).where(_s.account.in_(accounts) & _s.identifier.in_(some))
            found += map(Suppression._make, raw_rows(connection, wanted, {}))
        return found

    return database.read(read)
