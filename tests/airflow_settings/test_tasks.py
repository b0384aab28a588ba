"""Settings of one task, and of tasks around it; checked in the ledger and in the arrivals."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tests.airflow_settings.ledger import deliveries_of, last_delivery

pytestmark = pytest.mark.long


def assert_once(airflow, dag, rows):
    assert airflow.arrivals(dag) == Counter({f"{dag}-{number}": 1 for number in range(rows)})


@pytest.fixture(scope="module")
def runs(airflow):
    """Start a run of each DAG, all at once."""
    airflow.api("pools", {"name": "one_slot", "slots": 1})
    tasks = {
        "no_retries": "deliver", "mapped": "deliver", "one_at_a_time": "low", "trigger_rule": "third",
        "after_waiting": "deliver", "setup_teardown": "work", "teardown_fails": "report", "teardown_counts": "report",
    }  # fmt: skip
    return {dag: airflow.start(dag, task) for dag, task in tasks.items()}


def test_retries_0(airflow, runs):
    run = runs["no_retries"]
    assert run.wait_for_end()["state"] == "failed"
    assert run.task["try_number"] == 1
    assert last_delivery(airflow, "no_retries")["state"] == "stopped"
    assert run.report()["left"] > 0

    assert run.clear()["state"] == "success"
    assert_once(airflow, "no_retries", 60)


def test_retry_delay_and_exponential_backoff(airflow, early):
    run = early["backoff"]
    assert run.wait_for_end()["state"] == "success"
    assert run.task["try_number"] == 4, "each of the first three was told to wait for longer than outage_patience"
    assert airflow.requests("backoff") == 43
    (line,) = deliveries_of(airflow, "backoff")
    assert line["acknowledged"] == 40
    assert_once(airflow, "backoff", 40)


def test_mapped_tasks(airflow, runs):
    run = runs["mapped"]
    states = [run.of("deliver", number).wait_for_end()["state"] for number in range(3)]
    assert states == ["success", "failed", "success"]
    assert airflow.requests("mapped") == 30

    assert run.of("deliver", 1).clear()["state"] == "success"
    assert airflow.requests("mapped") == 31, "the refused row alone"
    assert set(airflow.arrivals("mapped").values()) == {1}
    assert len(airflow.arrivals("mapped")) == 30


@pytest.fixture(scope="module")
def one_at_a_time(airflow, runs):
    """Return the deliveries of three tasks that share a pool of one slot, in the order in which they started."""
    run = runs["one_at_a_time"]
    names = ("low", "middle", "high")
    assert [run.of(name).wait_for_end()["state"] for name in names] == ["success"] * 3
    lines = [line for name in names for line in deliveries_of(airflow, "one_at_a_time", name)]
    return sorted(lines, key=lambda line: line["started_at"])


def test_pool(airflow, one_at_a_time):
    for earlier, later in pairwise(one_at_a_time):
        assert earlier["ended_at"] <= later["started_at"]
    for line in one_at_a_time:
        assert_once(airflow, f"one_at_a_time-{line['task_id']}", 30)


def test_priority_weight(one_at_a_time):
    assert [line["task_id"] for line in one_at_a_time] == ["high", "middle", "low"]


def test_trigger_rule(airflow, runs):
    run = runs["trigger_rule"]
    assert run.wait_for_end()["state"] == "success"
    assert (run.of("first").state, run.of("second").state) == ("failed", "upstream_failed")
    assert len(airflow.arrivals("trigger_rule_first")) == 9, "nine of ten rows arrived before it failed"
    assert airflow.requests("trigger_rule_second") == 0
    assert_once(airflow, "trigger_rule_third", 10)


def test_deferrable_and_rescheduled_sensors_before_it(airflow, runs):
    run = runs["after_waiting"]
    assert run.wait_for_end()["state"] == "success"
    assert run.task["try_number"] == 1
    assert_once(airflow, "after_waiting", 10)


def test_setup_and_teardown(airflow, runs):
    run = runs["setup_teardown"]
    assert run.wait_for_end()["state"] == "failed"
    prepare, report = run.of("prepare"), run.of("report")
    assert (prepare.state, report.wait_for_end()["state"]) == ("success", "failed")
    assert run.state_of_run == "failed"
    assert_once(airflow, "setup_teardown_setup", 5)
    assert len(airflow.arrivals("setup_teardown_teardown")) == 4

    run.clear()
    assert report.wait_for_end()["state"] == "success"
    assert (prepare.task["try_number"], report.task["try_number"]) == (2, 2), "Airflow clears them with the work"
    assert_once(airflow, "setup_teardown_setup", 5)
    assert_once(airflow, "setup_teardown_teardown", 5)


def test_a_failing_teardown(runs):
    ignored, counts = runs["teardown_fails"], runs["teardown_counts"]
    assert [run.wait_for_end()["state"] for run in (ignored, counts)] == ["failed", "failed"]
    assert (ignored.state_of_run, counts.state_of_run) == ("success", "failed")
