"""Read a ledger's SQLite file over a plain connection, without our code."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def table(path: Path, name: str, *, order: str = "1, 2") -> list[dict[str, Any]]:
    """Read all lines of a table, such as ``regal_consents``."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY {order}")]


def deliveries(path: Path) -> list[dict[str, Any]]:
    return table(path, "regal_deliveries")


def outcomes(path: Path, delivery: int | None = None, *, status: str | None = None) -> list[dict[str, Any]]:
    """Read the outcomes of a delivery, or of all, in the order of their rows."""
    return [
        line
        for line in table(path, "regal_outcomes")
        if delivery in (None, line["delivery"]) and status in (None, line["status"])
    ]


def dead_letters(path: Path, delivery: int | None = None) -> list[dict[str, Any]]:
    """Read dead letters, with their payloads as objects."""
    found = [line for line in outcomes(path, delivery) if line["payload"] is not None]
    return [{**line, "payload": json.loads(line["payload"])} for line in found]


def consents(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the consents: identifier and channel -> what is on record."""
    return {(line["identifier"], line["channel"]): line for line in table(path, "regal_consents", order="1, 2, 3")}


def remembered(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read everything that a later delivery would use."""
    names = ("regal_consents", "regal_contacts", "regal_contact_phones", "regal_messages", "regal_types")
    return {name: table(path, name, order="1, 2, 3") for name in names}


def everything(path: Path) -> bytes:
    """Read every byte of the database, including the WAL."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))
