"""With this package: ``SqlToRegalOperator.execute``, contacts by identify.

Each row is read through Airflow's SQLite hook, written to the snapshot on disk, indexed by person, mapped, validated
with its phone, sent in order of person, acknowledged, journalled; the journal is synced to disk every second. The
connection's ``rate_limit`` is 10,000 a second, the most there is, so that nothing is paced. Airflow's task instance is
a stand-in that takes the one XCom, since Airflow's own work is by task and not by row.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

from benchmarks.senders.work import Work

HIGHEST_RATE = 10_000


def send(work: Work, *, rate: int = HIGHEST_RATE, **options: Any) -> int:
    """Send the rows; gives how many were acknowledged."""
    report = deliver(work, rate=rate, **{"call": "identify", "max_connections": work.connections, **options})
    acknowledged: int = report["acknowledged"]
    return acknowledged


def deliver(work: Work, *, rate: int, source: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Execute the operator as a task would; gives its report.

    :param source: the connection of the database; by default the SQLite file.
    """
    from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

    set_connections(work, rate=rate, source=source)
    task = SqlToRegalOperator(task_id="contacts", sql=work.sql, sql_conn_id="warehouse", **options)
    return task.execute(context_of(task, run_id=f"from-{work.first}-{work.count}"))


def set_connections(work: Work, *, rate: int, source: dict[str, Any] | None = None) -> None:
    """Give Airflow the connections, and the place of run folders."""
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(source or {"conn_type": "sqlite", "host": work.database})
    os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = json.dumps(
        {"conn_type": "regal", "host": work.url, "password": work.key, "extra": {"rate_limit": rate}}
    )
    os.environ["AIRFLOW__REGAL__STORAGE_PATH"] = str(work.path / "regal")


def context_of(task: Any, *, run_id: str) -> Any:
    """Make the context of a first try."""
    ti = SimpleNamespace(
        dag_id="benchmark", task_id=task.task_id, run_id=run_id, map_index=-1, try_number=1, max_tries=0,
        xcom_push=lambda **_: None,
    )  # fmt: skip
    return {"ti": ti, "task": task}
