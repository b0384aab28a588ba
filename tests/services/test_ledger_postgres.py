"""The ledger in PostgreSQL: what it does everywhere, and what only processes that share a server can show."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from airflow_provider_regal.journal.ledger import Ledger, LedgerError
from airflow_provider_regal.journal.ledger_engine import writing
from airflow_provider_regal.journal.ledger_schema import types
from tests.journal import ledger_behaviour as behaviour
from tests.journal import ledger_crowd
from tests.journal.ledger_words import PHONE, Ledgers, at

pytestmark = pytest.mark.services
URL = os.environ.get("REGAL_TEST_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/test")


def engine_of(schema):
    return create_engine(URL, hide_parameters=True, connect_args={"options": f"-csearch_path={schema}"})


@pytest.fixture
def schema():
    name, engine = f"ledger_{uuid4().hex}", create_engine(URL)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def ledgers(schema):
    made = Ledgers(lambda: engine_of(schema))
    yield made
    made.close()


@pytest.mark.parametrize("check", behaviour.CHECKS, ids=behaviour.NAMES)
def test_in_postgres(check, ledgers):
    check(ledgers)


def _in_process(schema, number, rounds, results):
    failures = []
    results.put((ledger_crowd.work_beside_others(engine_of(schema), number, rounds, failures), failures))


def test_processes_that_work_at_once_lose_nothing_and_do_not_lock_each_other_out(schema):
    context, processes, rounds = multiprocessing.get_context("spawn"), 4, 25
    results = context.Queue()
    started = [context.Process(target=_in_process, args=(schema, n, rounds, results)) for n in range(processes)]
    for process in started:
        process.start()
    told = [results.get(timeout=300) for _ in started]
    for process in started:
        process.join()
    assert [failures for _, failures in told] == [[]] * processes
    gone = [key for keys, _ in told for key in keys]
    opened = Ledger(engine_of(schema), account="acme", run="after")
    ledger_crowd.see_that_nothing_was_lost(opened, gone, processes=processes, rounds=rounds)
    opened.close()


def test_a_row_that_is_there_already_is_not_quoted(ledgers, schema):
    ledgers()
    engine = engine_of(schema)
    row = {"account": "acme", "name": PHONE, "type": "str"}
    with pytest.raises(LedgerError) as caught:
        writing(engine, lambda connection: connection.execute(types.insert(), [row, row]), tries=2)
    told = "".join(traceback.format_exception(caught.value))
    assert "UniqueViolation 23505" in told
    assert PHONE not in told
    engine.dispose()


def test_a_server_that_is_not_there_is_said_to_be(schema):
    engine = create_engine("postgresql+psycopg2://postgres@127.0.0.1:1/test")
    with pytest.raises(LedgerError, match="See that its database is up"):
        Ledger(engine, account="acme", run="r")


def test_keys_sort_as_in_python_so_that_all_lock_in_one_order(ledgers):
    keys = ["b", "B", "a", "A", "+1", "1", "ä", "z", "_", "-", "😀"]
    opened = ledgers()
    opened.bar((key, "sms", at(1)) for key in keys)
    assert [row[0] for row in opened.consents()] == sorted(keys)
