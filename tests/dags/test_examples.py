"""Every example DAG loads, and does what it says."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from airflow_provider_regal.testing import Sandbox
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
    assert len(path.read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_has_a_connection_that_may_lead_to_production(path):
    """Whoever copies an example and unpauses it sends nothing before he has named a connection."""
    dag = load(path)
    used = {connection for task in dag.tasks for connection in connections_of(task)}
    if "regal_conn_id" in dag.params:
        used = {dag.params["regal_conn_id"]}
    assert used
    assert all(connection.startswith("regal_sandbox") for connection in used), used
    assert "regal_sandbox" in path.read_text()


def connections_of(task):
    """The connections to Regal that a task uses, mapped or not."""
    if hasattr(task, "expand_input"):
        return {kwargs["regal_conn_id"] for kwargs in task.expand_input.value}
    return {task.regal_conn_id} if hasattr(task, "regal_conn_id") else set()


def test_every_example_is_run():
    """A test of this folder names each example to run it."""
    source = Path(__file__).read_text()
    others = (Path(__file__).parent / "test_month.py").read_text()
    assert [path.stem for path in EXAMPLES if f'"{path.stem}"' not in source + others] == []


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
        assert consent["ip"] == "198.51.100.54"
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
def warehouse(tmp_path, monkeypatch, regal, regal_ledger, airflow_db):
    now = datetime.now(UTC)
    with closing(sqlite3.connect(airflow_db)) as airflow, airflow:  # other tests may have run the same DAGs
        airflow.execute("DELETE FROM xcom WHERE key = 'regal_consents_on_record'")
    path = make_warehouse(tmp_path / "warehouse.db", now)
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX", regal.connection(rate_limit=5_000))
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setattr("scripts.accounts.WAREHOUSE", path)
    monkeypatch.setattr("scripts.opt_ins.WAREHOUSE", path)
    monkeypatch.setattr("scripts.ledger.LEDGER", regal_ledger)
    return now


def addresses(regal):
    """Every phone and email that Regal has; who of two people that share one keeps it, is Regal's to decide."""
    return {address for contact in regal.contacts() for address in (*contact["phones"], *contact["emails"])}


@pytest.mark.slow
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

    # Deleted and created again, it is a new run: it sends events again, and contacts are unchanged.
    before = addresses(regal)
    again = run_of_the_day(run_dag, dag, warehouse)

    assert str(again.state) == "success"
    assert report_of(again, "events")["delivery"] > report["delivery"]
    assert report_of(again, "events")["acknowledged"] == report["acknowledged"]
    assert addresses(regal) == before


def answer(airflow, dag_id, option, patience_s=60):
    """Answer what a task asks, by Airflow's own API, as its page does; returns what was asked."""
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        asked = airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false").json()
        if asked.get("hitl_details"):
            found = asked["hitl_details"][0]
            run_id = quote(found["task_instance"]["dag_run_id"], safe="")
            path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
            told = airflow.patch(path, json={"chosen_options": [option], "params_input": {}})
            assert told.status_code == 200, told.text
            return found
        time.sleep(0.2)
    raise AssertionError("nothing was asked")


@pytest.fixture
def airflow_api(airflow_db):
    """Airflow's API, in this process."""
    pytest.importorskip("airflow.sdk.execution_time.hitl", reason="Airflow asks people from 3.1 on")
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        with TestClient(create_app(apps="core")) as client:
            yield client


