"""Rows from real drivers: psycopg, psycopg2, MariaDB, SQLite - each value with its right type."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime
from importlib import import_module

import pytest
from sqlalchemy.engine import make_url

from airflow_provider_regal.events import Reading, to_payload
from airflow_provider_regal.events.options import RowMapping
from airflow_provider_regal.events.rows.mapping import RowMapper
from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.operators._query import read_query
from tests.databases import MARIADB, POSTGRES

pytestmark = pytest.mark.services
PHONE = "+12125550100"


def to_postgres(driver):
    url = make_url(POSTGRES)
    return import_module(driver).connect(host=url.host, port=url.port, user=url.username, dbname=url.database)


def to_mariadb():
    import pymysql

    url = make_url(MARIADB)
    return pymysql.connect(host=url.host, port=url.port, user=url.username, database=url.database)


def bodies(connection, sql, **how):
    """What Regal gets of the rows, which have passed through the form of the snapshot."""
    mapper = RowMapper(RowMapping("identify", **how), Reading())
    rows = (decode_row(encode_row(row)) for row in read_query(connection, sql))
    return [to_payload(mapper.event(row), now=datetime(2026, 11, 23, tzinfo=UTC)).body for row in rows]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_types_of_postgresql(driver):
    (body,) = bodies(
        to_postgres(driver),
        f"""
        SELECT 7E2::numeric AS user_id, '{PHONE}'::char(20) AS phone, 1::numeric(3, 1) AS sms_opt_in,
               '2026-03-02 14:05:09+00'::timestamptz AS sms_opt_in_at, '203.0.113.9/32'::inet AS sms_opt_in_ip,
               '203.0.113.9'::inet AS last_ip, 19.90::numeric(10, 2) AS price, 1790.0::numeric AS points,
               ARRAY[38, NULL, 42] AS sizes, '{{"a": [1]}}'::jsonb AS prefs, DATE '2026-03-02' AS day,
               TIMESTAMP '2026-03-02 14:05:09' AS seen, 'NaN'::float8 AS nothing,
               '00000000-0000-0000-0000-000000000005'::uuid AS device
        """,
    )
    assert body["userId"] == "700"
    traits = body["traits"]
    assert traits.pop("phones")[PHONE]["smsOptIn"] == {
        "subscribed": True,
        "timestamp": "2026-03-02 14:05:09 +00:00",
        "ip": "203.0.113.9",
    }
    assert traits == {
        "last_ip": "203.0.113.9",
        "price": 19.9,
        "points": 1790,
        "sizes": [38, None, 42],
        "prefs": {"a": [1]},
        "day": "2026-03-02",
        "seen": "2026-03-02 14:05:09 +00:00",
        "device": "00000000-0000-0000-0000-000000000005",
    }


@pytest.mark.parametrize("no", ["0::numeric", "0.0::float8", "false", "'no'::char(10)", "0::smallint", "'0'::text"])
def test_a_no_of_postgresql_is_one_in_every_type(no):
    (body,) = bodies(to_postgres("psycopg"), f"SELECT '{PHONE}' AS phone, {no} AS sms_opt_in")
    assert body["traits"]["phones"][PHONE]["smsOptIn"] == {"subscribed": False}


@pytest.mark.parametrize("no", ["CAST(0 AS DECIMAL(3,1))", "b'0'", "CAST(0 AS DOUBLE)", "FALSE", "'STOP'"])
def test_a_no_of_mariadb_is_one_in_every_type(no):
    (body,) = bodies(to_mariadb(), f"SELECT '{PHONE}' AS phone, {no} AS sms_opt_in")
    assert body["traits"]["phones"][PHONE]["smsOptIn"] == {"subscribed": False}


def test_types_of_mariadb():
    (body,) = bodies(
        to_mariadb(),
        """
        SELECT CAST(700 AS DECIMAL(10,0)) AS user_id, CAST(19.90 AS DECIMAL(10,2)) AS price, DATE '2026-03-02' AS day,
               TIMESTAMP '2026-03-02 14:05:09' AS seen, '{"a": [1]}' AS prefs, NULL AS nothing
        """,
        types={"prefs": "json"},
    )
    assert body == {
        "userId": "700",
        "traits": {"price": 19.9, "day": "2026-03-02", "seen": "2026-03-02 14:05:09 +00:00", "prefs": {"a": [1]}},
    }


def test_types_of_sqlite(tmp_path):
    (body,) = bodies(
        sqlite3.connect(tmp_path / "w.db"),
        f"SELECT 700.0 AS user_id, '{PHONE}' AS phone, 0.0 AS sms_opt_in, '[1]' AS sizes, 20260302 AS day, 'x' AS plan",
        types={"sizes": "json", "day": date},
    )
    assert body["userId"] == "700"
    assert body["traits"]["phones"][PHONE]["smsOptIn"] == {"subscribed": False}
    assert (body["traits"]["sizes"], body["traits"]["day"]) == ([1], "2026-03-02")
