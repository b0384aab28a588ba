"""With this package: ``SqlToRegalOperator.execute``, contacts by identify.

Each row is read through Airflow's SQLite hook, written to the snapshot in the ledger, mapped, validated with its phone,
sent in order per person, and acknowledged; its outcome is committed to the ledger, at least every second. The
connection's ``rate_limit`` is 10,000 per second, the maximum, so that nothing is paced. Airflow's task instance is
replaced by an object that takes the one XCom, since Airflow's own work is per task and not per row.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from airflow_provider_regal.client import pace
from benchmarks.senders.work import Work


def send(work: Work, **options: Any) -> int:
    """Send the rows; returns how many were acknowledged."""
    if work.margin is not None:
        pace.MARGIN = work.margin  # type: ignore[misc]
    report = deliver(work, **{"call": "identify", "max_connections": work.connections, **options})
    acknowledged: int = report["acknowledged"]
    return acknowledged


def deliver(work: Work, **options: Any) -> dict[str, Any]:
    """Execute the operator as a task would; returns its report."""
    from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

    set_connections(work)
    task = SqlToRegalOperator(task_id="contacts", sql=work.sql, sql_conn_id="warehouse", **options)
    return task.execute(context_of(task, run_id=f"from-{work.first}-{work.count}-{uuid4().hex}"))


def set_connections(work: Work) -> None:
    """Configure Airflow's connections: the ledger is its own SQLite file, or what ``BENCHMARK_LEDGER`` names."""
    sqlite = json.dumps({"conn_type": "sqlite", "host": work.database})
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = os.environ.get("BENCHMARK_SOURCE", sqlite)
    os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = json.dumps(
        {"conn_type": "regal", "host": work.url, "password": work.key, "extra": {"rate_limit": work.rate}}
    )
    own = json.dumps({"conn_type": "sqlite", "host": str(ledger_file(work))})
    os.environ["AIRFLOW_CONN_REGAL_LEDGER"] = os.environ.get("BENCHMARK_LEDGER", own)
    os.environ["AIRFLOW__REGAL__LEDGER_CONN_ID"] = "regal_ledger"


def ledger_file(work: Work) -> Path:
    """Return the file of the ledger."""
    return work.path / "ledger" / "ledger.db"


def context_of(task: Any, *, run_id: str) -> Any:
    """Return the context of a first try."""
    ti = SimpleNamespace(
        dag_id="benchmark", task_id=task.task_id, run_id=run_id, map_index=-1, try_number=1, max_tries=0,
        xcom_push=lambda **_: None,
    )  # fmt: skip
    return {"ti": ti, "task": task}
