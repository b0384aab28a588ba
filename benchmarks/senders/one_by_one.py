"""``requests.post`` once per row, one at a time, without a session: the obvious first loop.

The row is read from SQLite and mapped by hand; nothing is validated or remembered.
"""

from __future__ import annotations

from pathlib import Path

import requests

from benchmarks import contacts
from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    headers = {"Authorization": work.key, "Content-Type": "application/json"}
    acknowledged = 0
    for row in contacts.rows(Path(work.database), work.first, work.count):
        body = contacts.encoded(contacts.body_of(row))
        response = requests.post(f"{work.url}/events", data=body, headers=headers, timeout=30)
        acknowledged += response.status_code == 200
    return acknowledged
