"""Every example DAG loads, and does what it says."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from scripts.accounts import Accounts
from scripts.consents import NEW_LEADS, OPT_OUTS, change
from scripts.opt_ins import OptIns
from scripts.warehouse import CUSTOMERS, EVENTS_OF_THE_DAY, SEED, make_warehouse

EXAMPLES = sorted((Path(__file__).parents[2] / "dags").glob("*.py"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_loads_without_touching_a_connection(path):
    dag = load(path)
    assert dag.tasks
    assert dag.doc_md
    assert not dag.catchup


def test_the_first_events_arrive_exactly_once_and_without_a_finding(run_dag, regal):
    run = run_dag(load(next(path for path in EXAMPLES if path.stem == "01_first_events")))

    assert str(run.state) == "success"
    stats = regal.stats()
    assert stats["requests"] == stats["stored"] == 5
    assert stats["duplicates"] == 0
    assert stats["contract_findings"] == stats["behaviour_findings"] == {}
    assert sorted(event["name"] or "-" for event in regal.events()) == [
        "-",
        "-",
        "Loan Application Approved",
        "pageview",
        "screen",
    ]
    anne = regal.contact(user_id="anne-smith")
    assert anne["name"] == "Anne Smith"
    for channel in ("sms", "voice"):
        consent = anne["phones"]["+19175554444"][channel]
        assert consent["status"] == "Subscribed"
        assert consent["timestamp"] == "2020-08-25 21:23:43 +00:00"
        assert consent["ip"] == "172.16.254.1"
        assert consent["text"].startswith("By clicking")


def example(stem):
    return load(next(path for path in EXAMPLES if path.stem == stem))


def run_of_the_day(run_dag, dag, now):
    """Run a DAG on a date, always under the same run id; the parameters have other names on 2.11."""
    if "logical_date" in inspect.signature(dag.test).parameters:
        return run_dag(dag, logical_date=now, run_after=now)
    import airflow.providers.fab.auth_manager.models  # noqa: F401 - 2.11 cannot delete the earlier run without it

    return run_dag(dag, execution_date=now)


def report_of(run, task_id):
    ti = next(ti for ti in run.get_task_instances() if ti.task_id == task_id)
    return ti.xcom_pull(task_ids=task_id, key="regal_report")


@pytest.fixture
def warehouse(tmp_path, monkeypatch, regal):
    now = datetime.now(UTC)
    path = make_warehouse(tmp_path / "warehouse.db", now)
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(rate_limit=5_000))
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(tmp_path / "runs"))
    monkeypatch.setattr("scripts.accounts.WAREHOUSE", path)
    monkeypatch.setattr("scripts.opt_ins.WAREHOUSE", path)
    monkeypatch.setattr("scripts.opt_ins.RUN_FOLDERS", tmp_path / "runs")
    return now


def test_the_contacts_and_the_events_of_the_day_arrive_and_nothing_else(run_dag, regal, warehouse):
    dag = example("02_contacts_and_events")
    run = run_of_the_day(run_dag, dag, warehouse)

    assert str(run.state) == "success"
    assert run.data_interval_end - run.data_interval_start == timedelta(days=1)
    assert run.data_interval_end <= warehouse
    expected = Accounts(regal, dag.dag_id, warehouse, None).in_the_warehouse()
    assert expected["contacts"] > CUSTOMERS
    assert expected["events"] > 0.9 * EVENTS_OF_THE_DAY
    arrived = Counter(
        event["body"]["properties"]["event_id"] for event in regal.events() if event["name"] and event["stored"]
    )
    for task, read in expected.items():
        report = report_of(run, task)
        assert report["read"] == read == report["acknowledged"] + report["rejected"]
        assert 0 < report["rejected"] < 0.05 * read
    assert len(arrived) == report["acknowledged"]
    assert set(arrived.values()) == {1}
    stats = regal.stats()
    assert stats["duplicates"] == 0
    assert stats["contract_findings"] == {}

    # The same run again: events were delivered, and are not sent twice; contacts are, which changes none.
    again = run_of_the_day(run_dag, dag, warehouse)

    assert str(again.state) == "success"
    of_events = [event for event in regal.events() if event["name"] and event["stored"]]
    assert len(of_events) == len(arrived)
    assert report_of(again, "events")["status"] == "nothing_to_do"
    assert len(regal.contacts()) == len({contact["id"] for contact in regal.contacts()})


class Asked:
    """The local Regal of the test, as the demo's accounts ask it."""

    def __init__(self, regal):
        self.regal = regal

    def ask(self, what):
        with urlopen(f"{self.regal.url}/sandbox/{what}", timeout=10) as answer:
            return json.load(answer)

    def settled_stats(self):
        self.regal.settle()
        return self.regal.stats()


def test_consents_are_sent_once_and_then_what_changed_and_an_old_yes_undoes_no_opt_out(
    run_dag, regal, warehouse, tmp_path
):
    dag = example("03_opt_in_sync")
    accounts = OptIns(Asked(regal), dag.dag_id)
    for hour in range(3):
        if hour == 1:
            accounts.stale, accounts.opted_out = change(tmp_path / "warehouse.db", SEED, warehouse)
        before = regal.stats()["requests"]
        run = run_of_the_day(run_dag, dag, warehouse + timedelta(hours=hour))
        assert str(run.state) == "success"
        assert report_of(run, "opt_ins")["status"] == "finished"
        accounts.note(before)

    assert accounts.audit() == []
    first, then, again = (run.report["plan"] for run in accounts.runs)
    assert first["opt_ins"] > 400
    assert first["opt_outs"] > 50
    assert 0 < first["rejected"] < 0.1 * accounts.runs[0].report["read"]
    assert (then["opt_outs"], then["opt_ins"], then["stale"]) == (OPT_OUTS, NEW_LEADS, 1)
    assert (again["opt_outs"], again["opt_ins"], again["stale"]) == (0, 0, 1)
    assert accounts.runs[2].requests == []
    assert regal.contact(phone=accounts.stale)["phones"][accounts.stale]["sms"]["status"] == "Unsubscribed"
    stats = regal.stats()
    assert stats["duplicates"] == 0
    assert stats["contract_findings"] == {}
    assert "older_opt_in" not in stats["behaviour_findings"]
