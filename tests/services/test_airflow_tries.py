"""Tries of a task in a real Airflow: a worker that is killed, a cleared task, a lost run folder, the task's state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from scripts import local
from scripts.processes import free_port, running
from tests.services.conftest import empty
from tests.services.s3 import BUCKET, CONN_ID, connection_to

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

def use_bucket(_):
    os.environ["AIRFLOW__REGAL__STORAGE_PATH"] = "{bucket}"

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
make("killed_on_s3", {rows}, max_unknown=1.0, pre_execute=use_bucket)
make("lost", {rows})
make("lost_contacts", {rows}, call="identify")
make("refused", 60, max_connections=1)
with DAG("one_event", schedule=None, is_paused_upon_creation=False):
    RegalTrackOperator(
        task_id="deliver", event="one_event", user_id="one_event-0",
        pre_execute=lambda _: write_pids("one_event"), **OFTEN,
    )
"""


class Airflow:
    """A running Airflow and its local Regal."""

    def __init__(self, url, regal, home):
        self.url, self.regal, self.home = url, regal, home

    def api(self, path, body=None):
        request = Request(
            f"{self.url}/api/v2/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def start(self, dag):
        wait_until(lambda: any(found["dag_id"] == dag for found in self.api("dags?limit=50")["dags"]))
        return Run(self, dag, self.api(f"dags/{dag}/dagRuns", {"logical_date": None})["dag_run_id"])

    def arrivals(self, dag):
        """How often Regal has each row of a DAG."""
        return Counter(body["userId"] for body, stored in self._events(dag) if stored)

    def requests(self, dag):
        return len(self._events(dag))

    def _events(self, dag):
        return [
            (event["body"], event["stored"])
            for event in self.regal.ask("events")
            if event["body"]["userId"].startswith(f"{dag}-")
        ]

    def set_faults(self, rules):
        urlopen(
            Request(f"{self.regal.url}/sandbox/faults", json.dumps(rules).encode(), method="PUT"), timeout=10
        ).close()


class Run:
    """One run of a DAG with the task ``deliver``."""

    def __init__(self, airflow, dag, run_id):
        self.airflow, self.dag, self.run_id = airflow, dag, run_id
        self.path = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances/deliver"

    @property
    def task(self):
        return self.airflow.api(self.path)

    def state_store(self):
        entries = self.airflow.api(f"{self.path}/state-store")
        return {entry["key"]: entry["value"] for entry in next(v for v in entries.values() if isinstance(v, list))}

    def report(self):
        return self.airflow.api(f"{self.path}/xcomEntries/regal_report?deserialize=true")["value"]

    def kill(self):
        """Kill the task's process and the one that watches it."""
        pids = (self.airflow.home / f"{self.dag}.pids").read_text().splitlines()[-1].split()
        for pid in reversed(pids):
            os.kill(int(pid), signal.SIGKILL)

    def wait_for_end(self, patience_s=120):
        wait_until(lambda: self.task["state"] in ("success", "failed"), patience_s)
        return self.task

    def clear(self):
        before = self.task["try_number"]
        self.airflow.api(
            f"dags/{self.dag}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": self.run_id, "task_ids": ["deliver"], "only_failed": False},
        )
        wait_until(lambda: self.task["try_number"] > before)
        return self.wait_for_end()

    def log(self):
        tries = self.task["try_number"]
        return "".join(
            json.dumps(self.airflow.api(f"{self.path}/logs/{number}?full_content=true"))
            for number in range(1, tries + 1)
        )


def wait_until(what, patience_s=60):
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def bucket(s3_server):
    """An empty bucket; gives the URI of a folder in it."""
    s3_server.open()
    s3_server.direct.create_bucket(Bucket=BUCKET)
    yield f"s3://{CONN_ID}@{BUCKET}/runs"
    empty(s3_server.direct, BUCKET)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, s3_server, bucket):
    home = tmp_path_factory.mktemp("tries")
    dags = home / "dags"
    dags.mkdir()
    (dags / "tries.py").write_text(DAGS.format(rows=ROWS, rate=RATE, home=home, bucket=bucket))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "HOME", home)
        with local.regal(rate_limit=1_000) as regal:
            port = free_port(8085)
            env = local.airflow_environment(
                regal,
                AIRFLOW_HOME=str(home / "airflow"),
                AIRFLOW__CORE__DAGS_FOLDER=str(dags),
                AIRFLOW__REGAL__STORAGE_PATH=str(home / "runs"),
                AIRFLOW_CONN_BUCKET=connection_to(s3_server.url),
                AIRFLOW__API__PORT=str(port),
                AIRFLOW__CORE__PARALLELISM="7",
                AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
                AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
                AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=str(HEARTBEAT_TIMEOUT_S),
                AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="2",
                AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port(8794)),
                AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port(8793)),
                PYTHONPATH=str(local.PROJECT),
            )
            log = home / "standalone.log"
            with running([sys.executable, "-m", "airflow", "standalone"], env, log) as process:
                local.wait_for(f"http://127.0.0.1:{port}/api/v2/version", process, log, patience_s=180)
                yield Airflow(f"http://127.0.0.1:{port}", regal, home)


