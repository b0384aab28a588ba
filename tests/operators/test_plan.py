"""A plan by one task, sent by another, in a real Airflow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_regal.cli import main
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.plan import RegalSendPlanOperator
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.ledger_file import deliveries
from tests.operators.opt_ins import consent, status
from tests.operators.ways import context


def a_dag(name, **options):
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": 2, "retry_delay": timedelta(0)},
        **options,
    )


def people(count):
    return [{"user_id": f"secret-{number}", "amount": number} for number in range(count)]


def reports(run):
    return {
        ti.task_id: ti.xcom_pull(task_ids=ti.task_id, key="regal_report", map_indexes=ti.map_index)
        for ti in run.get_task_instances()
    }


def tasks(run):
    return {ti.task_id: (str(ti.state), ti.try_number) for ti in run.get_task_instances()}


def planned(rows=(), **options):
    """Make a plan; returns its report."""
    options = {"call": "track", "event": "Lesson Booked", **options}
    return RegalRowsOperator(task_id="t", rows=list(rows), plan=True, **options).execute(context())


def sent(plan, here=None, **options):
    here = here or context()
    here["ti"].task_id = "send"
    return RegalSendPlanOperator(task_id="send", plan=plan, **options).execute(here)


def test_the_output_of_one_task_is_what_the_other_sends(run_dag, regal, regal_ledger, everything_stored, capsys):
    with a_dag("plans") as dag:
        plan = RegalRowsOperator(
            task_id="plan",
            rows=lambda: [{"user_id": f"hidden-{number}"} for number in range(5)],
            call="track",
            event="Lesson Booked",
            plan=True,
        )
        send = RegalSendPlanOperator(task_id="send", plan=plan.output)
    assert send.upstream_task_ids == {"plan"}

    run = run_dag(dag)

    assert tasks(run) == {"plan": ("success", 1), "send": ("success", 1)}
    plan, send = (reports(run)[task] for task in ("plan", "send"))
    assert (plan["status"], plan["left"], plan["requests"]) == ("planned", 5, 0)
    assert (send["status"], send["delivery"], send["acknowledged"]) == ("finished", plan["delivery"], 5)
    assert len(regal.events(stored=True)) == 5
    assert f"hidden-{3}" not in everything_stored()
    (delivery,) = deliveries(regal_ledger)
    assert delivery["state"] == "finished"
    assert main(["deliveries", str(delivery["id"])]) == 0
    assert "Sent by   plans.send of run manual" in capsys.readouterr().out


def test_templates_name_the_plan_the_connection_and_the_ledger(run_dag, regal, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "other.db")}))
    with a_dag("plans_by_template", params={"conn": "regal_default", "ledger": "ledger"}) as dag:
        plan = RegalRowsOperator(
            task_id="plan", rows=people(2), call="track", event="Lesson Booked", plan=True, ledger_conn_id="ledger"
        )
        plan >> RegalSendPlanOperator(
            task_id="send",
            plan="{{ ti.xcom_pull('plan')['delivery'] }}",
            regal_conn_id="{{ params.conn }}",
            ledger_conn_id="{{ params.ledger }}",
        )
    assert reports(run_dag(dag))["send"]["acknowledged"] == 2


def test_a_sync_is_planned_and_its_opt_outs_go_at_once(run_dag, regal, regal_ledger):
    def a_run(name, rows, sends):
        with a_dag(name) as dag:
            plan = RegalOptInSyncOperator(task_id="plan", rows=rows, initial="send", plan=True)
            if sends:
                RegalSendPlanOperator(task_id="send", plan=plan.output)
        return reports(run_dag(dag))

    told = a_run("plans_consents", [consent(1), consent(2, False)], sends=False)
    assert (told["plan"]["plan"]["opt_ins"], told["plan"]["left"], told["plan"]["acknowledged"]) == (1, 1, 1)
    assert status(regal, 2) == "Unsubscribed"
    told = a_run("plans_consents_again", [consent(1), consent(2, False)], sends=True)
    assert (told["plan"]["skips"], told["send"]["acknowledged"]) == ({"unchanged": 1}, 1)
    assert status(regal, 1) == "Subscribed"


def test_a_retry_of_the_sender_resumes(regal, regal_ledger):
    plan = planned(people(40))
    regal.set_faults([{"on": {"from": 11}, "do": {"status": 503, "retry_after": 900, "store": False}}])
    with pytest.raises(Exception, match="outage_patience"):
        sent(plan, max_connections=1, outage_patience=0.1)
    regal.set_faults([])
    assert sent(plan, context(try_number=2))["acknowledged"] == 40
    users = [event["body"]["userId"] for event in regal.events(stored=True)]
    assert len(users) == len(set(users)) == 40


def test_what_cannot_be_sent_fails_without_retry_and_says_what_to_do(run_dag, regal, capfd, caplog):
    plan = planned(people(1))
    sent(plan)
    with a_dag("plans_twice") as dag:
        RegalSendPlanOperator(task_id="send", plan=plan["delivery"])
    run = run_dag(dag)
    assert tasks(run) == {"send": ("failed", 1)}
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "is sent by another task: d.send of run r. A plan is sent once." in logged
    report = reports(run)["send"]
    assert (report["status"], report["delivery"], report["requests"]) == ("failed", plan["delivery"], 0)


def test_a_plan_ages_out_after_the_configured_days(regal, monkeypatch):
    plan = planned(people(1))
    monkeypatch.setenv("AIRFLOW__REGAL__PLAN_DAYS", "0")
    with pytest.raises(AirflowFailException, match=r"was not sent within 0 days \(\[regal\] plan_days\)"):
        sent(plan)
    monkeypatch.setenv("AIRFLOW__REGAL__PLAN_DAYS", "soon")
    with pytest.raises(AirflowFailException, match="plan_days must be a number of days"):
        sent(plan)


def test_a_plan_of_another_ledger_is_not_found(regal, monkeypatch, tmp_path):
    plan = planned(people(1))
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "other.db")}))
    with pytest.raises(AirflowFailException, match="has no delivery"):
        sent(plan, ledger_conn_id="other")


def test_a_plan_of_another_account_is_not_found(regal, monkeypatch):
    plan = planned(people(1))
    other = json.loads(regal.connection()) | {"password": "another-key"}
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_OTHER", json.dumps(other))
    with pytest.raises(AirflowFailException, match="'regal_other' has no delivery"):
        sent(plan, regal_conn_id="regal_other")


@pytest.mark.parametrize("plan", [None, "None", "", {"delivery": None}, True, "plan", {}])
def test_what_is_no_plan_is_an_error_that_says_so(regal, plan):
    with pytest.raises(AirflowFailException, match="plan must be the output of a task with plan=True"):
        sent(plan)


@pytest.mark.parametrize(
    ("option", "seen", "as_planned"),
    [
        ({"max_rejected": 3}, "", "more than max_rejected=0"),
        ({"max_refused": 0.01}, "max_refused=0.01 stops at 1", "more than max_rejected=0"),
    ],
)
def test_an_option_of_sending_overrules_that_of_the_plan(regal, option, seen, as_planned):
    regal.set_faults([{"do": {"status": 400}}])
    for given, says in (({}, as_planned), (option, seen)):
        error = ""
        try:
            sent(planned(people(3)), **given)
        except AirflowFailException as failed:
            error = str(failed)
        assert says in error
        assert bool(says) == bool(error)


@pytest.mark.parametrize(("option", "most"), [({"rate": 8}, 8), ({}, 100)])
def test_the_rate_of_sending(regal, option, most):
    sent(planned(people(12)), **option)
    assert (regal.stats()["worst_window_1s_all"] <= 9) == (most <= 9)


def test_max_unknown_of_sending(regal):
    for option, fails in (({}, False), ({"max_unknown": 0}, True)):
        regal.reset()
        regal.set_faults([{"on": {"requests": [2], "times": 1}, "do": {"drop": True}}])
        plan = planned(people(3))
        if fails:
            with pytest.raises(AirflowFailException, match="more than max_unknown=0"):
                sent(plan, **option)
        else:
            assert sent(plan, **option)["unknown"] == 1


def test_a_dry_run_of_the_connection_sends_and_changes_nothing(regal, monkeypatch):
    plan = planned(people(1))
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(dry_run=True))
    assert planned(people(1))["status"] == "dry_run"
    assert sent({"delivery": None})["status"] == sent(plan)["status"] == "dry_run"
    assert regal.stats()["requests"] == 0
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection())
    assert sent(plan)["acknowledged"] == 1


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"max_rejected": "2%"}, "max_rejected must be"),
        ({"rate": "x"}, "rate must be a whole number"),
        ({"max_connections": 0}, "max_connections must be above 0"),
        ({"outage_patience": "soon"}, "outage_patience must be"),
        ({"max_refused": 2}, "max_refused must be"),
        ({"max_unknown": -1}, "max_unknown must be"),
    ],
)
def test_an_option_that_cannot_be_right_is_an_error_when_the_dag_is_written(option, complaint):
    with pytest.raises(ValueError, match=complaint):
        RegalSendPlanOperator(task_id="send", plan=1, **option)


def test_what_cannot_be_planned_is_an_error_when_the_dag_is_written():
    with pytest.raises(ValueError, match="plan: not for dead letters"):
        RegalRedeliverOperator(task_id="t", from_task="x", plan=True)
    with pytest.raises(ValueError, match="plan: not with known_to_regal"):
        RegalOptInSyncOperator(task_id="t", rows=[], known_to_regal=True, plan=True)
    with pytest.raises(Exception, match="plan"):
        RegalTrackOperator(task_id="t", event="Booked", user_id="u", plan=True)
