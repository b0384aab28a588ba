"""The recipes of docs/alerts.md alert when they should, on a real ledger."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import RetryLaterError
from tests.operators.ways import context

PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"
BLOCKS = dict(
    re.findall(r"^## (.*?)$.*?^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL),
)


class Dag:
    dag_id = "d"

    def get_template_env(self, **options):
        from jinja2.sandbox import SandboxedEnvironment

        return SandboxedEnvironment()


def names(regal):
    return [event["name"] for event in regal.events(stored=True) if event["name"] != "Lesson Booked"]


def recipe(heading):
    namespace = {}
    exec(BLOCKS[heading], namespace)
    return namespace


def run(operator, run_id, **told):
    """Run a task once, and the callbacks that Airflow would call then."""
    here = {**context(run_id=run_id, **told), "dag": Dag(), "run_id": run_id}
    here["ti"].xcom_pull = lambda *, task_ids, key, map_indexes: here["ti"].report
    try:
        operator.execute(here)
        callbacks = operator.on_success_callback
    except (AirflowFailException, RetryLaterError):
        callbacks = operator.on_failure_callback
    for callback in callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]:
        callback(here)


def test_more_than_two_percent_rejected(regal):
    operator = recipe("More than 2 % rejected")["lessons"]
    good = [{"user_id": f"u{number}"} for number in range(99)]
    operator.rows = [*good, {"user_id": None}]
    run(operator, "monday")
    assert names(regal) == []
    operator.rows = [*good[:94], *[{"user_id": None}] * 6]
    run(operator, "tuesday")
    assert names(regal) == ["Many Rows Rejected"]


def test_once_per_change_and_on_recovery(regal):
    operator = recipe("Once per change, and on recovery")["lessons"]
    good, bad = [{"user_id": "anne-smith"}], [{"user_id": None}]
    told = {}
    days = (good, bad, bad, good, good)
    for number, rows in enumerate(days):
        before = len(names(regal))
        operator.rows = rows
        run(operator, f"day-{number}")
        told[number] = names(regal)[before:]
    assert told == {0: [], 1: ["Sync Failed"], 2: [], 3: ["Sync Recovered"], 4: []}


def test_rows_that_are_left_are_a_failure_and_a_retry_in_the_same_run_is_no_recovery(regal):
    operator = recipe("Once per change, and on recovery")["lessons"]
    operator._options["outage_patience"] = 0.1
    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 503, "retry_after": 900}}])
    run(operator, "monday")
    assert names(regal) == ["Sync Failed"]
    run(operator, "monday", try_number=2)
    assert names(regal) == ["Sync Failed"], "the failure was of this run"
    run(operator, "tuesday")
    assert names(regal) == ["Sync Failed"], "monday has delivered in the end"


def test_the_notifier_of_the_page_names_task_and_run(regal):
    namespace = {}
    made = []
    exec(BLOCKS["The notifier"].replace("\nRegalRowsOperator(", "\nmade = RegalRowsOperator("), namespace)
    made = namespace["made"]
    made.rows = [{"user_id": None}]
    for _ in range(2):
        run(made, "monday")
    (event,) = [event["body"] for event in regal.events(stored=True)]
    assert event["properties"] == {"dag": "d", "task": "t", "run": "monday"}


def test_the_deadline_of_the_page_is_one_that_airflow_takes():
    pytest.importorskip("airflow.triggers.callback", reason="Airflow has deadline alerts from 3.1 on")
    dag = recipe("Late")["dag"]
    (deadline,) = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline]
    assert deadline.callback.path == "airflow_provider_regal.notifications.regal.RegalNotifier"
    from airflow_provider_regal.notifications.regal import RegalNotifier

    RegalNotifier(**deadline.callback.kwargs)


def test_every_recipe_is_tested():
    assert set(BLOCKS) == {"The notifier", "More than 2 % rejected", "Once per change, and on recovery", "Late"}
