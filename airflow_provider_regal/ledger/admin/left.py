"""Deliveries that stopped with rows left, and that no try has resumed: the task may be green, or gone."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import age_s
from airflow_provider_regal.ledger.admin.history import is_live
from airflow_provider_regal.ledger.admin.retention import DROPPED
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import RECORD, SENDING, STOPPED, Counts, Record

_d = schema.deliveries.c


class Left(NamedTuple):
    """Rows that no try has resumed for a while.

    :param delivery: the one with the oldest of them.
    """

    deliveries: int = 0
    rows: int = 0
    oldest_at: str | None = None
    delivery: int | None = None


def rows_left(database: Database, *, quiet_s: float) -> Left:
    """Count the rows of deliveries that stopped and that no try has resumed.

    :param quiet_s: only of deliveries of which nothing was written for so long; before that, a retry may be due.
    """
    now, found = database.now(), Left()
    stopped = _d.state.in_((SENDING, STOPPED)) & _d.kept_rows.is_not(None) & (_d.source != DROPPED)
    lines = database.read(lambda connection: connection.execute(RECORD.where(stopped)).fetchall())
    for record in map(Record._make, lines):
        left = record.read_rows - Counts.of(record).settled
        last_at = record.ended_at or record.held_at or record.started_at
        if left <= 0 or is_live(record, now) or age_s(last_at, now) <= quiet_s:
            continue
        oldest = found.oldest_at is None or last_at < found.oldest_at
        found = Left(
            found.deliveries + 1,
            found.rows + left,
            last_at if oldest else found.oldest_at,
            record.id if oldest else found.delivery,
        )
    return found
