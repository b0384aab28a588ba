"""The page about the ledger: it describes every table and column, and its queries run."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import create_engine, text

from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.schema import metadata
from tests.databases import EVERY, on
from tests.docs.blocks import PROJECT

PAGE = (PROJECT / "docs" / "ledger.md").read_text()
QUERIES = [query for query in re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "SELECT" in query]


def section_of(table: str) -> str:
    """The part of the page about a table: its own section, or its line among the other tables."""
    if (own := re.search(rf"^### {table}\n(.*?)^##", PAGE, re.MULTILINE | re.DOTALL)) is not None:
        return own[1]
    return next(line for line in PAGE.splitlines() if f"`{table}` |" in line)


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_table_and_column_is_described(table):
    section = section_of(table.name)
    internal = {"regal_row_chunks": {"delivery", "chunk", "rows", "states"}, "regal_schema": {"id"}}
    described = set(re.findall(r"`(\w+)`", section)) | internal.get(table.name, set())
    assert {column.name for column in table.columns} <= described


@on(EVERY)
@pytest.mark.parametrize("query", QUERIES, ids=[query.splitlines()[0][:40] for query in QUERIES])
def test_the_queries_run_on_every_database(query, database_url):
    engine = create_engine(database_url)
    Database(engine)
    with engine.connect() as connection:
        connection.execute(text(query)).fetchall()
    engine.dispose()


def test_the_queries_find_what_a_delivery_has_left(regal, regal_ledger):
    rows = [
        {"user_id": "anne-smith", "phone": "+12125550100", "sms_opt_in": 0, "message_id": "lesson-102"},
        {"user_id": "ines", "phone": "12"},
    ]
    with pytest.raises(TooManyFailedRowsError):
        RegalHook().deliver(rows, call="track", event="Lesson Booked")
    RegalHook().identify(phone="+12125550100", opt_in=[{"channel": "sms", "subscribed": False}])
    with closing(sqlite3.connect(regal_ledger)) as ledger:
        found = [bool(ledger.execute(query.replace("2026-11-29", "2000-01-01")).fetchall()) for query in QUERIES]
    empty = [query.splitlines()[0] for query, any_row in zip(QUERIES, found, strict=True) if not any_row]
    assert len(QUERIES) == 11
    assert len(empty) <= 3, empty  # nothing is left to send, no opt-out is owed, and no try was lost
