"""``RegalNotifier``: in callbacks of tasks and DAGs, in deadline alerts, once, and without a value in the log."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_regal.notifications.regal import RegalNotifier, send_regal_notification
from tests.ledger_file import deliveries
from tests.people import SECRETS

EVENT = {"event": "Sync Failed", "user_id": "on-call"}
START = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC)}
PATH = "airflow_provider_regal.notifications.regal.RegalNotifier"


class Dag:
    """All that rendering asks of a DAG."""

    dag_id = "d"

    def __init__(self, *, native=False):
        self._native = native

    def get_template_env(self, **options):
        from jinja2.nativetypes import NativeEnvironment
        from jinja2.sandbox import SandboxedEnvironment

        return NativeEnvironment() if self._native else SandboxedEnvironment()


def sent(regal):
    return [event["body"] for event in regal.events(stored=True)]


def test_it_sends_one_track_event_with_what_was_rendered(regal):
    notifier = RegalNotifier(
        event="{{ what }} Failed",
        phone="{{ phone_of_ops }}",
        email="{{ 'Ops@Example.com' }}",
        user_id="{{ who }}",
        properties={"run": "{{ run_id }}", "tries": 3},
    )
    notifier({"dag": Dag(), "what": "Sync", "phone_of_ops": "(212) 555-0199", "who": "on-call", "run_id": "monday"})
    (body,) = sent(regal)
    assert (body["name"], body["userId"]) == ("Sync Failed", "on-call")
    assert body["properties"] == {"run": "monday", "tries": 3}
    assert "+12125550199" in str(body)
    assert "ops@example.com" in str(body)


def test_texts_stay_texts_in_a_dag_that_renders_types_of_python(regal):
    RegalNotifier(event="Late", user_id="{{ '0x1F' }}", properties={"zip": "{{ '02110' }}"})({"dag": Dag(native=True)})
    (body,) = sent(regal)
    assert (body["userId"], body["properties"]) == ("0x1F", {"zip": "02110"})


def test_one_notifier_serves_many_tasks(regal):
    notifier = RegalNotifier(event="Late", user_id="{{ who }}")
    for who in ("first", "second"):
        notifier({"dag": Dag(), "who": who})
    assert [body["userId"] for body in sent(regal)] == ["first", "second"]


def test_it_is_sent_at_most_once_and_with_a_message_id_once_whoever_calls(regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"drop": True}}])
    RegalNotifier(**EVENT)({"dag": Dag()})
    assert regal.stats()["requests"] == 1, "an event that may have arrived is not sent again"
    for _ in range(2):
        RegalNotifier(**EVENT, message_id="{{ run_id }}-failed")({"dag": Dag(), "run_id": "monday"})
    assert regal.stats()["requests"] == 2


def test_its_options_lead_to_connection_ledger_and_patience(regal, regal_ledger, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", regal.connection(event_source="callbacks"))
    ledger = tmp_path / "other.db"
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_LEDGER", f'{{"conn_type": "sqlite", "host": "{ledger}"}}')
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 1}}])
    notifier = RegalNotifier(
        **EVENT, regal_conn_id="{{ 'other' }}", ledger_conn_id="{{ 'other_ledger' }}", outage_patience=0.2
    )
    began = datetime.now(UTC)
    notifier({"dag": Dag()})
    assert (datetime.now(UTC) - began).total_seconds() < 20, "it gives up after outage_patience"
    assert sent(regal) == []
    regal.set_faults([])
    notifier({"dag": Dag()})
    (body,) = sent(regal)
    assert body["eventSource"] == "callbacks"
    assert len(deliveries(ledger)) == 2
    assert deliveries(regal_ledger) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"event": "Late"}, "name the person"),
        ({"event": " ", "user_id": "u"}, "event must be"),
        ({**EVENT, "outage_patience": "soon"}, "outage_patience"),
        ({**EVENT, "outage_patience": 0}, "outage_patience"),
    ],
)
def test_what_cannot_be_right_is_said_when_the_dag_is_written(options, said):
    with pytest.raises(ValueError, match=said):
        RegalNotifier(**options)


@pytest.mark.parametrize("fault", [{"status": 400}, {"status": 401}, {"status": 500}])
def test_a_failure_is_one_line_without_values_and_raises_nothing(regal, caplog, fault):
    regal.set_faults([{"on": {"from": 1}, "do": fault}])
    caplog.set_level(logging.INFO)
    notifier = RegalNotifier(event="Late", phone=SECRETS["phone"], email=SECRETS["email"], user_id=SECRETS["id"])
    notifier({"dag": Dag()})
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "was not delivered" in errors[0].getMessage()
    assert not [secret for secret in SECRETS.values() if secret in caplog.text]


def test_an_invalid_person_is_named_by_field_only(regal, caplog):
    RegalNotifier(event="Late", phone="not-a-phone-5150")({"dag": Dag()})
    assert "phone" in caplog.text
    assert "5150" not in caplog.text
    assert regal.stats()["requests"] == 0


def test_a_missing_connection_raises_nothing(regal, caplog):
    RegalNotifier(**EVENT, regal_conn_id="nowhere")({"dag": Dag()})
    assert "was not delivered" in caplog.text


def test_the_function_of_the_module_makes_a_notifier():
    assert isinstance(send_regal_notification(**EVENT), RegalNotifier)


def notified(when):
    properties = {"task": "{{ ti.task_id }}", "run": "{{ run_id }}"}
    return RegalNotifier(event=f"Task {when}", user_id="on-call", properties=properties)


@pytest.mark.slow
def test_callbacks_of_tasks_send_it_and_a_failing_one_changes_no_state(run_dag, regal, regal_ledger):
    with DAG("notified", **START) as dag:

        @task(on_success_callback=notified("Succeeded"))
        def good():
            pass

        @task(on_failure_callback=notified("Failed"))
        def bad():
            raise ValueError("it fails")

        @task(on_success_callback=RegalNotifier(event="Lost", user_id="u", regal_conn_id="nowhere"))
        def careless():
            pass

        good()
        bad()
        careless()

    run = run_dag(dag)
    assert {ti.task_id: str(ti.state) for ti in run.get_task_instances()} == {
        "good": "success", "bad": "failed", "careless": "success",
    }  # fmt: skip
    assert sorted((body["name"], body["properties"]["task"]) for body in sent(regal)) == [
        ("Task Failed", "bad"), ("Task Succeeded", "good"),
    ]  # fmt: skip
    assert {(line["dag_id"], line["task_id"]) for line in deliveries(regal_ledger)} == {
        ("notified", "good"), ("notified", "bad"),
    }  # fmt: skip


def test_a_callback_of_a_dag_sends_it_as_the_dag_processor_calls_it(regal):
    # Airflow calls it in the DAG processor with the context of the run, without a current task.
    with DAG("called", **START, on_failure_callback=RegalNotifier(**EVENT, properties={"why": "{{ reason }}"})) as dag:
        pass
    callbacks = dag.on_failure_callback
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        callback({"dag": dag, "run_id": "monday", "reason": "task_failure"})
    (body,) = sent(regal)
    assert body["properties"] == {"why": "task_failure"}


def test_a_missed_deadline_sends_it_from_the_trigger(regal):
    trigger = pytest.importorskip("airflow.triggers.callback", reason="Airflow has deadline alerts from 3.1 on")
    from airflow.sdk import AsyncCallback

    callback = AsyncCallback(RegalNotifier, kwargs={**EVENT, "properties": {"run": "{{ dag_run.dag_run_id }}"}})
    assert callback.path == PATH
    context = {"dag_run": {"dag_run_id": "monday"}, "deadline": {}}

    async def fire():
        made = trigger.CallbackTrigger(callback.path, {**callback.kwargs, "context": context})
        return [event.payload["state"] async for event in made.run()]

    states = asyncio.run(fire())
    assert [str(getattr(state, "value", state)) for state in states] == ["running", "success"]
    (body,) = sent(regal)
    assert body["properties"] == {"run": "monday"}


def test_a_missed_deadline_that_cannot_be_told_writes_no_value(regal, caplog):
    trigger = pytest.importorskip("airflow.triggers.callback", reason="Airflow has deadline alerts from 3.1 on")
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])

    async def fire():
        kwargs = {"event": "Late", "phone": SECRETS["phone"], "user_id": SECRETS["id"], "context": {"dag_run": {}}}
        return [event async for event in trigger.CallbackTrigger(PATH, kwargs).run()]

    events = asyncio.run(fire())
    assert "was not delivered" in caplog.text
    assert not [secret for secret in SECRETS.values() if secret in caplog.text + str(events)]


def test_a_missed_deadline_sends_it_from_an_executor(regal):
    supervisor = pytest.importorskip(
        "airflow.sdk.execution_time.callback_supervisor", reason="Airflow runs such callbacks from 3.2 on"
    )
    import structlog

    kwargs = {
        **EVENT,
        "properties": {"run": "{{ dag_run.dag_run_id }}"},
        "context": {"dag_run": {"dag_run_id": "monday"}},
    }
    assert supervisor.execute_callback(PATH, kwargs, "", None, structlog.get_logger()) == (True, None)
    (body,) = sent(regal)
    assert body["properties"] == {"run": "monday"}
