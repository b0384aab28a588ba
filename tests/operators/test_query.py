"""Queries: one at a time, and nothing that a database quotes in its errors is logged."""

from __future__ import annotations

import json
import sqlite3
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.events.privacy import without_values
from airflow_provider_regal.operators._query import check_interval, open_query
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.sources import BadSourceError
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator


@pytest.mark.parametrize(
    "make",
    [
        lambda sql: SqlToRegalOperator(task_id="t", sql=sql, sql_conn_id="w", call="identify"),
        lambda sql: RegalOptInSyncOperator(task_id="t", sql=sql, sql_conn_id="w"),
    ],
)
def test_a_list_of_queries_is_an_error_when_the_dag_is_written(make):
    with pytest.raises(ValueError, match="sql must be one query as text, not a list"):
        make(["SELECT 1", "SELECT 2"])


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (2, 3, None),
        (3, 3, "has an empty one"),
        (4, 3, "has an empty one"),
        (None, 3, "has none"),
        (2, None, "has none"),
    ],
)
def test_a_data_interval_that_holds_nothing_is_refused_where_the_query_uses_it(start, end, why):
    at = {"data_interval_start": start, "data_interval_end": end}
    context = {name: day and datetime(2026, 11, day, tzinfo=UTC) for name, day in at.items()}
    check_interval(context, "SELECT 1")
    with nullcontext() if why is None else pytest.raises(AirflowFailException, match=why):
        check_interval(context, "SELECT * FROM t WHERE at < '{{ data_interval_end }}'")


def test_an_error_of_the_database_says_which_and_quotes_no_value(tmp_path, monkeypatch):
    path = tmp_path / "w.db"
    sqlite3.connect(path).close()
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    with pytest.raises(RetryLaterError, match=r"The query failed \(OperationalError: .*nowhere") as failed:
        list(open_query("w", "SELECT * FROM nowhere"))
    assert failed.value.__cause__ is None
    assert failed.value.__context__ is None
    with pytest.raises(RetryLaterError) as failed:
        list(open_query("w", "SELECT json('anne smith 2125550100 {')"))
    assert "2125550100" not in str(failed.value)


def test_a_database_that_cannot_be_reached_is_retried_and_says_why_without_the_password(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_W",
        json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "none" / "w.db"), "password": "s3cret"}),
    )
    with pytest.raises(RetryLaterError, match=r"connection 'w' can't be opened \(OperationalError: unable to open"):
        open_query("w", "SELECT 1")

    def refuse(self):
        raise ConnectionError("no route to anne:s3cret@db")

    monkeypatch.setattr("airflow.providers.sqlite.hooks.sqlite.SqliteHook.get_conn", refuse)
    with pytest.raises(RetryLaterError, match=r"\(ConnectionError: no route to .*\). Nothing was sent") as failed:
        open_query("w", "SELECT 1")
    assert "s3cret" not in str(failed.value)


def test_a_connection_of_another_kind_fails_for_good(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps({"conn_type": "regal"}))
    with pytest.raises(BadSourceError, match="'w' is not one of a database: RegalHook"):
        open_query("w", "SELECT 1")


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        ('invalid input syntax for type integer: "anne"\nLINE 1: SELECT', "invalid input syntax for type integer: ***"),
        ('column "phone_no" does not exist\nLINE 1', "column phone_no does not exist"),
        ("(1292, \"Truncated incorrect DOUBLE value: 'O'Brien'\")", "(1292, ***)"),
        ("Duplicate entry 'anne'", "Duplicate entry ***"),
        ("cannot cast 'anne", "cannot cast ***"),
        ("value too long: ines@example.com", "value too long: ***"),
        ("no such table: nowhere", "no such table: nowhere"),
    ],
)
def test_names_stay_in_a_databases_error_and_values_do_not(message, logged):
    assert without_values(message) == logged