@pytest.mark.slow
@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_what_was_planned_is_sent_once_somebody_approves_it(run_dag, regal, warehouse, tmp_path, airflow_api, option):
    dag = example("06_plan_and_approve")

    def change_the_table_and_answer():
        asked = answer(airflow_api, dag.dag_id, option)
        with closing(sqlite3.connect(tmp_path / "warehouse.db")) as connection, connection:
            connection.execute("DELETE FROM customers")
        return asked

    with ThreadPoolExecutor(1) as threads:
        answering = threads.submit(change_the_table_and_answer)
        run = run_of_the_day(run_dag, dag, warehouse)
        asked = answering.result()

    planned = report_of(run, "plan")
    assert planned["status"] == "planned"
    assert 100 < planned["left"] < CUSTOMERS
    assert 0 < planned["rejected"] < 0.05 * planned["read"]
    assert asked["subject"] == f"Send 'Upgrade Offered' to {planned['left']} customers?"
    assert planned["samples"][0] in asked["body"]
    states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
    if option == "Reject":
        assert states == {"plan": "success", "approve": "success", "send": "skipped"}
        assert regal.stats()["requests"] == 0
        return
    assert set(states.values()) == {"success"}
    sent = report_of(run, "send")
    assert (sent["delivery"], sent["acknowledged"], sent["rejected"]) == (
        planned["delivery"], planned["left"], planned["rejected"],
    )  # fmt: skip
    assert len({event["body"]["userId"] for event in regal.events()}) == regal.stats()["stored"] == planned["left"]


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
    assert 0 < first["no_evidence"] + first["unreadable"] < 0.1 * accounts.runs[0].report["read"]
    withheld = [run.report["opt_ins_withheld"] for run in accounts.runs]
    assert (then["opt_outs"], then["opt_ins"], withheld[1]) == (OPT_OUTS, NEW_LEADS, 1)
    assert (again["opt_outs"], again["opt_ins"], withheld[2]) == (0, 0, 1)
    assert again["older"] == then["older"] > first["older"]
    assert accounts.runs[2].requests == []
    assert regal.contact(phone=accounts.stale)["phones"][accounts.stale]["sms"]["status"] == "Unsubscribed"
    stats = regal.stats()
    assert stats["duplicates"] == 0
    assert stats["contract_findings"] == {}
    assert "older_opt_in" not in stats["behaviour_findings"]


def say(path, *rows):
    """Write decisions into the table of consents."""
    columns = "lead, phone, email, channel, subscribed, said_at, ip, wording, form"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO consents ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


@pytest.mark.slow
def test_the_contacts_of_a_later_day_do_not_undo_the_no_that_the_sync_has_sent(run_dag, regal, warehouse, tmp_path):
    """The table of customers keeps the yes of the day they signed up; no one corrects it there."""
    contacts = example("02_contacts_and_events")
    assert str(run_of_the_day(run_dag, contacts, warehouse).state) == "success"
    subscribed = {
        (point, channel): told[channel]
        for contact in regal.contacts()
        for point, told in contact["phones"].items()
        for channel in ("sms", "voice")
        if told[channel]["status"] == "Subscribed"
    }
    assert len(subscribed) > 100
    (phone, sms), (other, _) = (
        next((number, told) for (number, one), told in subscribed.items() if one == channel)
        for channel in ("sms", "voice")
    )
    a_day_later = (datetime.fromisoformat(sms["timestamp"].replace(" +", "+")) + timedelta(days=1)).isoformat()
    say(
        tmp_path / "warehouse.db",
        ("lead-1", phone, None, "sms", 0, a_day_later, None, None, "preference_center"),
        ("lead-2", other, None, "voice", 0, None, None, None, "STOP"),
    )
    assert str(run_of_the_day(run_dag, example("03_opt_in_sync"), warehouse + timedelta(hours=1)).state) == "success"
    assert regal.contact(phone=phone)["phones"][phone]["sms"]["status"] == "Unsubscribed"

    again = run_of_the_day(run_dag, contacts, warehouse + timedelta(days=1))

    report = report_of(again, "contacts")
    assert report["acknowledged"] > CUSTOMERS * 0.9, "they are sent, and only their old yes is left out"
    assert report["opt_ins_withheld"] >= 2
    assert regal.contact(phone=phone)["phones"][phone]["sms"]["status"] == "Unsubscribed"
    assert regal.contact(phone=other)["phones"][other]["voice"]["status"] == "Unsubscribed"
    assert "older_opt_in" not in regal.stats()["behaviour_findings"]


def reported(path, *calls):
    """Write calls of Regal's webhooks into their table."""
    columns = "name, phone, email, channel, original_timestamp"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO regal_webhooks ({columns}) VALUES (?, ?, ?, ?, ?)", calls)


