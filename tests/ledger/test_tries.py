"""Tries on record: when each began, how it ended, the outcomes of its rows, and its speed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import pairwise

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin import monitoring
from airflow_provider_regal.ledger.deliveries import FINISHED, STOPPED, Deliveries, Place, Record, Try
from airflow_provider_regal.ledger.states import Outcome
from airflow_provider_regal.ledger.tries import LOST, RUNNING, Pace, points_of, tries_of
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.databases import EVERY, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW
from tests.operators.ways import context

PLACE = Place("dag", "run", "task")
OPTIONS = {"options": "o", "hold_s": 34}


@pytest.fixture
def database(database_url):
    with closing(open_database(database_url)) as opened:
        yield opened


class Delivered:
    """One delivery, try after try, at times of its own."""

    def __init__(self, database):
        self.now = NOW
        self.database = database
        self.of = Deliveries(Account(database, account="acme", now=lambda: self.now))

    def begin(self):
        return self.of.begin(PLACE, Try(), call="track", source="s", replaces=self.of.latest(PLACE), **OPTIONS)

    def take(self, number, **more):
        return self.of.take(self.of.latest(PLACE), Try(0, number), source="s", **OPTIONS, **more)

    def commit(self, held, seconds, **outcomes):
        self.now += timedelta(seconds=seconds)
        for name, rows in outcomes.items():
            held.counts.add(Outcome(name), rows)
        held.commit(seconds=seconds)

    def tries(self) -> list:
        record = self.of.latest(PLACE)
        return self.database.read(lambda connection: tries_of(connection, record, limit=20))

    def counts(self):
        return [(one.state, one.acknowledged, one.rejected, one.unknown) for one in self.tries()]


@on(EVERY)
def test_each_try_has_its_own_rows_and_its_end(database):
    these = Delivered(database)
    held = these.begin()
    these.commit(held, 5, acknowledged=40, rejected=2)
    held.end(STOPPED, error="Regal could not be reached")
    these.now += timedelta(minutes=5)
    held = these.take(2)
    these.commit(held, 3, acknowledged=30, unknown=1)
    assert these.counts() == [(STOPPED, 40, 2, 0), (RUNNING, 30, 0, 1)], "of one that runs, too"
    held.end(FINISHED)
    first, second = these.tries()
    assert these.counts() == [(STOPPED, 40, 2, 0), (FINISHED, 30, 0, 1)]
    assert (first.try_number, second.try_number) == (1, 2)
    assert (first.error, second.error) == ("Regal could not be reached", None)
    assert (first.began_at[11:19], first.ended_at[11:19]) == ("12:00:00", "12:00:05")
    assert (second.began_at[11:19], second.ended_at[11:19]) == ("12:05:05", "12:05:08")


@on(EVERY)
def test_a_killed_try_is_lost_at_its_last_commit_with_all_that_was_committed(database):
    these = Delivered(database)
    held = these.begin()
    these.commit(held, 1, acknowledged=10)
    these.commit(held, 0.2, acknowledged=5)  # no point of its pace is due yet
    last_commit = these.of.latest(PLACE).held_at
    these.now += timedelta(minutes=1)
    these.take(2)
    lost, running = these.tries()
    assert (lost.state, lost.acknowledged, lost.ended_at) == (LOST, 15, last_commit)
    assert (running.state, running.acknowledged) == (RUNNING, 0)


@on(EVERY)
def test_a_delivery_that_reads_again_begins_at_nothing_and_keeps_its_tries(database):
    these = Delivered(database)
    held = these.begin()
    these.commit(held, 2, acknowledged=10, rejected=3)
    held.end(STOPPED)
    held = these.take(2, again=True)
    these.commit(held, 2, acknowledged=4)
    held.end(FINISHED)
    assert these.counts() == [(STOPPED, 10, 3, 0), (FINISHED, 4, 0, 0)]


def test_a_new_delivery_of_the_same_task_ends_the_tries_of_the_one_it_replaces(tmp_path):
    with closing(open_database(tmp_path / "ledger.db")) as database:
        these = Delivered(database)
        these.commit(these.begin(), 2, acknowledged=1)
        old = these.of.latest(PLACE)
        these.begin()
        (lost,) = database.read(lambda connection: tries_of(connection, old, limit=20))
        assert (lost.state, lost.acknowledged) == (LOST, 1)
        assert [one.state for one in these.tries()] == [RUNNING]


def test_few_points_are_kept_of_the_pace_however_long_it_takes():
    pace = Pace()
    for second in range(1, 20_001):
        pace.note(1.0, second * 90)
    assert 30 <= len(pace.points) <= 60
    assert all(rows == 90 * seconds for seconds, rows in pace.points), "what is left out changes nothing"
    assert pace.points[-1][0] > 19_000
    assert not pace.note(0.5, 20_000 * 90 + 45)
    assert pace.note(0.0, 20_000 * 90 + 45, last=True)
    assert not pace.note(0.0, 20_000 * 90 + 45, last=True), "an end that is written again adds none"


# -- by real deliveries -----------------------------------------------------------------------------------------------


def deliver(count, here, **options):
    rows = [{"user_id": f"u{number}"} for number in range(count)]
    given = {"call": "track", "event": "Lesson Booked", "max_refused": None, **options}
    return RegalRowsOperator(task_id="t", rows=rows, **given).execute(here)


def on_record(regal_ledger) -> tuple[Record, list]:
    with closing(open_database(regal_ledger)) as database:
        record = monitoring.one(database, 1)
        return record, database.read(lambda connection: tries_of(connection, record, limit=20))


def test_tries_of_a_task_are_on_record_with_their_pace(regal, regal_ledger):
    regal.set_faults([{"on": {"from": 101}, "do": {"status": 503, "retry_after": 900}}])
    with pytest.raises(RetryLaterError):
        deliver(300, context(), rate=50, outage_patience=0.1)
    regal.set_faults([])
    deliver(300, context(try_number=2), rate=50)
    record, (first, second) = on_record(regal_ledger)
    assert (first.state, second.state) == (STOPPED, FINISHED)
    assert (first.acknowledged, second.acknowledged) == (100, 200)
    assert "outage_patience" in first.error
    assert record.conn_id == "regal_default"
    points = points_of(second)
    assert points[-1][1] == 200
    assert points[-1][0] == pytest.approx(4, abs=1.5)
    speeds = [(b - a) / (t - s) for (s, a), (t, b) in pairwise(points) if t - s > 0.5]
    assert speeds
    assert max(speeds) < 75


def test_rows_that_a_clear_tries_again_count_in_the_try_that_settles_them(regal, regal_ledger):
    regal.set_faults([{"on": {"requests": [2, 3]}, "do": {"status": 400}}])
    with pytest.raises(AirflowFailException):
        deliver(6, context(), max_connections=1)
    regal.set_faults([{"on": {"requests": [7]}, "do": {"status": 400}}])
    with pytest.raises(AirflowFailException):
        deliver(6, context(try_number=2, max_tries=1), max_connections=1)
    _, (first, second) = on_record(regal_ledger)
    assert (first.acknowledged, first.rejected) == (4, 2)
    assert (second.acknowledged, second.rejected) == (1, 1)


def test_no_transaction_is_made_for_them(regal, regal_ledger):
    """Without the pace, as many commits are made: it is written in those."""
    commits = []
    with closing(open_database(regal_ledger)) as database:
        these = Delivered(database)
        held = these.begin()
        write, held.database.write = (
            held.database.write,
            lambda *args, **more: commits.append(1) or write(*args, **more),
        )
        for _ in range(5):
            these.commit(held, 1, acknowledged=1)
        held.end(FINISHED)
    assert len(commits) == 6


def test_single_events_have_none_and_know_their_connection(regal, regal_ledger):
    RegalHook().track("Late", user_id="u")
    with closing(sqlite3.connect(regal_ledger)) as ledger:
        assert ledger.execute("SELECT count(*) FROM regal_tries").fetchone() == (0,)
        assert ledger.execute("SELECT call, conn_id FROM regal_deliveries").fetchall() == [("events", "regal_default")]


def test_a_retry_with_another_connection_is_of_that_one(regal, regal_ledger, monkeypatch):
    for name in ("REGAL_OLD", "REGAL_NEW"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", regal.connection(account="shop"))
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900}}])
    with pytest.raises(RetryLaterError):
        deliver(3, context(), outage_patience=0.1, regal_conn_id="regal_old")
    assert on_record(regal_ledger)[0].conn_id == "regal_old"
    regal.set_faults([])
    deliver(3, context(try_number=2), regal_conn_id="regal_new")
    record, _ = on_record(regal_ledger)
    assert (record.conn_id, record.account, record.state) == ("regal_new", "shop", FINISHED)
