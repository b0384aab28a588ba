"""A PostgreSQL table to Regal, in a real Airflow, from a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_regal.operators._query import read_query
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

pytestmark = pytest.mark.services
PROJECT = Path(__file__).parents[2]
ROWS = 300_000
DATABASE = {"host": "127.0.0.1", "port": 5432, "user": "postgres", "dbname": "test"}
READING = Path(__file__).with_name("reading.py")


def connect(driver="psycopg", **more):
    module = pytest.importorskip(driver)
    return closing(module.connect(**DATABASE, **more))


def ask(sql):
    with connect(autocommit=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module", autouse=True)
def database():
    """Make the database where it is missing, as on a machine that has never seen the project."""
    import psycopg

    with psycopg.connect(**{**DATABASE, "dbname": "postgres"}, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'test'").fetchall():
            connection.execute("CREATE DATABASE test")


@pytest.fixture
def warehouse(monkeypatch, regal_ledger):
    """The Airflow connection to the database ``test``, and an empty ledger."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", warehouse_connection())


def warehouse_connection(**extra):
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": DATABASE["host"],
            "port": DATABASE["port"],
            "login": DATABASE["user"],
            "schema": DATABASE["dbname"],
            "extra": {"application_name": "regal_test", **extra},
        }
    )


def run_task(run_dag, name, *, retries=0, **options):
    with DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
    ) as dag:
        options = {"call": "track", "event": "Seen", "sql_conn_id": "warehouse", **options}
        SqlToRegalOperator(task_id="deliver", **options)
    run = run_dag(dag)
    (ti,) = run.get_task_instances()
    return ti, ti.xcom_pull(task_ids="deliver", key="regal_report")


TYPES = """
SELECT 'anne' AS user_id, 'seen-1' AS message_id, now() AS timestamp,
    12.50::numeric AS price, 3::numeric AS whole, 7::bigint AS number, 1.5::float8 AS share, true AS active,
    '2026-03-02 14:05:09.75+02'::timestamptz AS zoned, '2026-03-02 14:05:09'::timestamp AS naive,
    '2026-03-02'::date AS day, '6f1c2d3e-4a5b-4c6d-8e7f-001122334455'::uuid AS ticket,
    '{"plan": {"seats": [1, 2.5, null]}}'::jsonb AS nested, '{"a": 1}'::json AS plain_json,
    ARRAY['a', 'b'] AS tags, ARRAY[[1, 2], [3, 4]] AS grid, ARRAY[1.50, 2]::numeric[] AS prices,
    NULL::text AS nothing, 'NaN'::float8 AS nan, 'Infinity'::numeric AS infinity, 'Zoë 🎉' AS name
"""


def test_every_type_arrives_as_it_should(run_dag, regal, warehouse):
    _, report = run_task(run_dag, "pg_types", sql=TYPES, timezone="America/New_York")
    assert report["acknowledged"] == 1
    (event,) = regal.events()
    assert event["body"]["properties"] == {
        "price": 12.5,
        "whole": 3,
        "number": 7,
        "share": 1.5,
        "active": True,
        "zoned": "2026-03-02 12:05:09 +00:00",
        "naive": "2026-03-02 19:05:09 +00:00",
        "day": "2026-03-02",
        "ticket": "6f1c2d3e-4a5b-4c6d-8e7f-001122334455",
        "nested": {"plan": {"seats": [1, 2.5, None]}},
        "plain_json": {"a": 1},
        "tags": ["a", "b"],
        "grid": [[1, 2], [3, 4]],
        "prices": [1.5, 2],
        "name": "Zoë 🎉",
    }
    assert regal.stats()["contract_findings"] == {}


def test_nulls_are_sent_when_asked_for_and_bytes_are_rejected_by_name(run_dag, regal, warehouse, capfd):
    _, report = run_task(
        run_dag, "pg_nulls", send_nulls=True, max_rejected=1,
        sql="SELECT 'a' AS user_id, NULL AS nothing, NULL::bytea AS raw UNION ALL SELECT 'b', NULL, '\\x00ff'::bytea",
    )  # fmt: skip
    assert (report["acknowledged"], report["rejected"]) == (1, 1)
    assert regal.events()[0]["body"]["properties"] == {"nothing": None, "raw": None}
    assert any("raw: bytes" in reason for reason in report["reasons"])


