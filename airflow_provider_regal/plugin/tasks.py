"""Airflow's state of the tasks whose deliveries are not finished: a killed task can't report that itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from airflow_provider_regal import _compat as airflow
from airflow_provider_regal.ledger.admin.words import TaskNow
from airflow_provider_regal.ledger.deliveries import READING, SENDING, STOPPED, Record

_WILL_RUN: Final = (None, "up_for_retry", "scheduled", "queued")
_HAS_ENDED: Final = ("failed", "upstream_failed", "success", "skipped", "removed")


def tasks_of(records: Sequence[Record]) -> Mapping[int, TaskNow]:
    """Query Airflow, once, for the tasks of the deliveries that are not finished; the others are not queried.

    :returns: id of the delivery -> the current state of its task.
    """
    instances = {record.id: _instance(record) for record in records if record.state in (READING, SENDING, STOPPED)}
    wanted = {one for one in instances.values() if one[0] is not None}
    states = airflow.task_states(wanted) if wanted else {}
    tries = {record.id: record.try_number for record in records}
    return {number: _now(states.get(one), tries[number]) for number, one in instances.items()}


def _instance(record: Record) -> airflow.TaskKey:
    """Return the task instance that delivers; for a plan that is sent, the one that sends it."""
    if record.sender is None:
        return record.dag_id, record.run_id, record.task_id, record.map_index
    dag_id, run_id, task_id, map_index = json.loads(record.sender)
    return dag_id, run_id, task_id, map_index


def _now(found: tuple[str | None, int] | None, try_number: int) -> TaskNow:
    if found is None:  # Airflow does not have it
        return TaskNow.RUNNING
    state, newest_try = found
    if state in _HAS_ENDED:
        return TaskNow.OVER
    return TaskNow.WAITING if state in _WILL_RUN or newest_try > try_number else TaskNow.RUNNING
