"""What a page shows for a delivery without an end, once Airflow knows that its task has ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.ledger.states import RowState
from tests.ledger.view import open_database
from tests.plugin.test_pages import held
from tests.plugin.test_redelivering import redeliver_dag  # noqa: F401 - a DAG that Airflow has

STATES = [RowState.ACKNOWLEDGED, *[RowState.OPEN] * 3]
DAG, TASK = "regal_redeliver", "redeliver"


@pytest.fixture
def instance(request):
    """A task instance in Airflow's database; call it with the state it is in."""
    request.getfixturevalue("redeliver_dag")
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from airflow_provider_regal._compat import trigger_dag

    class Ada:
        def get_name(self):
            return "ada"

    run_id = trigger_dag(DAG, {"delivery": 1}, Ada())

    def is_now(state, try_number=1):
        of_run = (TaskInstance.dag_id == DAG) & (TaskInstance.run_id == run_id)
        with create_session(scoped=False) as session:
            changed = session.execute(update(TaskInstance).where(of_run).values(state=state, try_number=try_number))
            assert changed.rowcount == 1
        return run_id

    return is_now


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("running", "SENDING 0 %"),
        ("restarting", "SENDING 0 %"),
        ("up_for_retry", "STOPPED, RETRY WAITING"),
        ("queued", "STOPPED, RETRY WAITING"),
        (None, "STOPPED, RETRY WAITING"),
        ("failed", "TASK DEAD"),
        ("success", "TASK DEAD"),
    ],
)
def test_the_state_of_the_task_is_asked_of_airflow(site, regal_ledger, text_of, instance, state, word):
    number = held(regal_ledger, states=STATES, seconds_ago=8, dag=DAG, task=TASK, run=instance(state))
    for path in ("/", f"/deliveries/{number}"):
        assert word in text_of(site().get(f"/regal{path}")), path


def test_while_it_commits_it_is_sending_whatever_airflow_says(site, regal_ledger, text_of, instance):
    number = held(regal_ledger, states=STATES, dag=DAG, task=TASK, run=instance("failed"))
    commit_now(regal_ledger)
    assert "SENDING 0 %" in text_of(site().get(f"/regal/deliveries/{number}"))


def commit_now(regal_ledger):
    from airflow_provider_regal.ledger.text import to_ledger_time

    now = to_ledger_time(datetime.now(UTC) + timedelta(seconds=1))
    change(regal_ledger, f"UPDATE regal_deliveries SET held_at = '{now}'")


def change(regal_ledger, statement):
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql(statement))
    database.close()


def test_a_later_try_that_runs_but_has_not_taken_it_yet_is_a_retry(site, regal_ledger, text_of, instance):
    held(regal_ledger, states=STATES, seconds_ago=8, dag=DAG, task=TASK, run=instance("running", try_number=2))
    assert "STOPPED, RETRY WAITING" in text_of(site().get("/regal/"))


def test_a_dead_task_says_what_to_do_and_no_time_left(site, regal_ledger, text_of, instance):
    number = held(
        regal_ledger, states=STATES, seconds_ago=8, counts={"outages": 0}, dag=DAG, task=TASK, run=instance("failed")
    )
    text = text_of(site().get(f"/regal/deliveries/{number}"))
    assert "The task's process is gone: it was killed, or its worker was lost." in text
    assert "What to do Airflow does not run it again: clear the task. It resumes here," in text
    assert "no sign of life" in text
    progress = text.split("4 rows have an outcome.")[1].split(" read ")[0]
    assert progress == " 25 %", "no speed, no time left, and the page does not load again"
    assert "http-equiv" not in site().get(f"/regal/deliveries/{number}").text
    start = text_of(site().get("/regal/"))
    assert "takes events now" not in start
    assert start.index("Needs a look") < start.index("TASK DEAD")


def test_the_headline_and_health_count_a_dead_task_as_dead(site, regal_ledger, text_of, instance):
    held(regal_ledger, states=STATES, seconds_ago=8, dag=DAG, task=TASK, run=instance("failed"))
    held(regal_ledger, states=STATES, seconds_ago=8, dag="nowhere", task="t", run="r")
    assert "Deliveries 1 dead 1 running 2 deliveries," in text_of(site().get("/regal/"))
    health = text_of(site().get("/regal/health"))
    assert "Health 1 dead Deliveries of the last 7 days" in health
    assert "Nothing needs a look" not in health


def test_of_a_plan_the_task_that_sends_it_is_asked(site, regal_ledger, text_of, instance):
    run_id = instance("failed")
    number = held(regal_ledger, states=STATES, seconds_ago=8, dag="plans", task="plan", run="r")
    change(regal_ledger, f"UPDATE regal_deliveries SET sender = '{json.dumps([DAG, run_id, TASK, -1])}'")
    assert "TASK DEAD" in text_of(site().get(f"/regal/deliveries/{number}"))


def test_a_task_that_airflow_does_not_have_is_judged_by_the_ledger(site, regal_ledger, text_of, airflow_db):
    held(regal_ledger, states=STATES, seconds_ago=8, dag="nowhere", task="t", run="r")
    held(regal_ledger, states=STATES, seconds_ago=8, dag=None, task=None, run="by hand")
    assert text_of(site().get("/regal/")).count("SENDING 0 %") == 2
