"""A query's rows to Regal, in a real Airflow, from a real database."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec

import airflow
import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator
from tests.ledger_file import dead_letters, table

AIRFLOW_2 = airflow.__version__.startswith("2.")


def a_dag(name, *, retries=0, **kwargs):
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
        **kwargs,
    )


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    path = tmp_path / "warehouse.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE customers (id INTEGER, phone TEXT, first_name TEXT, plan TEXT, sms INTEGER, at TEXT)"
        )
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)",
            [(n, f"(212) 555-{n:04d}", f"Name{n}", "gold", n % 2, "2026-01-02 03:04:05") for n in range(100, 150)],
        )
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


CONTACTS = """
SELECT id AS user_id, phone, first_name, plan, sms AS sms_opt_in, at AS sms_opt_in_at, '203.0.113.9' AS sms_opt_in_ip
FROM customers WHERE id >= :low ORDER BY id
"""


def report_of(run, key="regal_report"):
    (ti,) = run.get_task_instances()
    return ti.xcom_pull(task_ids=ti.task_id, key=key)


def test_the_rows_of_a_query_become_contacts_with_consent(run_dag, regal, warehouse):
    with a_dag("contacts") as dag:
        SqlToRegalOperator(
            task_id="contacts",
            sql=CONTACTS,
            sql_conn_id="warehouse",
            call="identify",
            parameters={"low": "{{ 100 + 10 }}"},
        )

    run = run_dag(dag)

    assert str(run.state) == "success"
    report = report_of(run)
    assert report == report_of(run, "return_value")
    assert (report["read"], report["acknowledged"], report["status"]) == (40, 40, "finished")
    assert regal.stats()["contract_findings"] == {}
    subscribed = regal.contact(user_id="111")
    assert subscribed["traits"] == {"firstName": "Name111", "plan": "gold"}
    assert subscribed["phones"]["+12125550111"]["sms"]["status"] == "Subscribed"
    assert regal.contact(user_id="110")["phones"]["+12125550110"]["sms"]["status"] == "Unsubscribed"


def test_a_failed_delivery_pushes_its_report_and_says_what_to_do(
    run_dag, regal, regal_ledger, warehouse, capfd, caplog
):
    with a_dag("failing", retries=3) as dag:
        SqlToRegalOperator(
            task_id="events",
            sql="SELECT CASE WHEN id = 103 THEN NULL ELSE id END AS user_id, plan FROM customers ORDER BY id",
            sql_conn_id="warehouse",
            call="track",
            event="Plan Seen",
        )

    run = run_dag(dag)

    assert str(run.state) == "failed"
    report = report_of(run)
    assert (report["acknowledged"], report["rejected"]) == (49, 1)
    assert regal.stats()["requests"] == 49
    logged = "".join(capfd.readouterr())
    assert "1 rejected, more than max_rejected=0" in logged
    delivery = report["delivery"]
    (error,) = (one.message for one in caplog.records if one.levelname == "ERROR" and one.name.endswith("_failing"))
    assert error == (
        "Of 50 rows, 1 rejected, more than max_rejected=0. Top reasons:\n"
        "       1 x user_id, phone, email: at least one is needed, so that Regal knows the person\n"
        f"List them with: airflow regal outcomes {delivery} --status rejected --status unknown\n"
        "All 50 rows have an outcome. Next:\n"
        "  1. Read the reasons; each row is listed with its place in the source.\n"
        "  2. If an option is wrong (mapping, types), fix it and clear the task: rejected rows are tried again as they "
        "were read, and no other row is.\n"
        "  3. If the data is wrong, fix the source; the next run reads it. This run's clear does not: to send these "
        "rows corrected, redeliver them with a fix.\n"
        "Documentation: docs/errors.md#toomanyfailedrowserror"
    )
    assert logged.count("Traceback (most recent call last)") <= (1 if find_spec("airflow.sdk") else 2)
    (letter,) = dead_letters(regal_ledger, delivery)
    assert (letter["position"], letter["status"], letter["payload"]) == (
        4,
        "rejected",
        {"user_id": None, "plan": "gold"},
    )


def test_a_failed_delivery_of_contacts_says_what_a_clear_does_with_contacts(run_dag, regal, warehouse, capfd):
    with a_dag("failing_contacts") as dag:
        SqlToRegalOperator(
            task_id="contacts",
            sql="SELECT id AS user_id, CASE WHEN id = 103 THEN '12' ELSE phone END AS phone FROM customers",
            sql_conn_id="warehouse",
            call="identify",
        )

    run = run_dag(dag)

    assert str(run.state) == "failed"
    logged = "".join(capfd.readouterr())
    assert "airflow regal redeliver" not in logged, "a redelivery sends rows as they were read: as wrong as they are"
    assert "3. Clear the task: it reads the source again and sends what is not known to be at Regal" in logged


def test_an_outage_is_resumed_by_airflows_retry_without_sending_anything_twice(run_dag, regal, warehouse):
    regal.set_faults([{"on": {"from": 21, "to": 23}, "do": {"status": 503, "retry_after": 90}}])
    with a_dag("resumed", retries=6) as dag:
        SqlToRegalOperator(
            task_id="events",
            sql="SELECT id AS user_id, plan FROM customers ORDER BY id",
            sql_conn_id="warehouse",
            call="track",
            event="Plan Seen",
            outage_patience=30,
            max_connections=8,
        )

    run = run_dag(dag)

    assert str(run.state) == "success"
    assert report_of(run)["acknowledged"] == 50
    stored = [event["body"]["userId"] for event in regal.events() if event["stored"]]
    assert len(stored) == len(set(stored)) == 50


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT id AS user_id, plan, plan FROM customers", "two columns named 'plan'"),
        ("CREATE TABLE x (y INTEGER)", "returns no rows"),
    ],
)
def test_a_query_that_cannot_be_used_says_why(sql, complaint, run_dag, regal, warehouse, capfd):
    with a_dag("unusable_" + complaint[:3]) as dag:
        SqlToRegalOperator(task_id="events", sql=sql, sql_conn_id="warehouse", call="track", event="X")
    assert str(run_dag(dag).state) == "failed"
    assert complaint in "".join(capfd.readouterr())
    assert regal.stats()["requests"] == 0


def test_a_dry_run_maps_everything_and_sends_nothing(run_dag, regal, warehouse, capfd, caplog):
    with a_dag("dry") as dag:
        SqlToRegalOperator(task_id="contacts", sql="SELECT id AS user_id, phone FROM customers",
                           sql_conn_id="warehouse", call="identify", dry_run=True, limit=30)  # fmt: skip
    run = run_dag(dag)
    assert report_of(run)["status"] == "dry_run"
    assert report_of(run)["read"] == 30
    assert regal.stats()["requests"] == 0
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "30 of 30 rows would be sent" in logged
    assert "2125550" not in logged


def test_no_row_reaches_airflows_database_or_the_log(run_dag, regal, regal_ledger, warehouse, everything_stored, capfd):
    with a_dag("private") as dag:
        SqlToRegalOperator(
            task_id="contacts", sql=CONTACTS, sql_conn_id="warehouse", call="identify", parameters={"low": 0}
        )
    run_dag(dag)
    everything = everything_stored() + "".join(capfd.readouterr())
    number = 100 + 23  # assembled here, since Airflow stores the source code of DAG files
    for secret in (f"5550{number}", f"555-0{number}", f"Name{number}", regal.api_key):
        assert secret not in everything
    assert f"+12125550{number}" in {line["identifier"] for line in table(regal_ledger, "regal_consents")}
    assert regal.api_key.encode() not in regal_ledger.read_bytes()


INTERVAL = "SELECT id AS user_id FROM customers WHERE at >= '{{ data_interval_start }}'"


def test_a_query_over_a_missing_or_empty_interval_fails_with_the_explanation(run_dag, regal, warehouse, capfd):
    with a_dag("no_interval", retries=2) as dag:
        SqlToRegalOperator(task_id="events", sql=INTERVAL, sql_conn_id="warehouse", call="track", event="X")
    run = run_dag(dag, logical_date=None) if not AIRFLOW_2 else run_dag(dag)
    assert str(run.state) == "failed"
    assert "CronDataIntervalTimetable" in "".join(capfd.readouterr())
    assert regal.stats()["requests"] == 0
