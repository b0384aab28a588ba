"""Deliver healthy earlier runs of an incident's task, with the task's own options, and backdate them."""

from __future__ import annotations

import importlib.util
import logging
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_regal.hooks._delivering import TaskDelivery
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.deliveries import Place, Try
from airflow_provider_regal.ledger.text import to_ledger_time
from scripts.incidents.data import EARLIER_RUNS, INCIDENTS, Incident, rows_of
from scripts.local import LEDGER

DAGS = Path(__file__).resolve().parent.parent / "incident_dags"


def main(names: list[str]) -> None:
    """Write the history of the named incidents."""
    logging.disable(logging.WARNING)
    for name in names:
        incident = INCIDENTS[name]
        for days_ago in range(EARLIER_RUNS, 0, -1):
            _date_back(_deliver(incident, days_ago), days_ago)


def _deliver(incident: Incident, days_ago: int) -> int:
    task, rows = task_of(incident), rows_of(incident, days_ago)
    day = (datetime.now(UTC) - timedelta(days=days_ago)).replace(minute=0, second=0, microsecond=0)
    report = TaskDelivery(
        RegalHook(task.regal_conn_id),
        context=None,
        settings=task.settings(),
        rows=lambda held: rows,
        source=task.source(),
        place=Place(incident.dag_id, f"scheduled__{day.isoformat()}", incident.task_id),
        this=Try(),
    ).run()
    assert report.delivery is not None  # noqa: S101 - every delivery that ran is on record
    return report.delivery


def task_of(incident: Incident) -> Any:
    """Load the incident's DAG file; return its task."""
    spec = importlib.util.spec_from_file_location(incident.dag_id, DAGS / f"{incident.dag_id}.py")
    assert spec is not None  # noqa: S101 - the file is there
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag.get_task(incident.task_id)


def _date_back(delivery: int, days: int) -> None:
    with closing(sqlite3.connect(LEDGER, timeout=30)) as connection, connection:
        query = "SELECT started_at, ended_at FROM regal_deliveries WHERE id = ?"
        times = connection.execute(query, (delivery,)).fetchone()
        earlier = [to_ledger_time(datetime.fromisoformat(one) - timedelta(days=days)) for one in times]
        statement = "UPDATE regal_deliveries SET started_at = ?, ended_at = ? WHERE id = ?"
        connection.execute(statement, (*earlier, delivery))


if __name__ == "__main__":
    main(sys.argv[1:])