def test_a_reply_of_stop_that_regal_reports_is_not_undone_by_a_yes_of_the_tables(
    run_dag, regal, warehouse, tmp_path, regal_ledger
):
    dag, phone = example("05_opt_outs_of_regal"), "+12125550142"
    given = warehouse - timedelta(days=3)
    say(tmp_path / "warehouse.db", ("stop", phone, None, "sms", 1, given.isoformat(), "203.0.113.9", "Yes", "landing"))
    stopped = str(int((warehouse - timedelta(days=2)).timestamp()))
    reported(
        tmp_path / "warehouse.db",
        ("contact.unsubscribed", phone, None, "sms", stopped),
        ("contact.unsubscribed", None, "stop@example.com", "email", stopped),
        ("contact.created", "+12125550143", None, None, stopped),
    )

    run = run_of_the_day(run_dag, dag, warehouse)

    assert str(run.state) == "success"
    report = report_of(run, "opt_outs_of_regal")
    assert (report["read"], report["skips"], report["requests"]) == (2, {"recorded": 2}, 0)
    assert report["opt_outs_owed"] == 0
    assert phone not in addresses(regal), "the older yes is not sent"
    assert report_of(run, "opt_ins")["plan"]["opt_ins"] > 400

    # Whoever replies START to Regal is subscribed again: nothing is sent, and the opt-in counts from then on.
    started = str(int((warehouse - timedelta(days=1)).timestamp()))
    reported(tmp_path / "warehouse.db", ("contact.subscribed", phone, None, "sms", started))
    again = run_of_the_day(run_dag, dag, warehouse + timedelta(hours=1))
    assert report_of(again, "opt_outs_of_regal")["skips"] == {"unchanged": 1, "older": 1, "recorded": 1}
    assert report_of(again, "opt_ins")["requests"] == 0


def test_the_dag_behind_the_button_redelivers_one_delivery(run_dag, regal, regal_ledger):
    from airflow_provider_regal.errors import TooManyFailedRowsError
    from airflow_provider_regal.hooks.regal import RegalHook

    regal.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])
    with pytest.raises(TooManyFailedRowsError) as failed:
        RegalHook("regal_sandbox").deliver(
            [{"user_id": f"u{n}"} for n in range(3)], call="track", event="Lesson Booked", max_refused=None
        )
    regal.set_faults([])
    dag = example("07_redeliver")
    run = run_dag(dag, run_conf={"delivery": failed.value.report.delivery, "status": "both", "reason": "HTTP 400"})
    assert str(run.state) == "success"
    assert len(regal.events(stored=True)) == 3
    nothing = run_dag(dag, run_conf={"delivery": failed.value.report.delivery, "reason": "HTTP 400"})
    assert str(nothing.state) in ("failed", "up_for_retry", "running")
    assert len(regal.events(stored=True)) == 3


