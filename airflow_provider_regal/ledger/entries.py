"""Entries of the ledger in SQL: read and locked in a fixed order, decided by ``rules``, written as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Final, TypeVar

from sqlalchemy import Table, bindparam, delete, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.rules import Entry

T = TypeVar("T")
#: Identifies an entry within its account: identifier and channel, or message id. Locks are taken in this order.
Key = tuple[str, ...]

_AT_ONCE: Final = 500  # bound values per statement; some databases allow 999
_NOTHING: Final = Entry()
# Drivers send many rows of an INSERT at once, but an UPDATE row by row. The rows exist and are locked: none is added.
_BULK_UPDATES: Final[dict[str, Callable[[Any], Any]]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def batches(items: Iterable[T], size: int = 1_000) -> Iterator[list[T]]:
    """Split a possibly endless iterable into lists."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


class Entries:
    """The entries of one table.

    :param table: has the columns ``account``, those of the key, and some fields of :class:`Entry`.
    :param key: its columns; the first is looked up by many values at once.
    """

    def __init__(self, table: Table, *key: str) -> None:
        self._table = table
        self._key = key
        self._fields = tuple(name for name in Entry._fields if name in table.c)
        columns = [table.c[name] for name in (*key, *self._fields)]
        first, *rest = key
        wanted = (table.c.account == bindparam("account")) & table.c[first].in_(bindparam("keys", expanding=True))
        for name in rest:
            wanted = wanted & (table.c[name] == bindparam(name))
        self._read = select(*columns).where(wanted)
        self._lock = self._read.order_by(table.c[first]).with_for_update()
        self._read_in_postgres, self._lock_in_postgres = self._of_postgres()
        this = table.c.account == bindparam("_account")
        for name in key:
            this = this & (table.c[name] == bindparam(f"_{name}"))
        self._this = this
        self._delete = delete(table).where(this)

    def _of_postgres(self) -> tuple[Any, Any]:
        # If a table has grown since it was last analyzed, PostgreSQL expects few rows for an account, and reads all of
        # them to find those of an IN. LATERAL makes it look up each by the primary key, in the given order.
        names = ", ".join(f'"{name}"' for name in (*self._key, *self._fields))
        arrays = ", ".join(f"CAST(:{name} AS text[])" for name in self._key)
        wanted = ", ".join(f"k{number}" for number in range(len(self._key)))
        equal = " AND ".join(f'"{name}" = wanted.k{number}' for number, name in enumerate(self._key))
        each = (
            f"SELECT found.* FROM unnest({arrays}) AS wanted({wanted}), LATERAL (SELECT {names} "  # noqa: S608
            f"FROM {self._table.name} WHERE account = :account AND {equal} "
        )
        return text(f"{each} OFFSET 0) AS found"), text(f"{each} FOR UPDATE) AS found")

    def change(
        self,
        connection: Connection,
        account: str,
        items: Sequence[tuple[Key, T]],
        decide: Callable[[Entry | None, T], Entry | None],
    ) -> None:
        """Lock the entries of the keys, decide on each item in turn, and write the results.

        :param decide: returns the new entry, None for none; it sees the results of earlier items.
        """
        if not items:
            return
        before = self.read(connection, account, {key for key, _ in items}, lock=True)
        after: dict[Key, Entry | None] = {}
        for key, item in items:
            after[key] = decide(after[key] if key in after else before.get(key), item)
        self._write(connection, account, before, after)

    def read(
        self, connection: Connection, account: str, keys: Iterable[Key], *, lock: bool = False
    ) -> dict[Key, Entry]:
        """Read the entries of keys.

        :param lock: block changes by others until the transaction ends.
        """
        wanted = sorted(keys)
        if not wanted:
            return {}
        if connection.dialect.name == "postgresql":
            told: dict[str, Any] = {
                name: list(values) for name, values in zip(self._key, zip(*wanted, strict=True), strict=True)
            }
            statement = self._lock_in_postgres if lock else self._read_in_postgres
            rows: Iterable[Any] = raw_rows(connection, statement, {"account": account, **told})
        else:
            rows = self._rows(connection, account, wanted, self._lock if lock else self._read)
        size = len(self._key)
        return {tuple(row[:size]): Entry(**dict(zip(self._fields, row[size:], strict=True))) for row in rows}

    def _rows(self, connection: Connection, account: str, keys: Sequence[Key], statement: Any) -> Iterator[Any]:
        in_groups = sorted(keys, key=lambda key: (key[1:], key[0]))
        for rest, group in groupby(in_groups, key=lambda key: key[1:]):
            told = {"account": account, **dict(zip(self._key[1:], rest, strict=True))}
            for some in batches((key[0] for key in group), _AT_ONCE):
                yield from raw_rows(connection, statement, {**told, "keys": some})

    def _write(
        self, connection: Connection, account: str, before: Mapping[Key, Entry], after: Mapping[Key, Entry | None]
    ) -> None:
        added, changed, removed = list[Key](), list[Key](), list[Key]()
        for key in sorted(after):
            entry, was = after[key], before.get(key)
            if entry is None:
                if was is not None:
                    removed.append(key)
            elif was is None:
                added.append(key)
            elif entry != was:
                changed.append(key)
        # Each column costs as much as the rest of the row, and most are empty or unchanged.
        if added:
            columns = self._columns((after[key], _NOTHING) for key in added)
            connection.execute(self._table.insert(), [self._row(account, key, after[key], columns) for key in added])
        if changed:
            columns = self._columns((after[key], before[key]) for key in changed)
            dialect = connection.dialect.name
            row = self._row if dialect in _BULK_UPDATES else self._row_beside_its_key
            connection.execute(
                self._update_of(dialect, columns), [row(account, key, after[key], columns) for key in changed]
            )
        if removed:
            connection.execute(self._delete, [self._named(account, key) for key in removed])

    @lru_cache(maxsize=64)  # noqa: B019 - there are two of these objects, for as long as the process lives
    def _update_of(self, dialect: str, columns: tuple[str, ...]) -> Any:
        if dialect not in _BULK_UPDATES:
            return update(self._table).where(self._this).values({name: bindparam(name) for name in columns})
        insert = _BULK_UPDATES[dialect](self._table)
        return insert.on_conflict_do_update(
            index_elements=["account", *self._key], set_={name: insert.excluded[name] for name in columns}
        )

    def _columns(self, pairs: Iterable[tuple[Entry | None, Entry]]) -> tuple[str, ...]:
        """Return the columns in which entries changed; the state is in every row."""
        differ = {number for entry, was in pairs for number, value in enumerate(entry or was) if value != was[number]}
        names = (name for number, name in enumerate(Entry._fields) if number in differ or name == "state")
        return tuple(name for name in names if name in self._fields)

    def _row(self, account: str, key: Key, entry: Entry | None, columns: Iterable[str]) -> dict[str, Any]:
        row = {name: getattr(entry, name) for name in columns}
        return {**row, "account": account, **dict(zip(self._key, key, strict=True))}

    def _row_beside_its_key(
        self, account: str, key: Key, entry: Entry | None, columns: Iterable[str]
    ) -> dict[str, Any]:
        return {name: getattr(entry, name) for name in columns} | self._named(account, key)

    def _named(self, account: str, key: Key) -> dict[str, Any]:
        return {"_account": account, **{f"_{name}": value for name, value in zip(self._key, key, strict=True)}}


def raw_rows(connection: Connection, statement: Any, told: Mapping[str, Any]) -> list[Any]:
    """Read the driver's own rows: SQLAlchemy's cost twice as much, and all columns are text, bytes or small ints."""
    result = connection.execute(statement, told)
    cursor: Any = result.cursor
    rows: list[Any] = cursor.fetchall()
    result.close()
    return rows


CONSENTS: Final = Entries(schema.consents, "identifier", "channel")
MESSAGES: Final = Entries(schema.messages, "message_id")
