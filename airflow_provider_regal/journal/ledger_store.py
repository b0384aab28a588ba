"""Entries of the ledger in SQL: read and locked in one order, written as wholes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Final, TypeVar

from sqlalchemy import bindparam, delete, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from airflow_provider_regal.journal.ledger_rules import OPT_IN, PHONE, Entry
from airflow_provider_regal.journal.ledger_schema import ledger

T = TypeVar("T")
#: Where an entry lies within its account: call, channel and key as stored. Locks are taken in this order.
Place = tuple[str, str, str]
#: Of :func:`consent_page`: key, channel, subscribed, evidence_at, opt_out_at, state, pending_*, source, row_hash.
ConsentRow = tuple[str, str, int | None, str | None, str | None, str, int | None, str | None, str | None, str | None]

_AT_ONCE: Final = 500  # bound values in one statement; some databases stop at 999
PAGE: Final = 2_000
_NOTHING: Final = Entry()

_c = ledger.c
_OF_ACCOUNT: Final = _c.account == bindparam("account")
_PRIMARY: Final = ("account", "call", "key", "channel")
_SOME: Final = (
    _OF_ACCOUNT
    & (_c.call == bindparam("call"))
    & (_c.channel == bindparam("channel"))
    & _c.key.in_(bindparam("keys", expanding=True))
)
_READ: Final = select(_c.call, _c.channel, _c.key, *(_c[name] for name in Entry._fields)).where(_SOME)
_LOCK: Final = (
    _READ.order_by(_c.key)
    .with_for_update()
    .with_hint(ledger, "WITH (UPDLOCK, HOLDLOCK, ROWLOCK)", "mssql")  # it has no FOR UPDATE
)
# A table that grew since it was last analyzed seems to hold next to nothing of an account, so PostgreSQL would read all
# of it to find those of an IN. LATERAL makes it look each up by the primary key, and lock them in the order asked for.
_COLUMNS: Final = ", ".join(f'"{name}"' for name in ("call", "channel", "key", *Entry._fields))
_EACH_IN_POSTGRES: Final = f"""
    SELECT found.* FROM
        unnest(CAST(:calls AS text[]), CAST(:channels AS text[]), CAST(:keys AS text[])) AS wanted(a, b, c),
        LATERAL (
            SELECT {_COLUMNS} FROM regal_ledger
            WHERE account = :account AND "call" = wanted.a AND channel = wanted.b AND "key" = wanted.c
"""  # noqa: S608 - names of our own columns
_READ_IN_POSTGRES: Final = text(f"{_EACH_IN_POSTGRES} OFFSET 0) AS found")
_LOCK_IN_POSTGRES: Final = text(f"{_EACH_IN_POSTGRES} FOR UPDATE) AS found")
_THIS: Final = (
    (_c.account == bindparam("_account"))
    & (_c.call == bindparam("_call"))
    & (_c.channel == bindparam("_channel"))
    & (_c.key == bindparam("_key"))
)
_DELETE: Final = delete(ledger).where(_THIS)
_OF_KEYS: Final = _c.key.in_(bindparam("keys", expanding=True))
# A phone stands in two places: as a key, and with whom it belongs to.
_IS_PHONE: Final = (_c.call == bindparam("phone")) & _c.row_hash.in_(bindparam("phones", expanding=True))
_ERASE: Final = delete(ledger).where(_OF_ACCOUNT & (_OF_KEYS | _IS_PHONE))
_PHONES: Final = select(_c.key, _c.row_hash).where(_OF_ACCOUNT & (_c.call == bindparam("phone")) & _OF_KEYS)
_SHORT: Final = 10  # characters of a channel
_CONSENTS: Final = (
    select(
        _c.key,
        _c.channel,
        _c.subscribed,
        _c.evidence_at,
        _c.opt_out_at,
        _c.state,
        _c.pending_subscribed,
        _c.pending_at,
        _c.source,
        _c.row_hash,
    )
    .where(_OF_ACCOUNT & (_c.call == OPT_IN))
    .order_by(_c.key, _c.channel)
    .limit(PAGE)
)
# Not (key > x or (key = x and ...)): databases would read from the account's start to find that.
_CONSENTS_ON: Final = _CONSENTS.where(
    (_c.key >= bindparam("last")) & ((_c.key > bindparam("last")) | (_c.channel > bindparam("last_channel")))
)
_ANY_CONSENT: Final = select(_c.key).where(_OF_ACCOUNT & (_c.call == OPT_IN) & _c.acknowledged_at.is_not(None)).limit(1)


# Drivers send many rows of an INSERT at once, but an UPDATE row by row. The rows are there and locked: none is added.
_BULK_UPDATES: Final[dict[str, Callable[[Any], Any]]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@lru_cache(maxsize=64)
def _update_of(dialect: str, columns: tuple[str, ...]) -> Any:
    if dialect not in _BULK_UPDATES:
        return update(ledger).where(_THIS).values({name: bindparam(name) for name in columns})
    insert = _BULK_UPDATES[dialect](ledger)
    return insert.on_conflict_do_update(
        index_elements=list(_PRIMARY), set_={name: insert.excluded[name] for name in columns}
    )


def batches(items: Iterable[T], size: int = 1_000) -> Iterator[list[T]]:
    """Cut what may be endless into lists."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def change(
    connection: Connection,
    account: str,
    items: Sequence[tuple[Place, T]],
    decide: Callable[[Entry | None, T], Entry | None],
) -> None:
    """Lock the entries at the places, decide on each item in turn, and write what became of them.

    :param decide: gives the entry as it shall be, None for none; it sees what items before it made.
    """
    if not items:
        return
    before = read_places(connection, account, {place for place, _ in items}, lock=True)
    after: dict[Place, Entry | None] = {}
    for place, item in items:
        after[place] = decide(after[place] if place in after else before.get(place), item)
    _write(connection, account, before, after)


