"""What happens to rows when Airflow stops a task while it sends, according to the ledger and the arrivals."""

from __future__ import annotations

import pytest

from tests.airflow_settings.ledger import deliveries_of, last_delivery
from tests.airflow_settings.sending import RESERVED, ROWS, assert_all_sent_once
from tests.running_airflow import Run, wait_until

pytestmark = pytest.mark.long


def is_stopped(airflow, dag):
    return wait_until(lambda: (line := last_delivery(airflow, dag))["state"] == "stopped" and line)


def test_execution_timeout(airflow, early, record_property):
    run = early["execution_timeout"]
    assert run.wait_for_end()["state"] == "success"
    assert run.task["try_number"] > 1, "15 s of rows do not fit into the timeout"
    assert_all_sent_once(airflow, run, record_property, unknown=0)

    assert run.of("slow_source").wait_for_end()["state"] == "failed"
    assert airflow.requests("slow_source") == 0, "nothing is sent before the source was read to its end"


def test_dagrun_timeout(airflow, early, record_property):
    run = early["dagrun_timeout"]
    wait_until(lambda: run.state == "skipped")
    wait_until(lambda: last_delivery(airflow, run.dag)["state"] in ("stopped", "nothing yet"))
    assert airflow.requests(run.dag) < ROWS
    assert run.state_of_run == "failed"
    while run.clear()["state"] == "skipped" and run.task["try_number"] < 9:
        pass  # the timeout is the same, and the task resumes where it stopped
    assert_all_sent_once(airflow, run, record_property, unknown=0)


INTERRUPTIONS = {
    "cleared_while_running": Run.request_clear,
    "contacts_cleared": Run.request_clear,
    "marked_success": lambda run: run.mark("success"),
    "marked_failed": lambda run: run.mark("failed"),
    "worker_killed": Run.kill,
    "supervisor_killed": lambda run: run.kill(supervisor_only=True),
}


@pytest.fixture(scope="module")
def interrupted(airflow, early):
    """Start runs at the same time, and interrupt each in the middle of its rows."""
    runs, sent = {dag: airflow.start(dag) for dag in INTERRUPTIONS}, {}

    def all_interrupted():
        for dag in runs.keys() - sent.keys():
            if airflow.requests(dag) > 60:
                INTERRUPTIONS[dag](runs[dag])
                sent[dag] = airflow.requests(dag)
        return len(sent) == len(runs)

    wait_until(all_interrupted)
    assert all(number < ROWS for number in sent.values())
    return runs


def test_on_kill_cleared_while_it_runs(airflow, interrupted, record_property):
    run, contacts = interrupted["cleared_while_running"], interrupted["contacts_cleared"]
    for one in (run, contacts):
        wait_until(lambda one=one: one.task["try_number"] == 2)
        assert one.wait_for_end()["state"] == "success"
    assert_all_sent_once(airflow, run, record_property, unknown=0)

    first, *again = deliveries_of(airflow, contacts.dag)
    record_property("contacts", "sent again" if again else "resumed")
    assert last_delivery(airflow, contacts.dag)["acknowledged"] == ROWS
    assert len(airflow.arrivals(contacts.dag)) == ROWS
    repeats = first["acknowledged"] if again else 0
    assert sum(airflow.arrivals(contacts.dag).values()) == ROWS + repeats


@pytest.mark.parametrize("state", ["success", "failed"])
def test_marked_success_or_failed_while_it_runs(airflow, interrupted, record_property, state):
    run = interrupted[f"marked_{state}"]
    line = is_stopped(airflow, run.dag)
    assert run.state == state, "it is not retried"
    assert 0 < line["acknowledged"] + line["unknown"] < ROWS
    assert run.clear()["state"] == "success"
    assert_all_sent_once(airflow, run, record_property, unknown=0)


def test_worker_killed(airflow, interrupted, record_property):
    run = interrupted["worker_killed"]
    assert run.wait_for_end()["state"] == "success"
    assert run.task["try_number"] == 2
    assert_all_sent_once(airflow, run, record_property, unknown=2 * RESERVED)


def test_supervisor_killed(airflow, interrupted, record_property):
    run = interrupted["supervisor_killed"]
    assert run.wait_for_end()["state"] == "success"
    assert run.task["try_number"] == 2
    record_property("took_over", "requests of an earlier try may still be under way" in run.log())
    assert_all_sent_once(airflow, run, record_property, unknown=2 * RESERVED)


def test_marked_success_or_failed_afterwards(airflow):
    run = airflow.start("marked_after")
    failing = run.of("failing")
    assert (run.wait_for_end()["state"], failing.wait_for_end()["state"]) == ("success", "failed")
    run.mark("failed")
    failing.mark("success")
    assert last_delivery(airflow, run.dag, "failing")["state"] == "failed", "the ledger keeps what happened"

    for one in (run, failing):  # Airflow may lose a clear made while it ends the run
        one.request_clear()
    wait_until(lambda: run.task["try_number"] == failing.task["try_number"] == 2)
    assert (run.wait_for_end()["state"], failing.wait_for_end()["state"]) == ("success", "success")
    assert airflow.requests("marked_after") == 20, "what had finished sends nothing"
    assert airflow.requests("marked_after_failing") == 23, "the three rows that Regal had refused"
    assert set(airflow.arrivals("marked_after_failing").values()) == {1}
