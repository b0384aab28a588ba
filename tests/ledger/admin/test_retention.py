"""What the ledger keeps, and for how long."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import select

from airflow_provider_regal.delivery.resume import Work, what_to_do
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin import history, retention
from airflow_provider_regal.ledger.admin.retention import KeptFor, Pruned, prune, prune_a_little, read_stats
from airflow_provider_regal.ledger.deliveries import Deliveries, Place, Try
from airflow_provider_regal.ledger.outcomes import outcomes_of
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import PROVED, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW, line, write

PHONE = "+12125550100"
YES_AT = "2026-01-01T08:00:00.000000Z"


def days(number):
    return NOW - timedelta(days=number)


@pytest.fixture
def database(database_url):
    with closing(open_database(database_url)) as opened:
        yield opened


def rows_of(database, table):
    return database.read(lambda connection: [row._mapping for row in connection.execute(select(table))])


def letters_of(database):
    return {
        (one["delivery"], one["position"]) for one in rows_of(database, schema.outcomes) if one["payload"] is not None
    }


def chunks_of(database):
    return {one["delivery"] for one in rows_of(database, schema.row_chunks)}


def record_of(database, number):
    return history.find_delivery(database, number).record


@on(PROVED)
def test_tries_go_with_their_delivery(database_url, database):
    old = write(database_url, lines=[line(1)], at=days(91), run="old")
    new = write(database_url, lines=[line(1)], at=days(2), run="new")
    assert {one["delivery"] for one in rows_of(database, schema.tries)} == {old, new}
    prune(database, now=NOW)
    assert {one["delivery"] for one in rows_of(database, schema.tries)} == {new}


@on(PROVED)
def test_a_try_that_nobody_came_back_to_is_lost(database_url, database):
    states = [RowState.ACKNOWLEDGED, RowState.RESERVED, RowState.OPEN]
    rows = [{"user_id": f"u{number}"} for number in range(3)]
    write(database_url, rows=rows, states=states, state=None, at=days(31), run="dead")
    (running,) = rows_of(database, schema.tries)
    assert (running["state"], running["ended_at"]) == ("running", None)
    prune(database, now=NOW)
    (lost,) = rows_of(database, schema.tries)
    assert (lost["state"], lost["unknown"], lost["ended_at"]) == ("lost", 1, to_ledger_time(days(31)))


@on(PROVED)
def test_payloads_of_old_dead_letters_are_dropped_and_their_lines_stay(database_url, database):
    old = [line(n, "rejected", payload={"a": n}, at=days(31)) for n in range(1, 1_203)]
    young = [line(2_000, "unknown", payload={"a": 1}, at=days(29))]
    number = write(database_url, lines=old + young, state="failed", at=days(29))

    assert prune(database, now=NOW) == Pruned(payloads=1_202)

    assert letters_of(database) == {(number, 2_000)}
    lines = list(outcomes_of(database, number))
    assert len(lines) == 1_203
    assert {(one.status, one.is_dead_letter) for one in lines} == {("rejected", False), ("unknown", True)}
    assert not prune(database, now=NOW)


@on(PROVED)
def test_old_deliveries_go_with_their_outcomes_and_young_ones_stay(database_url, database):
    lines = [line(number, at=days(91)) for number in range(1, 1_502)]
    old = write(database_url, run="old", lines=lines, at=days(91))
    write(database_url, run="empty", at=days(91))
    young = write(database_url, run="young", lines=[line(1)], at=days(89))

    pruned = prune(database, now=NOW)

    assert (pruned.deliveries, pruned.outcomes) == (2, 1_501)
    assert [record.id for record in history.list_deliveries(database)] == [young]
    assert not list(outcomes_of(database, old))
    assert len(list(outcomes_of(database, young))) == 1


@on(PROVED)
def test_what_is_known_of_consents_contacts_and_messages_stays(database_url, database):
    log = [LoggedConsent(PHONE, "sms", True, YES_AT, None, None, None, 1, None, "acknowledged")]
    write(
        database_url,
        lines=[line(1, at=days(400))],
        at=days(400),
        log=log,
        acknowledged=[(PHONE, "sms", True, YES_AT)],
        contacts=[("anne", "r", "p")],
        phones=[("anne", PHONE)],
    )
    kept = (schema.consents, schema.consent_log, schema.contacts, schema.contact_phones, schema.types, schema.accounts)
    before = [rows_of(database, table) for table in kept]
    assert prune(database, now=NOW).deliveries == 1
    assert [rows_of(database, table) for table in kept] == before
    assert before[0] and before[1] and before[2] and before[3]


@on(PROVED)
@pytest.mark.parametrize("state", ["stopped", "failed", "reading", "sending"])
def test_rows_of_old_unfinished_deliveries_are_dropped(database_url, database, state):
    rows = [{"user_id": f"u{number}"} for number in range(70)]
    options = {"rows": rows, "lines": [line(1, at=days(31))], "complete": state != "reading"}
    ends = state if state in ("stopped", "failed") else None
    old = write(database_url, run="old", state=ends, at=days(31), **options)
    young = write(database_url, run="young", state=ends, at=days(29), **options)

    pruned = prune(database, now=NOW)

    assert pruned == Pruned(snapshots=1)
    assert chunks_of(database) == {young}
    record = record_of(database, old)
    assert record.holder is None
    assert record.state == ("failed" if state == "failed" else "stopped")
    assert not prune(database, now=NOW)


def test_it_says_how_many_rows_were_never_sent(database_url, database):
    rows = [{"user_id": f"u{number}"} for number in range(10)]
    number = write(database_url, rows=rows, lines=[line(1, at=days(31))], state="stopped", at=days(31))
    prune(database, now=NOW)
    assert record_of(database, number).error == "No try resumed it in time: 9 rows were never sent and not kept."


def test_rows_of_a_live_try_are_never_dropped(database_url, database):
    """It was begun long ago, and commits still."""
    number = write(database_url, rows=[{"a": 1}], state=None, at=days(100), hold_s=30)
    database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE regal_deliveries SET held_at = '{to_ledger_time(NOW - timedelta(seconds=20))}'"
    ))  # fmt: skip
    for keep in (0, 30):
        assert not prune(database, now=NOW, kept_for=KeptFor(keep, keep))
    assert chunks_of(database) == {number}
    assert prune(database, now=NOW + timedelta(seconds=11), kept_for=KeptFor(0, 0))


@on(PROVED)
def test_a_delivery_whose_rows_were_dropped_is_never_resumed_from_nothing(database_url, database):
    rows = [{"user_id": f"u{number}"} for number in range(4)]
    states = [RowState.ACKNOWLEDGED, RowState.OPEN, RowState.OPEN, RowState.OPEN]
    number = write(database_url, rows=rows, states=states, lines=[line(1, at=days(31))], state="stopped", at=days(31))
    prune(database, now=NOW)

    account = Account(database, account="acme")
    record = Deliveries(account).latest(Place("dag", "run", "task"))
    assert record.id == number
    may_have_sent = Deliveries(account).may_have_sent(record)

    def plan(this, *, named):
        return what_to_do(
            record, this, named=named, restart=False, fingerprint="table", may_have_sent=may_have_sent
        ).work

    assert plan(Try(number=2), named=True) is Work.FAIL
    assert plan(Try(epoch=1, number=2), named=True) is Work.FAIL  # after a clear: events are never sent twice
    assert plan(Try(epoch=1, number=2), named=False) is Work.START  # for contacts, the source is read again


@on(PROVED)
def test_reserved_rows_of_a_dead_try_become_unknown(database_url, database):
    rows = [{"user_id": f"u{number}", "$origin": f"a.csv line {number}"} for number in range(5)]
    states = [RowState.RESERVED, RowState.OPEN, RowState.OPEN, RowState.OPEN, RowState.RESERVED]
    number = write(database_url, rows=rows, states=states, state=None, at=days(31))
    prune(database, now=NOW)
    record = record_of(database, number)
    assert record.unknown == 2
    assert record.error == "No try resumed it in time: 3 rows were never sent and not kept."
    assert [(one.position, one.where, one.status) for one in outcomes_of(database, number)] == [
        (1, "a.csv line 0", "unknown"),
        (5, "a.csv line 4", "unknown"),
    ]
    assert Deliveries(Account(database, account="acme")).may_have_sent(record)


def test_rows_are_kept_as_long_as_dead_letters_where_that_is_longer(database_url, database):
    unfinished = write(database_url, run="a", rows=[{"a": 1}], state="stopped", at=days(20))
    write(database_url, run="b", lines=[line(1, "rejected", payload={}, at=days(20))], state="failed", at=days(20))
    assert prune(database, now=NOW, kept_for=KeptFor(history_days=10)).deliveries == 1
    assert [record.id for record in history.list_deliveries(database)] == [unfinished]
    assert chunks_of(database) == {unfinished}


def test_a_delivery_counts_from_its_last_try(database_url, database):
    number = write(database_url, lines=[line(1)], at=days(200))
    database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE regal_deliveries SET ended_at = '{to_ledger_time(days(5))}'"
    ))  # fmt: skip
    assert not prune(database, now=NOW)
    assert record_of(database, number)


# -- a little ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let each test be a process of its own."""
    monkeypatch.setattr(retention, "_done", {})
    monkeypatch.setattr(retention, "_warned", set())


