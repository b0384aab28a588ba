"""Several runs of a DAG, other ways to start one, and what identifies a run, according to ledger and arrivals."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from scripts import local
from tests.airflow_settings.ledger import deliveries_of, last_delivery, reasons_of
from tests.running_airflow import wait_until

pytestmark = pytest.mark.long


def ended(run, tasks=("deliver",)):
    """Return the states in which tasks of a run have ended."""
    return [run.of(task).wait_for_end()["state"] for task in tasks]


def dates(arrived):
    """Return the dates in the user ids, in the order in which they first arrived."""
    return list(dict.fromkeys(user.split("-")[1] for user in arrived))


def test_depends_on_past(airflow):
    first = airflow.start("depends_on_past", logical_date="2025-01-01T00:00:00Z")
    second = airflow.start("depends_on_past", logical_date="2025-01-02T00:00:00Z")
    assert ended(first) == ["failed"]
    wait_until(lambda: second.state_of_run == "running")
    assert second.state in (None, "scheduled")
    assert airflow.requests("depends_on_past") == 20

    assert first.clear()["state"] == "success"
    assert ended(second) == ["success"]
    assert airflow.requests("depends_on_past") == 41, "the refused row was sent once more"
    assert dates(airflow.arrived("depends_on_past")) == ["01", "02"]
    assert set(airflow.arrivals("depends_on_past").values()) == {1}


def test_backfill(airflow):
    airflow.wait_for_dag("backfilled")

    def backfill(**more):
        what = {"dag_id": "backfilled", "from_date": "2025-01-01T00:00:00Z", "to_date": "2025-01-02T00:00:00Z"}
        number = airflow.api("backfills", {**what, **more})["id"]
        wait_until(lambda: airflow.api(f"backfills/{number}")["completed_at"])

    backfill()
    runs = airflow.runs("backfilled")
    assert [ended(run, ("deliver", "default")) for run in runs] == [["success", "failed"]] * 2
    assert airflow.requests("backfilled") == 10
    assert set(airflow.arrivals("backfilled").values()) == {1}
    assert airflow.requests("too_old") == 0, "max_event_age is 7 days where nothing is said"
    (why,) = reasons_of(airflow, last_delivery(airflow, "backfilled", "default")["id"])
    assert "older than max_event_age" in why

    backfill(reprocess_behavior="completed")
    assert len(airflow.runs("backfilled")) == 2, "they are cleared"
    assert {run.task["try_number"] for run in airflow.runs("backfilled")} == {2}
    assert airflow.requests("backfilled") == 10, "nothing is sent again"


def test_catchup(airflow):
    wait_until(lambda: len(airflow.runs("caught_up")) == 2, 90)
    assert [ended(run, ("deliver", "once")) for run in airflow.runs("caught_up")] == [["success", "success"]] * 2
    assert set(airflow.arrivals("caught_up").values()) == {2}, "a query without dates sends all of it for each run"
    assert set(airflow.arrivals("caught_up_once").values()) == {1}, "a message id is sent once"
    assert last_delivery(airflow, "caught_up", "once")["skipped"] == 5


def test_max_active_runs(airflow, early):
    first, second = early["two_runs"], early["two_runs, again"]
    for run in (first, second):
        assert ended(run, ("deliver", "once")) == ["success", "success"]
    for task in ("deliver", "once"):
        one, other = deliveries_of(airflow, "two_runs", task)
        assert one["ended_at"] > other["started_at"], "they ran at the same time"
    assert airflow.arrivals("two_runs") == Counter({f"two_runs-{number}": 2 for number in range(60)})
    assert airflow.arrivals("two_runs_once") == Counter({f"two_runs_once-{number}": 1 for number in range(60)})
    assert sum(line["skipped"] for line in deliveries_of(airflow, "two_runs", "once")) == 60


def test_dag_renamed(airflow):
    tasks = ("deliver", "once", "contacts")
    for name in ("old_name", "new_name"):
        assert ended(airflow.start(name), tasks) == ["success"] * 3
    assert set(airflow.arrivals("renamed").values()) == {2}, "another DAG id is another delivery"
    assert set(airflow.arrivals("renamed_once").values()) == {1}
    assert set(airflow.arrivals("renamed_changed").values()) == {1}


def test_airflow_dags_test(airflow, early):
    assert ended(early["tested"]) == ["success"]
    assert set(airflow.arrivals("tested").values()) == {1}

    local.airflow(airflow.env, "dags", "test", "tested", log="dags-test.log")
    assert set(airflow.arrivals("tested").values()) == {2}
    by_hand, tested = deliveries_of(airflow, "tested")
    assert (tested["state"], tested["acknowledged"]) == ("finished", 10)
    assert by_hand["run_id"] != tested["run_id"]


def test_task_removed(airflow):
    run = airflow.start("removed", "goes")
    assert run.wait_for_end()["state"] == "failed"
    file = airflow.home / "dags" / "removed_dag.py"
    file.write_text(file.read_text().partition("    # to be removed")[0])
    wait_until(lambda: [task["task_id"] for task in airflow.api("dags/removed/tasks")["tasks"]] == ["stays"])

    listed = json.loads(local.ask_ledger(airflow.env, "deliveries", "--task", "goes", "--json"))
    assert [(line["dag_id"], line["acknowledged"], line["rejected"]) for line in listed] == [("removed", 2, 1)]
    assert "removed.goes" in local.ask_ledger(airflow.env, "find", "removed-0")

    local.ask_ledger(airflow.env, "redeliver", str(last_delivery(airflow, "removed", "goes")["id"]))
    assert airflow.arrivals("removed") == Counter({f"removed-{number}": 1 for number in range(3)})
