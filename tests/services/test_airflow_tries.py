"""Tries of a task in a real Airflow: a killed worker, a cleared task, progress; the ledger in SQLite and PostgreSQL."""

from __future__ import annotations

import sys
import time

import pytest

from scripts import local
from scripts.processes import running
from tests.running_airflow import Airflow, ports_and_heartbeats, wait_until

pytestmark = pytest.mark.services
ROWS = 900
RATE = 60
HEARTBEAT_TIMEOUT_S = 15
DAGS = """
import os
from datetime import timedelta
from pathlib import Path
from airflow.sdk import DAG, task
from airflow_provider_regal.operators.track import RegalTrackOperator

OFTEN = dict(retries=2, retry_delay=timedelta(seconds=1))

def write_pids(name):
    with Path("{home}", name + ".pids").open("a") as out:
        out.write(f"{{os.getpid()}} {{os.getppid()}}\\n")

def make(name, rows, call="track", **options):
    with DAG(name, schedule=None, is_paused_upon_creation=False):
        if call == "track":
            options["event"] = name
        @task.regal(task_id="deliver", call=call, rate={rate}, **OFTEN, **options)
        def deliver():
            write_pids(name)
            for number in range(rows):
                yield {{"user_id": f"{{name}}-{{number}}"}}
        deliver()

make("killed", {rows}, max_unknown=1.0)
make("killed_early", {rows}, max_unknown=1.0)
make("killed_postgres", {rows}, max_unknown=1.0, ledger_conn_id="regal_ledger")
make("killed_contacts", {rows}, call="identify")
make("killed_contacts_postgres", {rows}, call="identify", ledger_conn_id="regal_ledger")
make("refused", 60, max_connections=1)
with DAG("one_event", schedule=None, is_paused_upon_creation=False):
    RegalTrackOperator(
        task_id="deliver", event="one_event", user_id="one_event-0",
        pre_execute=lambda _: write_pids("one_event"), **OFTEN,
    )
"""
# After a crash, these may be unknown: requests in flight, and reserved rows.
RESERVED = 32


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, postgres_for_module):
    home = tmp_path_factory.mktemp("tries")
    dags = home / "dags"
    dags.mkdir()
    (dags / "tries.py").write_text(DAGS.format(rows=ROWS, rate=RATE, home=home))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "HOME", home)
        with local.regal(rate_limit=1_000) as regal:
            env = local.airflow_environment(
                regal,
                AIRFLOW_HOME=str(home / "airflow"),
                AIRFLOW__CORE__DAGS_FOLDER=str(dags),
                AIRFLOW_CONN_REGAL_LEDGER=postgres_for_module.replace("postgresql+psycopg2", "postgres"),
                AIRFLOW__CORE__PARALLELISM="7",
                **ports_and_heartbeats(HEARTBEAT_TIMEOUT_S),
                PYTHONPATH=str(local.PROJECT),
            )
            log = home / "standalone.log"
            with running([sys.executable, "-m", "airflow", "standalone"], env, log) as process:
                local.wait_for(f"{local.airflow_url(env)}/api/v2/version", process, log, patience_s=180)
                yield Airflow(env, regal, home)


@pytest.fixture(scope="module")
def killed_runs(airflow, record_testsuite_property):
    """Runs whose workers are killed, all at the same time; their retries share nothing with them but the ledger."""
    airflow.set_faults([{"on": {"name": "one_event"}, "do": {"delay_ms": 300_000}}])
    late = ("killed", "killed_postgres", "killed_contacts", "killed_contacts_postgres")
    runs = {name: airflow.start(name) for name in ("killed_early", *late, "one_event")}
    for name in ("killed_early", "one_event"):
        wait_until(lambda name=name: airflow.requests(name), 90)
        runs[name].kill()
    wait_until(lambda: "regal_progress" in runs["killed"].state_store(), 90)
    wait_until(lambda: all(airflow.requests(name) > 100 for name in late))
    progress = runs["killed"].state_store()["regal_progress"]
    for name in late:
        runs[name].kill()
    killed_at = time.monotonic()
    time.sleep(0.5)  # for requests already handed to their sockets
    sent = {name: airflow.requests(name) for name in runs}
    wait_until(lambda: runs["killed"].task["try_number"] > 1, 120)
    record_testsuite_property("noticed_after_s", round(time.monotonic() - killed_at))
    for run in runs.values():
        run.wait_for_end()
    return runs, progress, sent


@pytest.mark.parametrize("dag", ["killed_early", "killed", "killed_postgres"])
def test_a_retry_after_a_killed_worker_finishes_and_sends_nothing_twice(airflow, killed_runs, record_property, dag):
    runs, _, sent = killed_runs
    run = runs[dag]
    assert 0 < sent[dag] < ROWS
    assert (run.task["state"], run.task["try_number"]) == ("success", 2)
    report = run.report()
    arrived = airflow.arrivals(dag)
    record_property("killed_after", sent[dag])
    record_property("unknown", report["unknown"])
    assert report["read"] == ROWS == report["acknowledged"] + report["unknown"]
    assert report["unknown"] <= RESERVED + 32, "the reservation, and what was under way"
    assert set(arrived.values()) == {1}
    assert len(arrived) >= report["acknowledged"]


@pytest.mark.parametrize("dag", ["killed_contacts", "killed_contacts_postgres"])
def test_contacts_are_repeated_only_since_the_last_commit(airflow, killed_runs, record_property, dag):
    runs, _, sent = killed_runs
    run = runs[dag]
    assert 0 < sent[dag] < ROWS
    assert (run.task["state"], run.task["try_number"]) == ("success", 2)
    assert run.report()["acknowledged"] == ROWS
    arrived = airflow.arrivals(dag)
    repeats = sum(arrived.values()) - len(arrived)
    record_property("repeats", repeats)
    assert len(arrived) == ROWS
    assert repeats <= 3 * RATE, "a commit is made every second, and its wait for the disk on a busy machine"


def test_one_event_whose_worker_is_killed_before_the_answer_is_unknown_and_not_sent_again(airflow, killed_runs):
    run = killed_runs[0]["one_event"]
    assert (run.task["state"], run.task["try_number"]) == ("failed", 2), "a retry could not help"
    assert "It can't be known whether Regal received this track event" in run.log()
    assert run.report()["unknown"] == 1
    assert airflow.requests("one_event") == 1


def test_the_tasks_state_shows_progress(killed_runs):
    _, progress, _ = killed_runs
    assert f"/{ROWS}" in progress
    assert "/s" in progress


@pytest.mark.parametrize("dag", ["killed", "killed_postgres"])
def test_clearing_a_finished_task_sends_nothing(airflow, killed_runs, dag):
    run = killed_runs[0][dag]
    before = airflow.requests(dag)
    assert run.clear()["state"] == "success"
    assert airflow.requests(dag) == before
    assert run.report()["status"] == "nothing_to_do"


def test_clearing_a_failed_task_tries_its_rejected_rows_again_and_no_other(airflow):
    airflow.set_faults([{"on": {"name": "refused", "times": 3}, "do": {"status": 400}}])
    run = airflow.start("refused")
    assert (run.wait_for_end()["state"], run.task["try_number"]) == ("failed", 1)
    assert run.report()["rejected"] == 3
    assert airflow.requests("refused") == 60

    assert run.clear()["state"] == "success"

    assert airflow.requests("refused") == 63
    assert set(airflow.arrivals("refused").values()) == {1}
    assert len(airflow.arrivals("refused")) == 60
