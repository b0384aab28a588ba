"""How the last delivery of each task ended: what failed, and which opt-outs were rejected and are not corrected yet."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import FAILED, FINISHED, RECORD, Counts, Record

_d = schema.deliveries.c


class LastDeliveries(NamedTuple):
    """The last delivery of each task, as far as they need somebody.

    :param failed: how many failed. :param newest_failed: the newest of these.
    :param opt_outs_rejected: rows with an opt-out, or a decision that can't be read, which they rejected.
    :param newest_rejected: the newest delivery that has some.
    """

    failed: int = 0
    newest_failed: int | None = None
    opt_outs_rejected: int = 0
    newest_rejected: int | None = None


def last_deliveries(database: Database) -> LastDeliveries:
    """Look at the last delivery of each task that has ended; one that stopped is still to be resumed."""
    task = (_d.account, _d.dag_id, _d.task_id, _d.map_index, _d.name)
    ended = _d.dag_id.is_not(None) & _d.state.in_((FAILED, FINISHED))
    last = select(func.max(_d.id)).where(ended).group_by(*task)
    lines = database.read(lambda connection: connection.execute(RECORD.where(_d.id.in_(last))).fetchall())
    records = [Record._make(line) for line in lines]
    failed = [one.id for one in records if one.state == FAILED]
    rejected = {one.id: count for one in records if (count := Counts.of(one).opt_outs_rejected)}
    return LastDeliveries(len(failed), max(failed, default=None), sum(rejected.values()), max(rejected, default=None))
