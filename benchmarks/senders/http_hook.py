"""Airflow's ``HttpHook.run`` once per row, one at a time: it creates a new session each time.

The row is read from SQLite and mapped by hand; nothing is validated or remembered.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks import contacts
from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    from airflow.providers.http.hooks.http import HttpHook

    os.environ["AIRFLOW_CONN_BENCHMARK"] = json.dumps(
        {"conn_type": "http", "host": work.url, "extra": {"Authorization": work.key}}
    )
    hook = HttpHook(method="POST", http_conn_id="benchmark")
    headers = {"Content-Type": "application/json"}
    acknowledged = 0
    for row in contacts.rows(Path(work.database), work.first, work.count):
        body: Any = contacts.encoded(contacts.body_of(row))  # requests takes bytes, though the hook names only text
        response = hook.run("/events", data=body, headers=headers)
        acknowledged += response.status_code == 200
    return acknowledged
