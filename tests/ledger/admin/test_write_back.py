"""Outcomes written to a warehouse: all of them, each once, whatever happened to an earlier copy."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.ledger.admin.write_back import write_back
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import EVERY, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW, line, write


@pytest.fixture
def warehouse(database_url, tmp_path):
    """Another database than the ledger's, of each kind."""
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path / 'warehouse.db'}"
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger_url(tmp_path):
    return f"sqlite:///{tmp_path / 'of_deliveries.db'}"


@pytest.fixture
def copy(ledger_url, warehouse):
    def run(table="outcomes", **options):
        with closing(open_database(ledger_url)) as ledger:
            return write_back(ledger, warehouse, table, **options)

    return run


@pytest.fixture
def found(warehouse):
    def query(sql):
        with warehouse.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    return query


EACH = "SELECT delivery, position, status, user_id FROM outcomes ORDER BY delivery, position"


@on(EVERY)
def test_each_outcome_is_there_with_its_task(copy, ledger_url, found):
    lines = [line(1, user_id="u1", place="contacts.csv line 2"), line(2, "rejected", phone="12", reason="invalid")]
    number = write(ledger_url, lines=[*lines, *(line(number) for number in range(3, 2_101))], skipped=5)
    done = copy()
    assert (done.deliveries, done.outcomes, done.unchanged, done.running) == (1, 2_100, 0, 0)
    first, second = found(
        "SELECT delivery, dag_id, task_id, run_id, place, status, reason, user_id, phone FROM outcomes "
        "WHERE position <= 2 ORDER BY position"
    )
    assert first == (number, "dag", "task", "run", "contacts.csv line 2", "acknowledged", None, "u1", None)
    assert second == (number, "dag", "task", "run", None, "rejected", "invalid", None, "12")
    ((told_at, started_at),) = found(
        "SELECT o.last_at, d.started_at FROM outcomes AS o JOIN outcomes_deliveries AS d ON d.delivery = o.delivery "
        "WHERE o.position = 1"
    )
    assert {str(told_at)[:19], str(started_at)[:19]} == {"2026-11-29 12:00:00"}
    told = "SELECT state, read_rows, acknowledged, rejected, unknown, skipped FROM outcomes_deliveries"
    assert found(told) == [("finished", 2_105, 2_099, 1, 0, 5)]


@on(EVERY)
def test_only_what_has_changed_is_copied(copy, ledger_url, found):
    write(ledger_url, run="a", lines=[line(1)])
    assert copy().deliveries == 1
    write(ledger_url, run="b", lines=[line(1), line(2)])
    done = copy()
    assert (done.deliveries, done.outcomes, done.unchanged) == (1, 2, 1)
    assert len(found(EACH)) == 3
    assert copy(again=True).deliveries == 2
    assert len(found(EACH)) == 3


def test_a_delivery_that_was_resumed_is_copied_anew(copy, ledger_url, found):
    number = write(ledger_url, lines=[line(1, "unknown", user_id="u1")], state="stopped")
    copy()
    with closing(open_database(ledger_url)) as ledger:
        later = to_ledger_time(NOW + timedelta(hours=1))
        ledger.write(lambda connection: connection.exec_driver_sql(
            f"UPDATE regal_deliveries SET state = 'finished', held_at = '{later}' WHERE id = {number}"
        ))  # fmt: skip
        ledger.write(lambda connection: connection.exec_driver_sql("UPDATE regal_outcomes SET status = 'acknowledged'"))
    assert copy().deliveries == 1
    assert found(EACH) == [(number, 1, "acknowledged", "u1")]


def test_what_a_redelivery_has_taken_says_so(copy, ledger_url, found):
    first = write(ledger_url, run="a", lines=[line(1, "rejected", payload={"user_id": "u"})], state="failed")
    write(ledger_url, run="other", lines=[line(1)])
    copy()
    again = write(ledger_url, run="again", lines=[line(1)])
    with closing(open_database(ledger_url)) as ledger:
        ledger.write(lambda connection: connection.exec_driver_sql(
            f"UPDATE regal_outcomes SET redelivered_by = {again} WHERE delivery = {first}"
        ))  # fmt: skip
    done = copy()
    assert (done.deliveries, done.unchanged) == (2, 1)
    assert found("SELECT delivery, redelivered_by FROM outcomes ORDER BY delivery")[0] == (first, again)
    assert copy().unchanged == 3


def test_a_delivery_that_runs_comes_later(copy, ledger_url, found):
    number = write(ledger_url, rows=[{"user_id": "u"}] * 2, lines=[line(1)], state=None, at=datetime.now(UTC))
    assert (copy().running, found(EACH)) == (1, [])
    with closing(open_database(ledger_url)) as ledger:
        ledger.write(lambda connection: connection.exec_driver_sql(
            f"UPDATE regal_deliveries SET state = 'finished', holder = NULL WHERE id = {number}"
        ))  # fmt: skip
    assert (copy().deliveries, len(found(EACH))) == (1, 1)


def test_a_copy_that_broke_off_is_completed_by_the_next(copy, ledger_url, warehouse, found):
    for run in "abc":
        write(ledger_url, run=run, lines=[line(1), line(2)])
    copy()
    with warehouse.begin() as connection:  # as if only the first was copied
        connection.execute(text("DELETE FROM outcomes WHERE delivery > 1"))
        connection.execute(text("DELETE FROM outcomes_deliveries WHERE delivery > 1"))
    done = copy()
    assert (done.deliveries, done.unchanged, len(found(EACH))) == (2, 1, 6)


def test_it_breaks_off_between_two_deliveries_only(ledger_url, warehouse, found):
    for run in "ab":
        write(ledger_url, run=run, lines=[line(1), line(2)])

    def fail(record, lines):
        raise RuntimeError

    with closing(open_database(ledger_url)) as ledger, pytest.raises(RuntimeError):
        write_back(ledger, warehouse, "outcomes", on_delivery=fail)
    assert [row[0] for row in found(EACH)] == [1, 1]


def test_since_and_account_narrow_it(copy, ledger_url, found):
    write(ledger_url, run="old", lines=[line(1)], at=NOW - timedelta(days=9))
    write(ledger_url, run="other", lines=[line(1)], account="other", api_key="another")
    number = write(ledger_url, run="new", lines=[line(1)])
    assert copy(since=to_ledger_time(NOW - timedelta(days=1)), account="acme").deliveries == 1
    assert [row[0] for row in found(EACH)] == [number]


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a.b.c.d", "1a", 'a"b'])
def test_a_name_that_is_none_is_refused(copy, name):
    with pytest.raises(FixSourceError, match="not the name of a table"):
        copy(name)


def test_a_table_that_lacks_a_column_is_refused(copy, warehouse):
    with warehouse.begin() as connection:
        connection.execute(text("CREATE TABLE outcomes (delivery INTEGER, note TEXT)"))
    with pytest.raises(FixSourceError, match=r"outcomes of the warehouse lacks position, account, .*Drop it"):
        copy()
