"""Summarize how each task's last delivery ended: failures, and rejected opt-outs that are not corrected yet."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import FAILED, FINISHED, RECORD, Counts, Record

_d = schema.deliveries.c


class LastDeliveries(NamedTuple):
    """The last deliveries of all tasks that need attention.

    :param failed: how many failed.
    :param newest_failed: the newest failed one.
    :param opt_outs_rejected: their rejected rows with an opt-out, or a decision that can't be read.
    :param newest_rejected: the newest delivery with such rows.
    """

    failed: int = 0
    newest_failed: int | None = None
    opt_outs_rejected: int = 0
    newest_rejected: int | None = None


def last_deliveries(database: Database) -> LastDeliveries:
    """Check the last delivery of each task that has ended; stopped ones are still to be resumed."""
    task = (_d.account, _d.dag_id, _d.task_id, _d.map_index, _d.name)
    ended = _d.dag_id.is_not(None) & _d.state.in_((FAILED, FINISHED))
    last = select(func.max(_d.id)).where(ended).group_by(*task)
    lines = database.read(lambda connection: connection.execute(RECORD.where(_d.id.in_(last))).fetchall())
    records = [Record._make(line) for line in lines]
    failed = [one.id for one in records if one.state == FAILED]
    rejected = {one.id: count for one in records if (count := Counts.of(one).opt_outs_rejected)}
    return LastDeliveries(len(failed), max(failed, default=None), sum(rejected.values()), max(rejected, default=None))
