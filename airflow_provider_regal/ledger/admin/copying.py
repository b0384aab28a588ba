"""Copy a ledger to another database, such as from the SQLite file to PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Table, and_, func, or_, select, text
from sqlalchemy.engine import Connection

from airflow_provider_regal.errors import WrongLedgerError
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.admin.history import is_live
from airflow_provider_regal.ledger.database import Database, let_pause
from airflow_provider_regal.ledger.deliveries import RECORD, Record

_PAGE: Final = 1_000
_CHUNK_PAGE: Final = 20  # of up to 2 MB each
_NUMBERED: Final = (schema.deliveries, schema.consent_log)
_TABLES: Final = [table for table in schema.metadata.sorted_tables if table is not schema.schema_version]


def copy_ledger(
    source: Database, target: Database, *, on_table: Callable[[str, int], None] = lambda name, rows: None
) -> dict[str, int]:
    """Copy everything into an empty ledger, in one transaction there.

    :param source: no delivery may be running on it; both must have this version's tables.
    :param on_table: called with each table that was copied, and its number of rows.
    :returns: table -> rows.
    :raises WrongLedgerError: the target is not empty, a delivery is running, or the counts differ. Nothing was copied.
    :raises LedgerError: one of the databases could not be used. Nothing was copied.
    """
    return source.read(
        lambda reading: target.write(lambda writing: _copy(source, reading, writing, on_table), once=True)
    )


def _copy(
    source: Database, reading: Connection, writing: Connection, on_table: Callable[[str, int], None]
) -> dict[str, int]:
    let_pause(reading)
    let_pause(writing)
    if source.dialect == "postgresql":  # one snapshot of all tables; SQLite does this by default
        reading.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    holds = {table.name: rows for table in _TABLES if (rows := _count(writing, table))}
    if holds:
        told = ", ".join(f"{name} {rows:,}" for name, rows in holds.items())
        raise WrongLedgerError(f"The target is not empty ({told}). Copy into a new database, or empty it first.")
    _refuse_while_running(source, reading)
    copied: dict[str, int] = {}
    for table in _TABLES:
        for page in _pages(reading, table):
            writing.execute(table.insert(), page)
            copied[table.name] = copied.get(table.name, 0) + len(page)
        there, here = _count(writing, table), _count(reading, table)
        if not there == here == copied.setdefault(table.name, 0):
            raise WrongLedgerError(
                f"{table.name} has {here:,} rows, and {there:,} of them arrived. Pause the DAGs that use the ledger "
                "and copy it again."
            )
        on_table(table.name, there)
    # The hashes of API keys depend on it.
    salt = reading.execute(select(schema.schema_version.c.salt)).scalar_one()
    writing.execute(schema.schema_version.update().values(salt=salt))
    for table in _NUMBERED:
        _go_on_numbering(reading, writing, table)
    return copied


def _refuse_while_running(source: Database, reading: Connection) -> None:
    records = [Record(*row) for row in reading.execute(RECORD.where(schema.deliveries.c.holder.is_not(None)))]
    running = [record.id for record in records if is_live(record, source.now())]
    if running:
        which = ", ".join(map(str, running))
        raise WrongLedgerError(
            f"Deliveries are running on the ledger ({which}). Pause the DAGs that use it, wait until they have ended, "
            "and copy it then."
        )


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _pages(connection: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """Read a table in the order of its primary key, in constant memory."""
    size = _CHUNK_PAGE if table is schema.row_chunks else _PAGE
    keys = list(table.primary_key.columns)
    first = select(*table.c).order_by(*keys).limit(size)
    last: Sequence[Any] | None = None
    while True:
        statement = first if last is None else first.where(_after(keys, last))
        page = [dict(row._mapping) for row in connection.execute(statement)]
        if page:
            yield page
        if len(page) < size:
            return
        last = [page[-1][key.name] for key in keys]


def _after(keys: Sequence[Any], last: Sequence[Any]) -> Any:
    """Return a condition for the rows after the last one, written so that databases use the primary key."""
    if len(keys) == 1:
        return keys[0] > last[0]
    return and_(keys[0] >= last[0], or_(keys[0] > last[0], _after(keys[1:], last[1:])))


def _go_on_numbering(reading: Connection, writing: Connection, table: Table) -> None:
    """Continue the numbering after the highest number ever used: an id is never reused."""
    number = writing.execute(select(func.max(table.c.id))).scalar() or 0
    if reading.dialect.name == "sqlite":
        used = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        number = max(number, reading.execute(used, {"name": table.name}).scalar() or 0)
    if not number:
        return
    if writing.dialect.name == "postgresql":
        set_to = text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :number)")
        writing.execute(set_to, {"name": table.name, "number": number})
    elif writing.dialect.name == "sqlite":
        writing.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        new = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)")
        writing.execute(new, {"name": table.name, "number": number})
    # MySQL and MariaDB continue after the highest number anyway.
