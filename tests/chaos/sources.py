"""The rows of a storm, in the source it draws, and which of them may arrive at Regal."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.chaos.storm import Storm

EVENT = "Lesson Booked"
INVALID_PHONE = "555"
_CHANNELS = ("sms", "voice")


@dataclass(frozen=True)
class Source:
    """The source of rows.

    :param rows: as written.
    :param people: the person of each row, by its number from 1.
    :param path: of its file or database, if it has one.
    :param secrets: texts that must not be in any log.
    """

    rows: list[dict[str, Any]]
    people: dict[int, str]
    path: Path | None
    secrets: tuple[str, ...]


def make(storm: Storm, folder: Path) -> Source:
    """Make the rows, and write them to the source."""
    chance = random.Random(f"rows {storm.seed}")
    rows = _consents(storm, chance) if storm.source == "sync" else _rows(storm, chance)
    people = {number: row["user_id"] for number, row in enumerate(rows, 1)}
    secrets = {
        str(row[name]).removeprefix("+1")
        for row in rows
        for name in ("user_id", "phone", "email", "first_name", "sms_opt_in_ip", "ip")
        if row.get(name) and row[name] != INVALID_PHONE
    }
    return Source(rows, people, _write(storm, rows, folder), tuple(sorted(secrets)))


def _person(storm: Storm, number: int) -> dict[str, str]:
    return {
        "user_id": f"cust-{storm.seed}-{number:04d}x",
        "phone": f"+1212555{number:04d}",
        "email": f"p{number}.of.{storm.seed}@storm.example",
        "first_name": f"Zerubbabel{number:04d}",
    }


def _rows(storm: Storm, chance: random.Random) -> list[dict[str, Any]]:
    """Return rows of a third as many people; some rows of a person are adjacent."""
    people = max(storm.rows // 3, 2)
    invalid = set(chance.sample(range(storm.rows), storm.invalid))
    now = datetime.now(UTC).replace(microsecond=0)
    with_message_ids = storm.source == "segment" or (storm.call == "track" and chance.random() < 0.5)
    rows, last = [], 0
    for index in range(storm.rows):
        last = last if chance.random() < 0.2 else chance.randrange(people)
        row: dict[str, Any] = {**_person(storm, last), "n": index + 1}
        if index in invalid:
            row["phone"] = INVALID_PHONE
        if with_message_ids:
            row["message_id"] = f"m-{storm.seed}-{index}"
        if storm.call == "identify" and index not in invalid:
            row |= _consent(chance, now)
        rows.append(row)
    return rows


def _consent(chance: random.Random, now: datetime) -> dict[str, Any]:
    """Return a row's consent: none, a yes, a yes without evidence, or a no."""
    what = chance.choice(("nothing", "yes", "yes", "no_ip", "no_time", "no"))
    if what == "nothing":
        return {"sms_opt_in": None, "sms_opt_in_at": None, "sms_opt_in_ip": None}
    at = (now - timedelta(minutes=chance.randrange(10, 10_000))).isoformat()
    return {
        "sms_opt_in": what != "no",
        "sms_opt_in_at": None if what == "no_time" else at,
        "sms_opt_in_ip": None if what == "no_ip" else f"203.0.113.{chance.randrange(1, 250)}",
    }


def _consents(storm: Storm, chance: random.Random) -> list[dict[str, Any]]:
    """Return consents, one or two for each phone and channel; those who opt out have often opted in before."""
    now = datetime.now(UTC).replace(microsecond=0)
    rows = []
    for index in range(storm.rows):
        person = _person(storm, index * 3 // 4)
        at = now - timedelta(minutes=chance.randrange(10, 10_000), seconds=index % 60)
        rows.append(
            {
                "user_id": person["user_id"], "phone": person["phone"], "channel": chance.choice(_CHANNELS),
                "subscribed": chance.random() < 0.7, "timestamp": at.isoformat(),
                "ip": f"203.0.113.{chance.randrange(1, 250)}" if chance.random() < 0.95 else None,
            }
        )  # fmt: skip
    return rows


def message(storm: Storm, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as archived by Segment: every third one a contact."""
    number = row["n"]
    said: dict[str, Any] = {
        "userId": row["user_id"], "messageId": row["message_id"],
        "timestamp": (datetime.now(UTC) - timedelta(hours=1, seconds=storm.rows - number)).isoformat(),
    }  # fmt: skip
    if number % 3 == 0 or row["phone"] == INVALID_PHONE:
        traits = {"phone": row["phone"], "email": row["email"], "firstName": row["first_name"], "n": number}
        return {**said, "type": "identify", "traits": traits}
    return {**said, "type": "track", "event": EVENT, "properties": {"n": number}}


def _write(storm: Storm, rows: list[dict[str, Any]], folder: Path) -> Path | None:
    match storm.source:
        case "sql":
            return _as_table(rows, folder / "warehouse.db")
        case "csv":
            path = folder / "rows.csv"
            columns = list(dict.fromkeys(name for row in rows for name in row))
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
        case "jsonl" | "sync":
            path = folder / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case "segment":
            path = folder / "archive.jsonl"
            path.write_text("".join(json.dumps(message(storm, row)) + "\n" for row in rows))
        case "parquet":
            import pyarrow
            from pyarrow import parquet

            path = folder / "rows.parquet"
            names = list(dict.fromkeys(name for row in rows for name in row))
            whole = [{name: row.get(name) for name in names} for row in rows]
            parquet.write_table(pyarrow.Table.from_pylist(whole), path)
        case _:
            return None
    return path


def _as_table(rows: list[dict[str, Any]], path: Path) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE t ({', '.join(names)})")
        places = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO t VALUES ({places})", [tuple(map(row.get, names)) for row in rows])
    return path