def test_a_little_at_a_time_removes_all_in_the_end(database_url, database):
    lines = [line(number, at=days(91)) for number in range(1, 2_002)]
    write(database_url, lines=lines, at=days(91))
    removed = [prune_a_little(database, now=NOW, budget_s=0).outcomes for _ in range(6)]
    assert removed == [500, 500, 500, 500, 1, 0]
    assert not history.list_deliveries(database)


def test_a_process_looks_again_only_after_a_day(database_url, database):
    write(database_url, run="a", at=days(91))
    assert prune_a_little(database, now=NOW).deliveries == 1
    write(database_url, run="b", at=days(91))
    assert not prune_a_little(database, now=NOW)
    retention._done[database.name] -= 24 * 3600
    assert prune_a_little(database, now=NOW).deliveries == 1


def test_trouble_is_logged_once_and_raises_nothing(database_url, database, caplog):
    database.write(lambda connection: connection.exec_driver_sql("DROP TABLE regal_row_chunks"))
    patience_s = database.patience_s
    with caplog.at_level(logging.DEBUG, logger="airflow_provider_regal"):
        for _ in range(2):
            assert not prune_a_little(database, now=NOW)
            retention._done.clear()
    levels = [record.levelname for record in caplog.records if "could not be removed" in record.getMessage()]
    assert levels == ["WARNING", "DEBUG"]
    assert "airflow regal ledger prune" in caplog.text
    assert database.patience_s == patience_s


