"""Write many rows at once, in every database: new ones are added, existing ones replaced or left unchanged.

SQLAlchemy's own bulk execution costs three times as much as the driver's, so SQLite gets tuples, and PostgreSQL one
array per column.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Column, Integer, Table, text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

#: What happens to a row whose primary key exists.
Known = Literal["replace", "keep"]


def write_rows(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Any], known: Known) -> None:
    """Write rows.

    :param columns: the names of their values; if an existing row is replaced, its other columns stay unchanged.
    :param rows: tuples; no two have the same primary key.
    """
    if not rows:
        return
    # Empty columns are a third of the cost of an outcome in SQLite: columns that are empty in all rows are left out.
    told = {
        name: values
        for name, values in zip(columns, zip(*rows, strict=True), strict=True)
        if values.count(None) < len(rows)
    }
    names, all_names = tuple(told), tuple(columns)
    dialect = connection.dialect.name
    if dialect == "sqlite":
        statement = _of_sqlite(table, names, all_names, known)
        connection.exec_driver_sql(statement, [*zip(*told.values(), strict=True)])
    elif dialect == "postgresql":
        arrays = {name: list(values) for name, values in told.items()}
        connection.execute(_of_postgres(table, names, all_names, known), arrays)
    else:
        by_name = [dict(zip(names, row, strict=True)) for row in zip(*told.values(), strict=True)]
        connection.execute(_of_mysql(table, all_names, known), by_name)


def _primary(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _on_conflict(table: Table, columns: tuple[str, ...], known: Known) -> str:
    """Return the conflict clause: other columns stay unchanged; a column without a value is set to NULL."""
    then = "NOTHING"
    if known == "replace":
        others = (name for name in columns if name not in _primary(table))
        then = "UPDATE SET " + ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    return f"ON CONFLICT ({', '.join(_primary(table))}) DO {then}"


@lru_cache(maxsize=64)
def _of_sqlite(table: Table, told: tuple[str, ...], columns: tuple[str, ...], known: Known) -> str:
    names = ", ".join(f'"{name}"' for name in told)
    return (
        f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' * len(told))}) "  # noqa: S608 - names of columns
        f"{_on_conflict(table, columns, known)}"
    )


def _type_in_postgres(column: Column[Any]) -> str:
    kind: Any = getattr(column.type, "impl", column.type)  # SQLAlchemy 1.4 wraps one with variants
    return "bigint" if isinstance(kind, Integer) else "text"


@lru_cache(maxsize=64)
def _of_postgres(table: Table, told: tuple[str, ...], columns: tuple[str, ...], known: Known) -> Any:
    names = ", ".join(f'"{name}"' for name in told)
    arrays = ", ".join(f"CAST(:{name} AS {_type_in_postgres(table.c[name])}[])" for name in told)
    return text(
        f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}) AS told "  # noqa: S608 - names of columns
        f"{_on_conflict(table, columns, known)}"
    )


@lru_cache(maxsize=64)
def _of_mysql(table: Table, columns: tuple[str, ...], known: Known) -> Any:
    insert = mysql.insert(table)
    primary = _primary(table)
    names = primary[:1] if known == "keep" else [name for name in columns if name not in primary]
    return insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})
