"""Summarize how each task's last delivery ended: failures, and rejected opt-outs that are not corrected yet."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.admin import monitoring
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import FAILED, FINISHED, RECORD, STOPPED, Counts, Record

_d = schema.deliveries.c


class LastDeliveries(NamedTuple):
    """The last deliveries of all tasks that need attention.

    :param failed: how many failed, and were not fixed since.
    :param newest_failed: the newest failed one.
    :param stopped: how many stopped before all rows had an outcome.
    :param newest_stopped: the newest stopped one.
    :param opt_outs_rejected: their rejected rows with an opt-out, or a decision that can't be read.
    :param newest_rejected: the newest delivery with such rows.
    """

    failed: int = 0
    newest_failed: int | None = None
    stopped: int = 0
    newest_stopped: int | None = None
    opt_outs_rejected: int = 0
    newest_rejected: int | None = None


def last_deliveries(database: Database) -> LastDeliveries:
    """Check the last delivery of each task that has ended or stopped."""
    task = (_d.account, _d.dag_id, _d.task_id, _d.map_index, _d.name)
    ended = _d.dag_id.is_not(None) & _d.state.in_((FAILED, FINISHED, STOPPED))
    last = select(func.max(_d.id)).where(ended).group_by(*task)
    lines = database.read(lambda connection: connection.execute(RECORD.where(_d.id.in_(last))).fetchall())
    records = [Record._make(line) for line in lines]
    fixed = monitoring.fixes(database, records)
    failed, stopped = (
        [one.id for one in records if one.state == state and one.id not in fixed] for state in (FAILED, STOPPED)
    )
    rejected = {one.id: count for one in records if (count := Counts.of(one).opt_outs_rejected)}
    return LastDeliveries(
        failed=len(failed),
        newest_failed=max(failed, default=None),
        stopped=len(stopped),
        newest_stopped=max(stopped, default=None),
        opt_outs_rejected=sum(rejected.values()),
        newest_rejected=max(rejected, default=None),
    )
