"""An event operator whose worker dies, is cleared or restarted: one event, one outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.track import RegalTrackOperator

PROGRAM = """
import json, sys
from types import SimpleNamespace
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.operators.test_killed import context, operator
operator(sys.argv[1]).execute(context())
"""


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key, value):
        self.pushed = {key: value}


def context(*, try_number=1, max_tries=0):
    ti = TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=try_number, max_tries=max_tries)
    return {"ti": ti, "task": SimpleNamespace(retries=0, pool_slots=1)}


def operator(call, **options):
    if call == "track":
        return RegalTrackOperator(task_id="t", event="Lesson Booked", user_id="anne", **options)
    return RegalIdentifyOperator(task_id="t", traits={"phone": "+12125550100"}, **options)


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(tmp_path / "runs"))


def kill_while_sending(call, regal):
    """Run the operator in a process of its own and kill it while Regal keeps it waiting."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, call], env=dict(os.environ))
    deadline = time.monotonic() + 60
    while not regal.stats()["requests"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert regal.stats()["requests"] == 1


def test_an_event_whose_worker_died_while_sending_is_unknown_and_not_sent_again(regal):
    from airflow.providers.common.compat.sdk import AirflowFailException

    regal.set_faults([{"on": {"requests": [1]}, "do": {"hang": True}}])
    kill_while_sending("track", regal)

    with pytest.raises(AirflowFailException, match="Nobody can know whether Regal has this track event"):
        operator("track").execute(context(try_number=2))
    assert regal.stats()["requests"] == 1


def test_a_contact_whose_worker_died_while_sending_is_sent_again(regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"hang": True}}])
    kill_while_sending("identify", regal)

    assert operator("identify").execute(context(try_number=2))["status"] == "acknowledged"
    assert regal.stats()["requests"] == 2


def test_clearing_a_sent_event_sends_nothing_and_says_so(regal):
    operator("track").execute(context())

    report = operator("track").execute(context(try_number=2, max_tries=1))

    assert report["tries"] == 0
    assert regal.stats()["requests"] == 1


def test_restart_sends_a_sent_event_again(regal):
    operator("track").execute(context())
    operator("track", restart="true").execute(context(try_number=2, max_tries=1))
    assert regal.stats()["requests"] == 2


def test_clearing_a_contact_sends_it_again(regal):
    operator("identify").execute(context())
    operator("identify").execute(context(try_number=2, max_tries=1))
    assert regal.stats()["requests"] == 2


def test_the_report_of_the_delivery_is_pushed(regal):
    here = context()
    operator("track").execute(here)
    report = here["ti"].pushed["regal_report"]
    assert report["acknowledged"] == 1
    assert len(json.dumps(report)) < 2_048