@pytest.fixture(scope="module")
def killed_runs(airflow, record_testsuite_property):
    """Runs whose workers are killed, all at the same time; two of them lose what their run folder holds, too."""
    airflow.set_faults([{"on": {"name": "one_event"}, "do": {"delay_ms": 300_000}}])
    names = ("killed_early", "killed", "killed_on_s3", "lost", "lost_contacts", "one_event")
    runs = {name: airflow.start(name) for name in names}
    for name in ("killed_early", "one_event"):
        wait_until(lambda name=name: airflow.requests(name), 90)
        runs[name].kill()
    wait_until(lambda: "regal_progress" in runs["killed"].state_store(), 90)
    wait_until(lambda: all(airflow.requests(name) > 100 for name in ("killed_on_s3", "lost", "lost_contacts")))
    states = {name: run.state_store() for name, run in runs.items()}
    for name in ("killed", "killed_on_s3", "lost", "lost_contacts"):
        runs[name].kill()
    killed_at = time.monotonic()
    shutil.rmtree(states["lost"]["regal_run_folder"])
    for file in Path(states["lost_contacts"]["regal_run_folder"]).iterdir():
        file.unlink()
    time.sleep(0.5)  # for what they had handed to their sockets
    sent = {name: airflow.requests(name) for name in runs}
    wait_until(lambda: runs["killed"].task["try_number"] > 1, 120)
    record_testsuite_property("noticed_after_s", round(time.monotonic() - killed_at))
    for run in runs.values():
        run.wait_for_end()
    return runs, states, sent


@pytest.mark.parametrize("moment", ["killed_early", "killed"])
def test_a_retry_after_a_killed_worker_finishes_and_sends_nothing_twice(airflow, killed_runs, record_property, moment):
    runs, _, sent = killed_runs
    run = runs[moment]
    assert 0 < sent[moment] < ROWS
    assert (run.task["state"], run.task["try_number"]) == ("success", 2)
    report = run.report()
    arrived = airflow.arrivals(moment)
    record_property("killed_after", sent[moment])
    record_property("unknown", report["unknown"])
    record_property("repeats", sum(arrived.values()) - len(arrived))
    assert report["read"] == ROWS == report["acknowledged"] + report["unknown"]
    assert report["unknown"] <= 64
    assert set(arrived.values()) == {1}
    assert len(arrived) >= report["acknowledged"]


def test_a_retry_after_a_killed_worker_goes_on_from_the_bucket(airflow, killed_runs, s3_server, record_property):
    runs, states, sent = killed_runs
    run = runs["killed_on_s3"]
    assert 0 < sent["killed_on_s3"] < ROWS
    assert (run.task["state"], run.task["try_number"]) == ("success", 2)
    report = run.report()
    arrived = airflow.arrivals("killed_on_s3")
    record_property("unknown", report["unknown"])
    assert report["read"] == ROWS == report["acknowledged"] + report["unknown"]
    assert report["unknown"] <= 2 * RATE + 64, "what is reserved ahead, and what was under way"
    assert set(arrived.values()) == {1}
    assert len(arrived) >= report["acknowledged"]
    assert report["run_folder"].startswith(f"s3://{CONN_ID}@{BUCKET}/runs/killed_on_s3/")
    assert states["killed_on_s3"]["regal_run_folder"] == report["run_folder"]
    keys = [entry["Key"] for entry in s3_server.direct.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert any(key.endswith("/deliver/-1/report.json") for key in keys)
    assert not list((airflow.home / "runs").glob("killed_on_s3*")), "nothing of it is elsewhere"
    assert run.clear()["state"] == "success"
    assert run.report()["status"] == "nothing_to_do"
    assert airflow.arrivals("killed_on_s3") == arrived


def test_one_event_whose_worker_is_killed_before_the_answer_is_unknown_and_not_sent_again(airflow, killed_runs):
    run = killed_runs[0]["one_event"]
    assert (run.task["state"], run.task["try_number"]) == ("failed", 2), "no retry can mend that"
    assert "Nobody can know whether Regal has this track event" in run.log()
    assert run.report()["unknown"] == 1
    assert airflow.requests("one_event") == 1


def test_contacts_whose_run_folder_was_emptied_are_sent_again_and_the_log_says_so(
    airflow, killed_runs, record_property
):
    runs, _, sent = killed_runs
    run = runs["lost_contacts"]
    assert (run.task["state"], run.task["try_number"]) == ("success", 2)
    assert run.report()["acknowledged"] == ROWS
    assert "contacts are sent again from the start" in run.log()
    arrived = airflow.arrivals("lost_contacts")
    assert len(arrived) == ROWS
    assert max(arrived.values()) == 2
    record_property("repeats", sum(arrived.values()) - ROWS)
    assert sum(arrived.values()) - ROWS <= sent["lost_contacts"]


def test_the_tasks_state_shows_progress_and_where_the_run_folder_is(airflow, killed_runs):
    _, states, _ = killed_runs
    state = states["killed"]
    assert f"/{ROWS}" in state["regal_progress"]
    assert "/s" in state["regal_progress"]
    assert Path(state["regal_run_folder"]).is_relative_to(airflow.home / "runs")


def test_a_lost_run_folder_fails_events_with_what_to_do(airflow, killed_runs):
    runs, _, sent = killed_runs
    run = runs["lost"]
    assert (run.task["state"], run.task["try_number"]) == ("failed", 2), "no retry can mend that"
    assert "The run folder of an earlier try cannot be found" in run.log()
    assert airflow.requests("lost") == sent["lost"]


def test_clearing_a_finished_task_sends_nothing(airflow, killed_runs):
    run = killed_runs[0]["killed"]
    before = airflow.requests("killed")
    assert run.clear()["state"] == "success"
    assert airflow.requests("killed") == before
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
