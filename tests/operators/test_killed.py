"""An event operator whose worker dies, is cleared or restarted: one event, one outcome."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import pytest

from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.killing import kill_while_sending
from tests.ledger_file import dead_letters, deliveries, outcomes

PROGRAM = """
import json, sys
from types import SimpleNamespace
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.operators.test_killed import context, operator
operator(sys.argv[1]).execute(context())
"""

# Imports once, then forks for each line it reads, as Airflow does for each task.
FORKS = """
import json, os, sys
import airflow_provider_regal.client.many, airflow_provider_regal.delivery.sending.engine
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.operators.test_killed import context, operator
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow logs goes elsewhere
print("ready", file=out, flush=True)
for line in sys.stdin:
    user, number, guarantee = json.loads(line)
    if pid := os.fork():
        print(pid, file=out, flush=True)
        os.waitpid(pid, 0)
        print("ended", file=out, flush=True)
        continue
    try:
        here = context(run_id=user, try_number=number)
        said = operator("track", user, guarantee=guarantee).execute(here)["status"]
    except BaseException as error:
        said = repr(error)
    print(json.dumps(said), file=out, flush=True)
    os._exit(0)
"""


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key, value):
        self.pushed = {key: value}


def context(*, run_id="r", try_number=1, max_tries=0):
    ti = TaskInstance(dag_id="d", run_id=run_id, task_id="t", map_index=-1, try_number=try_number, max_tries=max_tries)
    return {"ti": ti, "task": SimpleNamespace(retries=0)}


def operator(call, user_id="anne", **options):
    if call == "track":
        return RegalTrackOperator(task_id="t", event="Lesson Booked", user_id=user_id, **options)
    return RegalIdentifyOperator(task_id="t", traits={"phone": "+12125550100"}, **options)


@pytest.fixture(autouse=True)
def short_timeout(regal, monkeypatch):
    """A try after a kill waits until no request of the one before can be under way: as long as requests may last."""
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(timeout=1.0))


def test_an_event_whose_worker_died_while_sending_is_unknown_and_not_sent_again(regal, regal_ledger):
    from airflow.providers.common.compat.sdk import AirflowFailException

    regal.set_faults([{"on": {"requests": [1]}, "do": {"hang": True}}])
    kill_while_sending(regal, PROGRAM, "track")
    assert regal.stats()["requests"] == 1

    with pytest.raises(AirflowFailException, match="It can't be known whether Regal received this track event"):
        operator("track").execute(context(try_number=2))
    assert regal.stats()["requests"] == 1
    (letter,) = dead_letters(regal_ledger)
    assert (letter["status"], letter["reason"]) == ("unknown", "worker died")
    (line,) = deliveries(regal_ledger)
    assert (line["read_rows"], line["unknown"]) == (1, 1)


@pytest.mark.slow
def test_a_contact_whose_worker_died_while_sending_is_sent_again(regal, regal_ledger):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"hang": True}}])
    kill_while_sending(regal, PROGRAM, "identify")
    assert regal.stats()["requests"] == 1

    assert operator("identify").execute(context(try_number=2))["status"] == "acknowledged"
    assert regal.stats()["requests"] == 2
    assert [line["status"] for line in outcomes(regal_ledger)] == ["acknowledged"]


@pytest.mark.slow
def test_the_try_after_a_kill_waits_until_no_request_of_the_killed_one_can_be_under_way(regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"hang": True}}])
    kill_while_sending(regal, PROGRAM, "identify")
    assert regal.stats()["requests"] == 1
    killed = time.monotonic()

    operator("identify").execute(context(try_number=2))

    waited_s = time.monotonic() - killed
    assert waited_s > 1.0, "requests may last so long"
    assert waited_s < 20


def test_the_try_after_one_that_let_go_waits_for_nothing(regal, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(timeout=60))
    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 503, "retry_after": 600}}])
    with pytest.raises(RetryLaterError):
        operator("identify").execute(context())
    let_go = time.monotonic()
    operator("identify").execute(context(try_number=2))
    assert time.monotonic() - let_go < 20


def test_clearing_a_sent_event_sends_nothing_and_says_so(regal, caplog):
    operator("track").execute(context())

    with caplog.at_level(logging.INFO):
        said = operator("track").execute(context(try_number=2, max_tries=1))

    assert said["status"] == "acknowledged"
    assert regal.stats()["requests"] == 1
    assert "events are not sent twice. To send them again, set restart=True" in caplog.text


def test_restart_sends_a_sent_event_again(regal, regal_ledger):
    operator("track").execute(context())
    operator("track", restart="true").execute(context(try_number=2, max_tries=1))
    assert regal.stats()["requests"] == 2
    assert [line["restarted"] for line in deliveries(regal_ledger)] == [0, 1]


def test_restart_is_once_and_the_retries_of_it_go_on_where_it_stopped(regal):
    operator("track").execute(context())
    operator("track", restart=True).execute(context(try_number=2, max_tries=1))
    operator("track", restart=True).execute(context(try_number=3, max_tries=1))
    assert regal.stats()["requests"] == 2


def test_an_event_that_regal_refused_is_tried_again_by_a_clear(regal):
    from airflow.providers.common.compat.sdk import AirflowFailException

    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 422}}])
    with pytest.raises(AirflowFailException, match="Fix the event and clear the task"):
        operator("track").execute(context())
    assert operator("track").execute(context(try_number=2, max_tries=1))["status"] == "acknowledged"


def test_a_run_that_was_deleted_and_made_again_is_a_new_delivery(regal, regal_ledger):
    operator("track").execute(context())
    operator("track").execute(context())
    assert regal.stats()["requests"] == 2
    assert [line["incarnation"] for line in deliveries(regal_ledger)] == [1, 2]


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


class Forks:
    """Executes operators, each in a process of its own, and kills them when told to."""

    def __init__(self, process):
        self._process = process
        assert self._read() == "ready"

    def _read(self):
        return self._process.stdout.readline().strip()

    def execute(self, user, number, guarantee, *, kill_after_s=None):
        """Execute one try; gives what it said, or None if it was killed before that."""
        self._process.stdin.write(json.dumps([user, number, guarantee]) + "\n")
        self._process.stdin.flush()
        pid = int(self._read())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with suppress(ProcessLookupError):  # it had finished
                os.kill(pid, signal.SIGKILL)
        said = self._read()
        if said == "ended":
            return None
        assert self._read() == "ended"
        return json.loads(said)


@pytest.fixture
def forks(regal, short_timeout):
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        yield Forks(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_a_kill_at_any_moment_of_an_event_loses_nothing(guarantee, forks, regal, record_property):
    regal.set_faults([{"do": {"delay_ms": 300}}])
    assert forks.execute("warm", 1, guarantee) == "acknowledged"
    started = time.monotonic()
    assert forks.execute("measured", 1, guarantee) == "acknowledged"
    takes_s = time.monotonic() - started
    moments = random.Random(guarantee)
    outcomes = {}
    for number in range(20):
        user = f"event-{number}"
        forks.execute(user, 1, guarantee, kill_after_s=takes_s * (number + moments.random()) / 20)
        outcomes[user] = forks.execute(user, 2, guarantee)

    arrived = Counter(event["body"]["userId"] for event in regal.events() if event["stored"])
    unknown = {user for user, said in outcomes.items() if "can't be known" in said}
    repeats = sum(arrived[user] - 1 for user in outcomes if arrived[user])
    record_property("repeats", repeats)
    record_property("unknown", len(unknown))
    record_property("unknown_and_arrived", sum(arrived[user] for user in unknown))
    assert {said for user, said in outcomes.items() if user not in unknown} <= {"acknowledged"}
    assert all(arrived[user] or user in unknown for user in outcomes), "an event is lost"
    if guarantee == "at_most_once":
        assert repeats == 0
        assert unknown, "some were killed while they were sent"
    else:
        assert not unknown
        assert 0 < repeats <= 20


class TestOnKill:
    def test_an_event_that_was_not_sent_is_kept_and_sent_by_the_retry(self, regal):
        regal.set_faults([{"on": {}, "do": {"status": 429}}])
        one = operator("track", guarantee="at_most_once")
        running = threading.Timer(1.5, one.on_kill)
        running.start()
        began = time.monotonic()
        with pytest.raises(RetryLaterError, match="told to stop"):
            one.execute(context())
        assert time.monotonic() - began < 8, "Airflow waits for five seconds after on_kill"
        regal.set_faults([])
        assert one.execute(context(try_number=2))["status"] == "acknowledged"  # the same object, as dag.test() does
        assert len(regal.events(stored=True)) == 1

    def test_a_delivery_of_rows_stops_and_its_retry_sends_the_rest(self, regal):
        rows = [{"user_id": f"u{number}", "phone": f"+1212555{number:04d}"} for number in range(120)]
        bulk = RegalRowsOperator(task_id="t", rows=rows, call="identify", rate=20)
        threading.Timer(2, bulk.on_kill).start()
        with pytest.raises(RetryLaterError, match="told to stop"):
            bulk.execute(context())
        sent = len(regal.events())
        assert 0 < sent < 120
        assert RegalRowsOperator(task_id="t", rows=rows, call="identify").execute(context(try_number=2))["acknowledged"]
        assert Counter(event["body"]["userId"] for event in regal.events()).most_common(1)[0][1] == 1