def _write(
    connection: Connection, account: str, before: Mapping[Place, Entry], after: Mapping[Place, Entry | None]
) -> None:
    added, changed, removed = list[Place](), list[Place](), list[Place]()
    for place in sorted(after):
        entry, was = after[place], before.get(place)
        if entry is None:
            if was is not None:
                removed.append(place)
        elif was is None:
            added.append(place)
        elif entry != was:
            changed.append(place)
    # Each column costs as much as the rest of the row, and most are empty or stay as they are.
    if added:
        columns = _columns((after[place], _NOTHING) for place in added)
        connection.execute(ledger.insert(), [_row(account, place, after[place], columns) for place in added])
    if changed:
        columns = _columns((after[place], before[place]) for place in changed)
        statement = _update_of(connection.dialect.name, columns)
        row = _row if connection.dialect.name in _BULK_UPDATES else _row_beside_its_place
        connection.execute(statement, [row(account, place, after[place], columns) for place in changed])
    if removed:
        connection.execute(_DELETE, [_place(account, place) for place in removed])


def _columns(pairs: Iterable[tuple[Entry | None, Entry]]) -> tuple[str, ...]:
    """Name the columns in which entries differ from what they were; the state is in every row."""
    differ = {number for entry, was in pairs for number, value in enumerate(entry or was) if value != was[number]}
    return tuple(name for number, name in enumerate(Entry._fields) if number in differ or name == "state")


def read(connection: Connection, account: str, call: str, keys: Iterable[str]) -> dict[str, Entry]:
    """Read entries that have no channel, by key as stored."""
    found = read_places(connection, account, {(call, "", key) for key in keys})
    return {key: entry for (_, _, key), entry in found.items()}


def read_places(
    connection: Connection, account: str, places: Iterable[Place], *, lock: bool = False
) -> dict[Place, Entry]:
    """Read the entries at places.

    :param lock: nobody else changes them until the transaction ends.
    """
    if connection.dialect.name == "postgresql":
        rows: Iterable[Any] = _rows_in_postgres(connection, account, places, lock=lock)
    else:
        rows = _rows(connection, account, places, _LOCK if lock else _READ)
    return {(call, channel, key): Entry._make(entry) for call, channel, key, *entry in rows}


def _rows(connection: Connection, account: str, places: Iterable[Place], statement: Any) -> Iterator[Any]:
    for (call, channel), group in groupby(sorted(places), lambda place: place[:2]):
        for keys in batches((place[2] for place in group), _AT_ONCE):
            yield from _raw(connection, statement, {"account": account, "call": call, "channel": channel, "keys": keys})


def _rows_in_postgres(connection: Connection, account: str, places: Iterable[Place], *, lock: bool) -> list[Any]:
    calls, channels, keys = zip(*sorted(places), strict=True)
    told = {"account": account, "calls": list(calls), "channels": list(channels), "keys": list(keys)}
    return _raw(connection, _LOCK_IN_POSTGRES if lock else _READ_IN_POSTGRES, told)


def short_of(phone: str) -> str:
    """Tell the phones of one contact apart, in the room of a channel."""
    return hashlib.sha256(phone.encode()).hexdigest()[:_SHORT]


def phones(connection: Connection, account: str, users: Iterable[str]) -> list[tuple[str, str]]:
    """Read users and their phones, both as stored."""
    return [
        pair
        for some in batches(sorted(users), _AT_ONCE)
        for pair in _raw(connection, _PHONES, {"account": account, "phone": PHONE, "keys": some})
    ]


def consent_page(connection: Connection, account: str, after: ConsentRow | None) -> list[ConsentRow]:
    """Read the consents that follow one, in the order of keys; an empty list at the end."""
    if after is None:
        return _raw(connection, _CONSENTS, {"account": account})
    return _raw(connection, _CONSENTS_ON, {"account": account, "last": after[0], "last_channel": after[1]})


def has_consents(connection: Connection, account: str) -> bool:
    """Say whether any opt-in or opt-out of the account was ever acknowledged."""
    return connection.execute(_ANY_CONSENT, {"account": account}).first() is not None


def erase(connection: Connection, account: str, keys: Iterable[str]) -> int:
    """Remove every entry with one of the keys, as stored."""
    return sum(
        connection.execute(_ERASE, {"account": account, "keys": some, "phone": PHONE, "phones": some}).rowcount
        for some in batches(sorted(set(keys)), _AT_ONCE)
    )


def _raw(connection: Connection, statement: Any, told: dict[str, Any]) -> list[Any]:
    # All columns are text or small numbers, so the driver's own rows will do: SQLAlchemy's cost as much again.
    result = connection.execute(statement, told)
    cursor: Any = result.cursor
    rows: list[Any] = cursor.fetchall()
    result.close()
    return rows


def _row(account: str, place: Place, entry: Entry | None, columns: Iterable[str]) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in columns}
    row["account"] = account
    row["call"], row["channel"], row["key"] = place
    return row


def _row_beside_its_place(account: str, place: Place, entry: Entry | None, columns: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in columns} | _place(account, place)


def _place(account: str, place: Place) -> dict[str, Any]:
    return {"_account": account, "_call": place[0], "_channel": place[1], "_key": place[2]}
