"""The people in all benchmarks: a table in SQLite, and the event for each row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

COLUMNS: Final = (
    "user_id INTEGER PRIMARY KEY",
    "phone TEXT",
    "email TEXT",
    "first_name TEXT",
    "last_name TEXT",
    "plan TEXT",
    "balance REAL",
    "visits INTEGER",
    "signed_up TEXT",
    "campaign TEXT",
)
SQL: Final = "SELECT * FROM contacts WHERE user_id >= {first} AND user_id < {end} ORDER BY user_id"
_FIRST_NAMES: Final = ("Anne", "Bertram", "Chloé", "Dmitri", "Esperanza", "Farid", "Grace", "Hiroshi")
_PLANS: Final = ("free", "silver", "gold")


def contact(number: int) -> tuple[Any, ...]:
    """Return one row; all rows differ, and every phone is valid, in a database's usual spelling."""
    line = 2_000_000 + number
    return (
        number,
        f"(212) {line // 10_000}-{line % 10_000:04d}",
        f"person.{number}@example.com",
        _FIRST_NAMES[number % len(_FIRST_NAMES)],
        f"Lastname-{number % 1_000}",
        _PLANS[number % len(_PLANS)],
        round(number * 1.25, 2),
        number % 37,
        f"2026-01-{number % 28 + 1:02d}T08:30:00Z",
        "spring brochure, second letter",
    )


def make_table(path: Path, count: int) -> None:
    """Create the table with this many rows."""
    marks = ", ".join("?" * len(COLUMNS))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE contacts ({', '.join(COLUMNS)})")
        connection.executemany(f"INSERT INTO contacts VALUES ({marks})", map(contact, range(count)))


def rows(path: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Read rows like a script that does not use this package."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        yield from map(dict, connection.execute(SQL.format(first=first, end=first + count)))


def body_of(row: dict[str, Any]) -> dict[str, Any]:
    """Map a row by hand to the same event as this package, without checks; only the phone is rewritten."""
    digits = "".join(filter(str.isdigit, row["phone"]))
    return {
        "userId": str(row["user_id"]),
        "traits": {
            "firstName": row["first_name"],
            "lastName": row["last_name"],
            "plan": row["plan"],
            "balance": row["balance"],
            "visits": row["visits"],
            "signed_up": row["signed_up"],
            "campaign": row["campaign"],
            "phones": {f"+1{digits}": {"isPrimary": True}},
            "emails": {row["email"]: {"isPrimary": True}},
        },
        "eventSource": "airflow",
    }


def encoded(body: dict[str, Any]) -> bytes:
    """Write a body as compact JSON in UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