@pytest.mark.parametrize("cursor", ["dictcursor", "namedtuplecursor"])
def test_a_connection_that_asks_for_another_kind_of_row_gives_the_same(cursor, run_dag, regal, warehouse, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", warehouse_connection(cursor=cursor))
    _, report = run_task(run_dag, f"pg_{cursor}", sql="SELECT 'u' || n AS user_id, n FROM generate_series(1, 3) n")
    assert report["acknowledged"] == 3
    assert {(event["body"]["userId"], event["body"]["properties"]["n"]) for event in regal.events()} == {
        ("u1", 1), ("u2", 2), ("u3", 3),
    }  # fmt: skip


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_result_stays_on_the_server_while_it_is_read(driver):
    with connect(driver) as connection:
        rows = read_query(connection, "SELECT n AS user_id FROM generate_series(1, %(last)s) n", {"last": ROWS})
        assert next(rows) == {"user_id": 1}
        looking = connection.cursor()
        looking.execute("SELECT name, statement FROM pg_cursors")
        ((name, statement),) = looking.fetchall()
        assert name == "airflow_provider_regal"
        assert "generate_series" in statement
        rows.close()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_dictionary_rows_of_a_driver_are_read_by_name(driver):
    if driver == "psycopg":
        from psycopg.rows import dict_row

        more = {"row_factory": dict_row}
    else:
        from psycopg2.extras import RealDictCursor

        more = {"cursor_factory": RealDictCursor}
    with connect(driver, **more) as connection:
        assert list(read_query(connection, "SELECT 1 AS a, 'x' AS b")) == [{"a": 1, "b": "x"}]


def test_a_big_result_is_read_in_flat_memory(tmp_path, record_property):
    """In a process of its own each: reading 300,000 rows of about 150 bytes against 3,000."""

    def peak_mb(rows):
        done = subprocess.run(
            [sys.executable, str(READING), str(rows), str(tmp_path / str(rows))],
            cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120,
            env={**os.environ, "AIRFLOW_CONN_WAREHOUSE": warehouse_connection(), "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["rows"] == rows
        return told["peak_kb"] / 1024, told["before_kb"] / 1024

    (small, small_before), (big, big_before) = peak_mb(3_000), peak_mb(ROWS)
    grown = (big - big_before) - (small - small_before)
    for name, value in {"peak_mb_3000": small, "peak_mb_300000": big, "grown_by_mb": grown}.items():
        record_property(name, round(value, 1))
    assert grown < 20


SLOWLY = """
SELECT 'u' || n AS user_id, n, CASE WHEN n % 500 = 0 THEN pg_sleep(0.1)::text END AS slept
FROM generate_series(1, 6000) n
"""


class Terminator(threading.Thread):
    """Ends the backend that a task reads from, once, while it reads."""

    def __init__(self, regal):
        super().__init__()
        self._regal = regal
        self.requests_then = None

    def run(self):
        for _ in range(3_000):
            ended = ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'regal_test' AND query LIKE 'FETCH FORWARD 1000 %'"
            )
            if ended:
                self.requests_then = self._regal.stats()["requests"]
                return
            time.sleep(0.01)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_connection_lost_while_reading_sends_nothing_and_the_retry_sends_everything_once(
    retries, run_dag, regal, warehouse, capfd
):
    terminator = Terminator(regal)
    terminator.start()
    ti, report = run_task(run_dag, f"pg_gone_{retries}", retries=retries, sql=SLOWLY, rate=100_000)
    terminator.join()

    assert terminator.requests_then == 0
    assert "terminating connection due to administrator command" in "".join(capfd.readouterr())
    if not retries:
        assert str(ti.state) == "failed"
        assert regal.stats()["requests"] == 0
        assert (report["acknowledged"], report["unknown"]) == (0, 0)
        return
    assert (str(ti.state), ti.try_number) == ("success", 2), "the failure was one that Airflow retries"
    assert report["read"] == report["acknowledged"] == 6_000
    assert Counter(event["body"]["userId"] for event in regal.events()) == {f"u{n}": 1 for n in range(1, 6_001)}
