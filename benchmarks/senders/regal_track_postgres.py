"""Events by track with the ledger in PostgreSQL: each row is reserved there before it is sent."""

from __future__ import annotations

from benchmarks.senders import regal_postgres
from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    return regal_postgres.send(work, call="track", event="Lesson Booked")
