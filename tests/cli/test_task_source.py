"""Rows of a task, of a query and of a file, opened outside a task; DAG files are processed by a real Airflow."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import textwrap
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from airflow_provider_regal.cli.opening import CommandError
from airflow_provider_regal.cli.task_source import of_file, of_query, of_task
from airflow_provider_regal.sources.marks import EVENT_MARK, ROW_MARK, columns_of
from scripts.warehouse import make_warehouse
from tests.dags.test_examples import load

EXAMPLES = Path(__file__).parents[2] / "dags"


@pytest.fixture
def dags(airflow_db):
    """Airflow's folder of DAG files; it is empty again in the end."""
    folder = Path(os.environ["AIRFLOW_HOME"]) / "dags"
    yield folder
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()


@pytest.fixture
def examples(dags, tmp_path, monkeypatch):
    """The example DAGs, over the demo's warehouse."""
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, dags)
    path = make_warehouse(tmp_path / "warehouse.db", datetime.now(UTC))
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))


@pytest.fixture
def dag_file(dags):
    """Write a DAG file; the DAG is ``made``."""

    def write(body, name="made.py"):
        head = """\
            from datetime import datetime, timezone
            from airflow import DAG
            from airflow.decorators import task
            from airflow_provider_regal.decorators.regal import regal_task
            from airflow_provider_regal.operators.rows import RegalRowsOperator
            from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
            from airflow_provider_regal.operators.track import RegalTrackOperator
            from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator
            from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
            """
        (dags / name).write_text(textwrap.dedent(head) + textwrap.dedent(body))

    return write


def rows_of(source, most=3):
    return [columns_of(row) for row in islice(source.open(), most)]


def test_a_task_of_a_query_gives_its_rows_its_settings_and_its_connections(examples):
    source = of_task("regal_contacts_and_events", "contacts")

    assert source.name.startswith("the task regal_contacts_and_events.contacts, run try__")
    assert (source.conn_id, source.ledger_conn_id) == ("regal_sandbox", None)
    assert source.settings.mapping.call == "identify"
    assert source.settings.max_rejected == 0.05
    first, *_ = rows_of(source)
    assert {"user_id", "phone", "email", "sms_opt_in"} <= first.keys()


def test_templates_are_rendered_for_the_interval_of_a_run_by_hand(examples):
    source = of_task("regal_contacts_and_events", "events", logical_date=datetime.now(UTC))
    assert len(rows_of(source)) == 3
    empty = of_task("regal_contacts_and_events", "events", logical_date=datetime(2021, 5, 5, tzinfo=UTC))
    assert rows_of(empty) == []


def test_every_kind_of_the_examples_can_be_opened(examples):
    events = of_task("regal_first_events", "loan_application_approved")
    (row,) = events.open()
    assert row[EVENT_MARK] == "track"
    assert row[ROW_MARK]["event"] == "Loan Application Approved"
    assert row[ROW_MARK]["properties"]["amount"] == 30000
    assert row[ROW_MARK]["timestamp"].startswith("20")  # {{ dag_run.start_date }}
    assert of_task("regal_opt_in_sync", "opt_ins").settings.sync is not None
    assert rows_of(of_task("regal_opt_in_sync", "opt_ins"))[0].keys() >= {"phone", "channel", "subscribed"}
    assert rows_of(of_task("regal_segment_archive", "archive")) == []


def test_a_decorated_function_is_called_with_its_context_and_only_as_far_as_it_is_read(dag_file):
    dag_file("""
        with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
            @regal_task(call="track", event="Lesson Booked", rate=7)
            def lessons(subject, ds=None):
                yield {"user_id": "anne", "subject": subject, "day": ds}
                raise RuntimeError("read too far")
            lessons("Piano")
    """)
    source = of_task("made", "lessons", logical_date=datetime(2026, 3, 4, 5, tzinfo=UTC))
    assert source.settings.rate == 7
    assert rows_of(source, 1) == [{"user_id": "anne", "subject": "Piano", "day": "2026-03-04"}]


def test_one_instance_of_a_mapped_task(dag_file, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"user_id": name}) + "\n")
    dag_file(f"""
        with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
            FileToRegalOperator.partial(task_id="files", call="track", event="X", rate=9).expand(
                path=["{tmp_path}/a.jsonl", "{tmp_path}/{{{{ 'b' }}}}.jsonl"])
    """)
    source = of_task("made", "files", map_index=1)
    assert (rows_of(source), source.settings.rate) == ([{"user_id": "b"}], 9)
    with pytest.raises(CommandError, match="is a mapped task: name one of its instances with --map-index"):
        of_task("made", "files")
    with pytest.raises(CommandError, match="has the instances 0 to 1, and no 2"):
        of_task("made", "files", map_index=2)


