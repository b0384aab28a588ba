"""Many rows written at once, in every database: new ones are added, known ones replaced or left as they are.

SQLAlchemy's own way to execute many costs three times what the driver's takes, so SQLite gets tuples, and PostgreSQL
one array a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Column, Integer, Table, text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

#: What becomes of a row whose primary key is known.
Known = Literal["replace", "keep"]


def write_rows(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Any], known: Known) -> None:
    """Write rows.

    :param columns: the names of their values.
    :param rows: tuples; no two have the same primary key.
    """
    if not rows:
        return
    dialect = connection.dialect.name
    if dialect == "sqlite":
        connection.exec_driver_sql(_of_sqlite(table, tuple(columns), known), [tuple(row) for row in rows])
    elif dialect == "postgresql":
        values = zip(*rows, strict=True)
        told = {name: list(column) for name, column in zip(columns, values, strict=True)}
        connection.execute(_of_postgres(table, tuple(columns), known), told)
    else:
        connection.execute(
            _of_mysql(table, tuple(columns), known), [dict(zip(columns, row, strict=True)) for row in rows]
        )


def _primary(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _on_conflict(table: Table, columns: tuple[str, ...], known: Known) -> str:
    """Return what becomes of a known row: other columns than those told stay as they are."""
    then = "NOTHING"
    if known == "replace":
        others = (name for name in columns if name not in _primary(table))
        then = "UPDATE SET " + ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    return f"ON CONFLICT ({', '.join(_primary(table))}) DO {then}"


@lru_cache(maxsize=64)
def _of_sqlite(table: Table, columns: tuple[str, ...], known: Known) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    return (
        f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608 - names of columns
        f"{_on_conflict(table, columns, known)}"
    )


def _type_in_postgres(column: Column[Any]) -> str:
    kind: Any = getattr(column.type, "impl", column.type)  # SQLAlchemy 1.4 wraps one with variants
    return "bigint" if isinstance(kind, Integer) else "text"


@lru_cache(maxsize=64)
def _of_postgres(table: Table, columns: tuple[str, ...], known: Known) -> Any:
    names = ", ".join(f'"{name}"' for name in columns)
    arrays = ", ".join(f"CAST(:{name} AS {_type_in_postgres(table.c[name])}[])" for name in columns)
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
