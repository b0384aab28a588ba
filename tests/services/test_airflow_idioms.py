"""A whole Airflow: scheduler, DAG processor, triggerer, tasks in separate processes; and its calls of our code."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path

import pytest

from scripts.processes import free_port, running

pytest_plugins = ["tests.statsd"]
pytestmark = pytest.mark.long

DAG_FILE = """
import time
from datetime import UTC, datetime, timedelta
from airflow.sdk import DAG, Asset, AsyncCallback, DeadlineAlert, DeadlineReference, get_current_context, task
from airflow_provider_regal.notifications.regal import RegalNotifier
from airflow_provider_regal.operators.rows import RegalRowsOperator

CONTACTS = Asset("regal://regal_default/contacts")
OPTIONS = {"start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False, "is_paused_upon_creation": False}
# On a busy machine, Airflow's API may not be ready for the first task.
AGAIN = {"default_args": {"retries": 5, "retry_delay": timedelta(seconds=2)}, **OPTIONS}
PEOPLE = [{"phone": "+12125550101"}, {"phone": "+12125550102"}]

with DAG("synced", schedule="@once", **AGAIN):
    RegalRowsOperator(task_id="contacts", rows=PEOPLE, call="identify", outlets=[CONTACTS])

with DAG("after", schedule=[CONTACTS], **AGAIN):

    @task.regal(call="track", event="Counted")
    def count():
        events = get_current_context()["triggering_asset_events"][CONTACTS]
        yield {"user_id": "counter", "contacts": sum(event.extra["acknowledged"] for event in events)}

    count()

FAILED = RegalNotifier(event="Dag Failed", user_id="on-call", properties={"dag": "{{ dag.dag_id }}"})
with DAG("fails", schedule="@once", on_failure_callback=FAILED, **OPTIONS):

    @task
    def bad():
        raise ValueError("it fails")

    bad()

LATE = DeadlineAlert(
    reference=DeadlineReference.DAGRUN_QUEUED_AT,
    interval=timedelta(seconds=1),
    callback=AsyncCallback(
        RegalNotifier,
        kwargs={
            "event": "Dag Late",
            "user_id": "on-call",
            "properties": {"dag": "{{ dag_run.dag_id }}"},
            "message_id": "{{ dag_run.dag_id }}-{{ dag_run.dag_run_id }}-late",
        },
    ),
)
with DAG("late", schedule="@once", deadline=LATE, **AGAIN):

    @task
    def slow():
        time.sleep(30)

    slow()
"""


def test_assets_callbacks_deadlines_and_metrics_work_where_airflow_runs_them(tmp_path, regal_sandbox, statsd):
    pytest.importorskip("airflow.triggers.callback", reason="Airflow has deadline alerts from 3.1 on")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "idioms.py").write_text(DAG_FILE)
    port = free_port(0)
    env = {name: value for name, value in os.environ.items() if "REGAL" not in name}
    env |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW_CONN_REGAL_DEFAULT": regal_sandbox.connection(),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port(0)),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port(0)),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "NO_PROXY": "127.0.0.1,localhost",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = tmp_path / "standalone.log"
    wanted = {"Counted", "Dag Failed", "Dag Late"}
    with running([sys.executable, "-m", "airflow", "standalone"], env, log) as process:
        ends = time.monotonic() + 400
        # An event is counted after it has arrived.
        while statsd.counters("call")["acknowledged", "track"] < len(wanted) and time.monotonic() < ends:
            assert process.poll() is None, log.read_text()[-3_000:]
            time.sleep(1)  # not longer: all of Airflow writes to the socket, whose buffer is small

    sent = {event["name"]: event["body"]["properties"] for event in regal_sandbox.events() if event["name"]}
    assert sent == {
        "Counted": {"contacts": 2}, "Dag Failed": {"dag": "fails"}, "Dag Late": {"dag": "late"},
    }, log.read_text()[-3_000:]  # fmt: skip
    assert regal_sandbox.stats()["duplicates"] == 0
    counted = statsd.counters("call")
    assert (counted["acknowledged", "identify"], counted["acknowledged", "track"]) == (2, len(wanted))