def test_the_query_of_a_file_is_loaded_and_rendered(dag_file, dags, tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        connection.execute("CREATE TABLE t (user_id TEXT, day TEXT)")
        connection.execute("INSERT INTO t VALUES ('anne', '2026-03-04'), ('bob', '2026-03-05')")
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "w.db")}))
    (dags / "q.sql").write_text("SELECT user_id FROM t WHERE day = '{{ ds }}' AND '{{ params.plan }}' = 'gold'")
    dag_file("""
        with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), params={"plan": "gold"}):
            SqlToRegalOperator(task_id="q", sql="q.sql", sql_conn_id="w", call="track", event="X")
    """)
    assert rows_of(of_task("made", "q", logical_date=datetime(2026, 3, 4, tzinfo=UTC))) == [{"user_id": "anne"}]


def test_what_an_upstream_task_returned_is_read_of_a_run_that_has_it(dag_file, dags, run_dag, regal):
    dag_file("""
        with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
            @task
            def extract():
                return [{"user_id": "anne", "amount": 12.5}, {"user_id": "bob", "amount": 3.0}]
            RegalRowsOperator(task_id="load", rows=extract(), call="track", event="X", dry_run=True)
    """)
    with pytest.raises(CommandError, match="load needs the output of the task 'extract', which only a run has"):
        rows_of(of_task("made", "load"))
    with pytest.raises(CommandError, match="has no run 'manual__1' of made"):
        of_task("made", "load", run_id="manual__1")
    run = run_dag(load(dags / "made.py"))
    assert str(run.state) == "success"
    assert rows_of(of_task("made", "load", run_id=run.run_id)) == [
        {"user_id": "anne", "amount": 12.5},
        {"user_id": "bob", "amount": 3.0},
    ]


def test_what_can_not_be_found_is_said_with_what_there_is(examples, dag_file):
    with pytest.raises(CommandError, match=r"There is no DAG 'nope' in .*dags"):
        of_task("nope", "x")
    with pytest.raises(CommandError, match=r"has no task 'x'\. Tasks of it with rows for Regal: contacts, events"):
        of_task("regal_contacts_and_events", "x")
    dag_file("import nothing_of_this_name", "broken.py")
    with pytest.raises(CommandError, match=r"broken.py can't be imported: .*nothing_of_this_name"):
        of_task("nope", "x")
    dag_file("""
        with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
            @task
            def other(): ...
            other()
            RegalRedeliverOperator(task_id="again", delivery=1)
            RegalTrackOperator(task_id="one", event="X", user_id="{{ nothing.of_it }}")
    """)
    with pytest.raises(CommandError, match=r"which has no rows for Regal\. Tasks of it with rows for Regal: one"):
        of_task("made", "other")
    with pytest.raises(CommandError, match="airflow regal redeliver DELIVERY --dry-run"):
        of_task("made", "again")
    with pytest.raises(CommandError, match=r"templates of made\.one can't be rendered: UndefinedError: 'nothing' is"):
        of_task("made", "one")
    with pytest.raises(CommandError, match="not mapped"):
        of_task("made", "one", map_index=0)


def test_an_interval_without_length_is_refused_as_the_task_refuses_it(dag_file):
    dag_file("""
        with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
            SqlToRegalOperator(task_id="q", sql="SELECT '{{ data_interval_start }}'", sql_conn_id="w", call="identify")
    """)
    with pytest.raises(CommandError, match="The query uses the data interval, but this run has"):
        of_task("made", "q")


def test_a_query_without_a_dag(examples):
    source = of_query(
        "SELECT id AS user_id, plan FROM customers ORDER BY id",
        "regal_warehouse",
        call="track",
        event="Upgraded",
        mapping={"plan": "properties.tier"},
    )
    assert source.name == "the query on regal_warehouse"
    assert source.settings.mapping.event == "Upgraded"
    assert rows_of(source, 1)[0].keys() == {"user_id", "plan"}
    with pytest.raises(ValueError, match="call"):
        of_query("SELECT 1", "regal_warehouse", call="trackk")


def test_a_file_is_read_by_what_its_name_ends_in(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("user_id,plan\nanne,gold\n")
    (tmp_path / "a.jsonl").write_text('{"user_id": "bob"}\n')
    monkeypatch.chdir(tmp_path)
    assert rows_of(of_file("a.csv", call="identify")) == [{"user_id": "anne", "plan": "gold"}]
    assert rows_of(of_file(str(tmp_path / "a.jsonl"), call="identify")) == [{"user_id": "bob"}]
    with pytest.raises(CommandError, match=r"The source can't be read: There is no file .*b\.jsonl"):
        rows_of(of_file("b.jsonl", call="identify"))