@pytest.mark.slow
def test_who_was_synced_is_welcomed_once_and_airflow_queues_it(run_dag, regal, warehouse, airflow_db, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False")
    spec = importlib.util.spec_from_file_location(
        "synced", next(path for path in EXAMPLES if path.stem == "08_when_contacts_are_synced")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    by_hand = run_dag(module.dag)
    assert str(by_hand.state) == "success"
    welcomed = report_of(by_hand, "welcome")["acknowledged"]
    assert welcomed > 0.9 * CUSTOMERS
    assert report_of(run_dag(module.dag), "welcome")["skips"] == {"duplicate": welcomed}

    kind = "dataset" if "airflow.datasets" in type(module.CONTACTS).__module__ else "asset"
    if kind == "dataset":
        for dag in (module.dag, module.contacts_dag):
            dag.sync_to_db()  # as the scheduler of Airflow 2 does
        with closing(sqlite3.connect(airflow_db)) as airflow, airflow:
            airflow.execute("UPDATE dag SET is_paused = 0 WHERE dag_id = 'regal_when_contacts_are_synced'")
    with closing(sqlite3.connect(airflow_db)) as airflow, airflow:
        airflow.execute("UPDATE dag SET is_paused = 0")  # another test may have created it
    synced = run_dag(module.contacts_dag)
    assert str(synced.state) == "success"
    report = report_of(synced, "contacts")
    with closing(sqlite3.connect(airflow_db)) as airflow:
        ((extra,),) = airflow.execute(f"SELECT extra FROM {kind}_event WHERE source_dag_id = 'regal_contacts'")
        queued = airflow.execute(f"SELECT target_dag_id FROM {kind}_dag_run_queue").fetchall()
    counts = json.loads(extra)
    assert {name: counts[name] for name in ("read", "acknowledged", "rejected")} == {
        name: report[name] for name in ("read", "acknowledged", "rejected")
    }
    assert counts["deliveries"] == [report["delivery"]]
    assert ("regal_when_contacts_are_synced",) in queued

    # The scheduler attaches this event to the queued run.
    event = type("Event", (), {"extra": counts})
    context = {"triggering_asset_events": {module.CONTACTS: [event]}}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    assert module.dag.get_task("count_contacts").python_callable() == report["acknowledged"] > 0


@pytest.mark.slow
def test_each_brand_sends_its_own_contacts_with_its_own_connection(run_dag, regal, warehouse, monkeypatch):
    with Sandbox(api_key="north-key") as north, Sandbox(api_key="south-key") as south:
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX_NORTH", north.connection(rate_limit=5_000))
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX_SOUTH", south.connection(rate_limit=5_000))
        run = run_dag(example("09_every_brand"))

        assert str(run.state) == "success"
        sent = [{int(event["body"]["userId"]) for event in brand.events(stored=True)} for brand in (north, south)]
        assert all(len(users) > 0.45 * CUSTOMERS for users in sent)
        assert [{number % 2 for number in users} for users in sent] == [{0}, {1}]
        assert regal.stats()["requests"] == 0


@pytest.mark.slow
def test_a_function_sends_an_event_once_per_customer_and_day(run_dag, regal, warehouse):
    dag = example("10_task_regal")
    run = run_of_the_day(run_dag, dag, warehouse)

    assert str(run.state) == "success"
    assert {event["name"] for event in regal.events()} == {"Busy Day"}
    sent = [event["body"] for event in regal.events(stored=True)]
    assert all(event["properties"]["lessons"] >= 2 for event in sent)
    assert len({event["userId"] for event in sent}) == len(sent) > 20
    again = run_of_the_day(run_dag, dag, warehouse)
    assert report_of(again, "busy_days")["skips"] == {"duplicate": len(sent)}


def test_the_person_on_call_is_alerted_once_the_sync_has_failed(run_dag, regal, warehouse, tmp_path):
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as connection, connection:
        connection.execute("DELETE FROM customers WHERE id >= 1050")
    assert str(run_dag(example("11_alerts")).state) == "failed"

    (alert,) = regal.events(stored=True)
    assert alert["name"] == "Sync Failed"
    assert alert["body"]["userId"] == "on-call"
    assert (alert["body"]["properties"]["dag"], alert["body"]["properties"]["task"]) == ("regal_alerts", "contacts")


def test_the_person_on_call_is_alerted_when_a_run_is_late(regal, regal_ledger):
    trigger = pytest.importorskip("airflow.triggers.callback", reason="Airflow has deadline alerts from 3.1 on")
    dag = example("11_alerts")
    (deadline,) = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline]
    assert deadline.interval == timedelta(hours=1)
    context = {"dag_run": {"dag_id": dag.dag_id, "dag_run_id": "monday"}, "deadline": {}}

    async def run():
        late = trigger.CallbackTrigger(deadline.callback.path, {**deadline.callback.kwargs, "context": context})
        return [event async for event in late.run()]

    for _ in range(2):
        asyncio.run(run())
    (alert,) = regal.events(stored=True)
    assert alert["name"] == "Sync Late"
    assert (alert["body"]["userId"], alert["body"]["properties"]) == ("on-call", {"run": "monday"})