@on(PROVED)
def test_a_lock_of_somebody_else_delays_the_end_of_a_delivery_by_a_moment(database_url, database):
    write(database_url, lines=[line(1, at=days(91))], at=days(91))

    measured = []

    def lock_all_and_prune(connection):
        if connection.dialect.name != "sqlite":  # where a writing transaction locks everything
            connection.exec_driver_sql("SELECT * FROM regal_deliveries FOR UPDATE")
        began = time.monotonic()
        assert not prune_a_little(database, now=NOW)
        measured.append(time.monotonic() - began)

    with closing(open_database(database_url)) as other:
        other.write(lock_all_and_prune, once=True)
    assert measured[0] < 2
    retention._done.clear()
    assert prune_a_little(database, now=NOW).deliveries == 1
    timeout = "SHOW lock_timeout" if database.dialect == "postgresql" else "PRAGMA busy_timeout"
    assert database.read(lambda connection: connection.exec_driver_sql(timeout).scalar()) in ("10s", 10_000)


# -- size -------------------------------------------------------------------------------------------------------------


@on(PROVED)
def test_the_size_is_that_of_the_database(database_url, database):
    before = read_stats(database)
    assert {one.name for one in before.tables} == set(schema.metadata.tables)
    write(database_url, lines=[line(number, user_id=f"u{number}") for number in range(1, 5_001)])
    after = read_stats(database)
    rows = {one.name: one.rows for one in after.tables}
    assert (rows["regal_outcomes"], rows["regal_deliveries"], rows["regal_consents"]) == (5_000, 1, 0)
    assert after.size > before.size + 500_000
    largest = after.tables[0]
    assert (largest.name, largest.size > 500_000) == ("regal_outcomes", True)


def test_old_letters_are_found_without_reading_all_outcomes(database):
    old = "SELECT delivery, position FROM regal_outcomes WHERE payload IS NOT NULL AND last_at < 'x' LIMIT 500"
    plan = database.read(lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {old}").fetchall())
    assert "regal_outcomes_dead" in str(plan), plan
