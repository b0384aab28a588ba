"""OpenLineage: what Airflow's own provider writes to a file when our tasks run."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator
from tests.operators.ways import context
from tests.people import SECRETS

pytestmark = pytest.mark.slow  # skips without the dependency group
pytest.importorskip("airflow.providers.openlineage", reason="needs the dependency group lineage")
SQL = f"SELECT c.id AS user_id FROM customers c JOIN shop.orders o ON o.id = c.id WHERE c.id <> '{SECRETS['id']}'"

DAG_FILE = """
from datetime import UTC, datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

with DAG("told", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    good = SqlToRegalOperator(
        task_id="contacts", sql="SELECT id AS user_id, phone FROM customers", sql_conn_id="warehouse", call="identify",
    )
    bad = FileToRegalOperator(
        task_id="events", path="{file}", format="jsonl", call="track", event="Lesson Booked"
    )
"""


def names(datasets):
    return [(one.namespace, one.name) for one in datasets]


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    path = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE customers (id, phone)")
        connection.execute("INSERT INTO customers VALUES (?, ?)", (SECRETS["id"], SECRETS["phone"]))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


def test_the_tables_of_a_query_are_inputs_and_its_literals_stay_here(regal, warehouse):
    told = SqlToRegalOperator(
        task_id="t", sql=SQL, sql_conn_id="warehouse", call="identify"
    ).get_openlineage_facets_on_start()
    assert names(told.inputs) == [(f"sqlite://{warehouse}", "customers"), (f"sqlite://{warehouse}", "shop.orders")]
    assert names(told.outputs) == [("regal://regal_default", "contacts")]
    assert SECRETS["id"] not in str(told)


@pytest.mark.services
def test_a_database_is_named_as_its_own_provider_names_it(regal, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://postgres@127.0.0.1:5432/postgres")
    told = SqlToRegalOperator(
        task_id="t", sql=SQL, sql_conn_id="warehouse", call="identify"
    ).get_openlineage_facets_on_start()
    assert names(told.inputs) == [
        ("postgres://127.0.0.1:5432", "postgres.public.customers"),
        ("postgres://127.0.0.1:5432", "postgres.shop.orders"),
    ]


@pytest.mark.parametrize(("conn_id", "sql"), [("nowhere", SQL), ("warehouse", "not SQL at all")])
def test_a_query_that_cannot_be_understood_has_no_inputs(regal, warehouse, conn_id, sql):
    told = SqlToRegalOperator(task_id="t", sql=sql, sql_conn_id=conn_id, call="track").get_openlineage_facets_on_start()
    assert told.inputs == []
    assert names(told.outputs) == [("regal://regal_default", "events")]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/data/contacts.jsonl", ("file", "/data/contacts.jsonl")),
        ("file:///data/contacts.jsonl", ("file", "/data/contacts.jsonl")),
        ("/data/2026-*/x.jsonl", ("file", "/data")),
        ("s3://aws_default@bucket/contacts/a.csv", ("s3://bucket", "contacts/a.csv")),
        ("gs://bucket/*.csv", ("gs://bucket", "/")),
    ],
)
def test_files_are_named_as_openlineage_names_them(regal, path, named):
    for operator in (
        FileToRegalOperator(task_id="t", path=path, format="csv", call="track", event="Late"),
        RegalOptInSyncOperator(task_id="t", path=path, format="csv", initial="send"),
    ):
        assert names(operator.get_openlineage_facets_on_start().inputs) == [named]


@pytest.mark.parametrize(
    ("operator", "outputs"),
    [
        (lambda: RegalRowsOperator(task_id="t", rows=[], call="page"), ["events/pageview"]),
        (lambda: RegalRowsOperator(task_id="t", rows=[], call="track"), ["events"]),
        (lambda: FileToRegalOperator(task_id="t", path="/x", format="segment"), ["contacts", "events"]),
        (lambda: RegalOptInSyncOperator(task_id="t", rows=[], as_event="Opt In"), ["contacts", "events/Opt%20In"]),
    ],
)
def test_outputs_are_what_the_options_say(regal, monkeypatch, operator, outputs):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(account="shop"))
    told = operator().get_openlineage_facets_on_start()
    assert names(told.outputs) == [("regal://shop", name) for name in outputs]


def test_a_redelivery_tells_nothing(regal):
    operator = RegalRedeliverOperator(task_id="t", delivery=1)
    assert operator.get_openlineage_facets_on_start() is operator.get_openlineage_facets_on_complete(None) is None


def test_the_counts_come_when_it_has_ended(regal):
    operator = RegalRowsOperator(task_id="t", rows=[{"phone": "+12125550101"}, {}], call="identify", max_rejected=1)
    assert operator.get_openlineage_facets_on_start().run_facets == {}
    operator.execute(context())
    told = operator.get_openlineage_facets_on_complete(None)
    facet = told.run_facets["regal_delivery"]
    assert (facet.delivery, facet.status, facet.read, facet.acknowledged, facet.rejected) == (1, "finished", 2, 1, 1)
    assert told.outputs[0].outputFacets["outputStatistics"].rowCount == 1


def test_airflows_provider_writes_it_and_no_value(regal, warehouse, tmp_path, airflow_db, regal_ledger):
    """The real provider, as a plugin of a real Airflow, with the transport that writes to a file."""
    rows, file, events = tmp_path / "events.jsonl", tmp_path / "told.py", tmp_path / "openlineage.jsonl"
    rows.write_text(
        json.dumps({"user_id": SECRETS["id"]}) + "\n" + json.dumps({"email": SECRETS["email"] + " x"}) + "\n"
    )
    file.write_text(DAG_FILE.replace("{file}", str(rows)))
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    env = {
        **os.environ,
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
    }
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import os; from told import dag\n"
        "from airflow.dag_processing.bundles.manager import DagBundlesManager\n"
        "from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db\n"
        "DagBundlesManager().sync_bundles_to_db(); bag = DagBag(dag_folder=os.devnull); bag.bag_dag(dag)\n"
        "sync_bag_to_db(bag, 'dags-folder', None); print(dag.test().state)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert events.exists(), ran.stdout[-3_000:] + ran.stderr[-3_000:]
    told = [json.loads(line) for line in events.read_text().splitlines()]
    ended = {event["job"]["name"]: event for event in told if event["eventType"] in ("COMPLETE", "FAIL")}

    contacts = ended["told.contacts"]
    assert contacts["eventType"] == "COMPLETE"
    assert [one["name"] for one in contacts["inputs"]] == ["customers"]
    (output,) = contacts["outputs"]
    assert (output["namespace"], output["name"]) == ("regal://regal_default", "contacts")
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 1
    assert contacts["run"]["facets"]["regal_delivery"]["acknowledged"] == 1

    failed = ended["told.events"]
    assert failed["eventType"] == "FAIL"
    assert [(one["namespace"], one["name"]) for one in failed["inputs"]] == [("file", str(rows))]
    assert [one["name"] for one in failed["outputs"]] == ["events/Lesson%20Booked"]
    assert failed["run"]["facets"]["regal_delivery"]["rejected"] == 1
    started = [event for event in told if event["eventType"] == "START" and event["job"]["name"] == "told.contacts"]
    assert [one["name"] for one in started[0]["outputs"]] == ["contacts"]
    assert not [secret for secret in SECRETS.values() if secret in events.read_text()]
