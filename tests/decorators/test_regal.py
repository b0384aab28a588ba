"""``@task.regal`` and ``hook.deliver`` in a real Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_regal.decorators.regal import regal_task
from airflow_provider_regal.events import Identify, Track
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.rows import RegalRowsOperator


def a_dag(name, *, retries=0):
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
    )


def test_what_a_function_yields_is_delivered_and_never_rendered(run_dag, regal):
    with a_dag("decorated") as dag:

        @regal_task(call="track", event="Lesson Booked")
        def lessons(count):
            for number in range(count):
                yield {"user_id": f"u{number}", "note": "{{ run_id }}"}

        lessons(5)

    run = run_dag(dag)

    assert str(run.state) == "success"
    assert {event["body"]["properties"]["note"] for event in regal.events()} == {"{{ run_id }}"}
    assert len(regal.events()) == 5


def test_a_function_may_return_events_of_any_kind(run_dag, regal):
    with a_dag("events") as dag:

        @task
        def send():
            report = RegalHook().deliver(
                [Identify(user_id="a", phone="+12125550100"), Track(event="Seen", user_id="a", properties={"n": 1})]
            )
            return report.as_dict()

        send()

    assert str(run_dag(dag).state) == "success"
    assert [event["name"] for event in regal.events()] == [None, "Seen"]


def test_a_second_unnamed_delivery_of_one_task_is_an_error(run_dag, regal, capfd):
    with a_dag("twice") as dag:

        @task
        def send():
            hook = RegalHook()
            hook.deliver([{"user_id": "a"}], call="track", event="One")
            hook.deliver([{"user_id": "b"}], call="track", event="Two", name="second")
            hook.deliver([{"user_id": "c"}], call="track", event="Three")

        send()

    assert str(run_dag(dag).state) == "failed"
    assert "give each a name of its own" in "".join(capfd.readouterr())
    assert [event["name"] for event in regal.events()] == ["One", "Two"]


def test_rows_of_an_upstream_task_are_delivered_after_it(run_dag, regal, everything_stored):
    with a_dag("upstream") as dag:

        @task
        def find():
            return [{"user_id": "a"}, {"user_id": "b"}]

        RegalRowsOperator(task_id="send", call="track", event="Found", rows=find())

    assert dag.get_task("send").upstream_task_ids == {"find"}
    assert str(run_dag(dag).state) == "success"
    assert sorted(event["body"]["userId"] for event in regal.events()) == ["a", "b"]


def test_outside_of_a_task_rows_are_delivered_too(regal):
    report = RegalHook().deliver(({"user_id": f"u{n}"} for n in range(3)), call="track", event="Seen")
    assert report.acknowledged == 3


def test_dictionaries_without_a_call_are_an_error(regal):
    with pytest.raises(ValueError, match="call= is needed"):
        RegalHook().deliver([{"user_id": "a"}])
