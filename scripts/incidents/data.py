"""The warehouse of the incidents: for each, a table with the fault in it, and a twin with the correct rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

EARLIER_RUNS: Final = 6
#: In bad-phones, one of this many phones is bad: 7 %.
ONE_BAD_PHONE_IN: Final = 14
_ROWS: Final = 280
_FIRST: Final = ("Anne", "José", "Maryam", "Ravi", "Björn", "Aoife", "Olena")
Row = dict[str, Any]


@dataclass(frozen=True)
class Incident:
    """One incident.

    :param area: the area code of its people's phones, so that no two incidents share a contact.
    :param told: what happened, in one line.
    """

    name: str
    dag_id: str
    task_id: str
    table: str
    call: str
    area: int
    told: str


INCIDENTS: Final = {
    one.name: one
    for one in (
        Incident("revoked-key", "loan_approvals", "send_approvals", "approvals", "track", 212,
                 "the API key was revoked half-way through a delivery"),
        Incident("text-column", "crm_contacts", "send_contacts", "customers", "identify", 213,
                 "the column credit_score turned from a number to text upstream"),
        Incident("outage", "account_status", "send_status", "statuses", "identify", 214,
                 "Regal answers 503 for an hour"),
        Incident("bad-phones", "partner_leads", "send_leads", "leads", "identify", 215,
                 "7 % of the phones are bad, more than max_rejected allows"),
        Incident("killed-worker", "payment_reminders", "send_reminders", "payments", "track", 216,
                 "the task's process was killed in the middle of a delivery"),
    )
}  # fmt: skip


def rows_of(incident: Incident, days_ago: int) -> list[Row]:
    """Make the rows of one day, all healthy; the number varies by day."""
    count = _ROWS + 7 * ((days_ago * 5) % 4) - 7 * (days_ago > 3)
    day = (datetime.now(UTC) - timedelta(days=days_ago)).date()
    return [_row(incident, number, days_ago, f"{day}") for number in range(count)]


def _row(incident: Incident, number: int, days_ago: int, day: str) -> Row:
    person = {
        "user_id": f"{incident.table}-{number:03}",
        "phone": f"+1{incident.area}555{100 + number:04}",
        "first_name": _FIRST[number % len(_FIRST)],
    }
    if incident.call == "identify":
        return {**person, "credit_score": 560 + (number * 7 + days_ago) % 240, "status": f"seen {day}"}
    return {
        **{key: value for key, value in person.items() if key != "first_name"},
        "message_id": f"{incident.table}-{day}-{number:03}",
        "amount": 100 + number,
        "due_on": day,
    }


def with_trouble(incident: Incident, rows: Sequence[Row]) -> list[Row]:
    """Return the rows as the incident's upstream team delivers them."""
    if incident.name == "text-column":
        return [{**row, "credit_score": f"{row['credit_score']} points"} for row in rows]
    if incident.name == "bad-phones":
        return [
            {**row, "phone": row["phone"][2:-3] + "xxx"} if number % ONE_BAD_PHONE_IN == 0 else row
            for number, row in enumerate(rows)
        ]
    return list(rows)


def write_tables(path: Path, incident: Incident) -> int:
    """Write today's rows to the incident's table, and the correct ones to its twin; return how many there are."""
    right = rows_of(incident, 0)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, rows in ((incident.table, with_trouble(incident, right)), (f"{incident.table}_right", right)):
            columns = list(rows[0])
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            marks = ", ".join("?" for _ in columns)
            statement = f"INSERT INTO {table} VALUES ({marks})"  # noqa: S608 - the names are ours
            connection.executemany(statement, [list(row.values()) for row in rows])
    return len(right)
