"""The queries of the pages, on every database."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_regal.ledger.admin import monitoring
from airflow_provider_regal.ledger.admin.monitoring import FixedBy, Wanted
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import EVERY, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW, line, write

LETTER = {"reason": "HTTP 400", "message": "no such plan", "payload": {"a": 1}}


@pytest.fixture
def written(database_url):
    numbers = {
        "fine": write(database_url, lines=[line(1), line(2)], dag="crm", run="1"),
        "failed": write(
            database_url,
            lines=[line(1), line(2, "rejected", **LETTER), line(3, "unknown", reason="HTTP 500", payload={"b": 1})],
            dag="crm", run="2", state="failed", at=NOW - timedelta(days=1),
        ),
        "check": write(database_url, lines=[line(1, "unknown", reason="HTTP 500")], dag="web", run="3"),
        "outside": write(database_url, lines=[line(1)], dag=None, task=None, run="4", at=NOW - timedelta(days=9)),
    }  # fmt: skip
    with closing(open_database(database_url)) as database:
        yield database, numbers


@on(EVERY)
def test_everything_that_is_asked_is_answered_by_every_database(written):
    database, numbers = written
    every = Wanted()
    assert monitoring.dags_on_record(database) == {"crm", "web"}
    first = monitoring.needing_a_look(database, every, limit=9)
    assert [one.id for one in first] == [numbers["check"], numbers["failed"]]
    assert [one.id for one in monitoring.all_others(database, every, limit=9)] == [numbers["fine"], numbers["outside"]]
    assert [one.id for one in monitoring.all_others(database, every, limit=1, offset=1)] == [numbers["outside"]]
    totals = monitoring.totals(database, every)
    assert totals.states == {"finished": 3, "failed": 1}
    assert totals.to_check == 1
    assert totals.rows == {"read_rows": 7, "acknowledged": 4, "rejected": 1, "unknown": 2, "skipped": 0}
    assert monitoring.days(database, every) == [
        ("2026-11-20", 1, 0, 0),
        ("2026-11-28", 1, 1, 1),
        ("2026-11-29", 2, 0, 1),
    ]
    assert monitoring.choices(database, every) == (["crm", "web"], ["acme"], ["track"])
    assert monitoring.senders(database) == {}
    assert monitoring.last_of_accounts(database, ["acme"], every)["acme"].id == numbers["check"]
    of_task = {"dag_id": "crm", "run_id": "2", "task_id": "task", "map_index": -1}
    assert [one.id for one in monitoring.of_task(database, **of_task)] == [numbers["failed"]]
    record = monitoring.one(database, numbers["fine"])
    assert [one.id for one in monitoring.runs_like(database, record, limit=9)] == [numbers["fine"], numbers["failed"]]
    assert monitoring.runs_like(database, monitoring.one(database, numbers["outside"]), limit=9) == []
    assert monitoring.letters(database, numbers["failed"]) == (1, 1, 1, 0, 0, 0)
    assert monitoring.one(database, 99) is None

    def positions(**options):
        return [row.position for row in monitoring.outcome_page(database, numbers["failed"], limit=9, **options)]

    assert positions() == [2, 3]
    assert positions(status="acknowledged") == [1]
    assert positions(status="unknown") == positions(after=2) == positions(reason="HTTP 500") == [3]
    assert positions(reason="no such") == [2]


def test_nothing_of_other_dags_is_listed_or_counted(written):
    database, numbers = written
    crm = Wanted(frozenset({"crm"}), outside=False)
    assert [one.id for one in monitoring.needing_a_look(database, crm, limit=9)] == [numbers["failed"]]
    assert monitoring.totals(database, crm).to_check == 0
    assert monitoring.choices(database, crm).dags == ["crm"]
    assert sum(day.acknowledged for day in monitoring.days(database, crm)) == 3
    with_outside = replace(crm, outside=True)
    assert [one.id for one in monitoring.all_others(database, with_outside, limit=9)][-1] == numbers["outside"]
    nothing = Wanted(frozenset(), outside=False)
    assert (
        monitoring.all_others(database, nothing, limit=9) == monitoring.needing_a_look(database, nothing, limit=9) == []
    )
    assert monitoring.last_of_accounts(database, ["acme"], nothing) == {}


def test_a_filter_narrows_what_is_readable_and_never_widens_it(written):
    database, numbers = written

    def found(**given):
        wanted = Wanted(frozenset({"crm"}), outside=False, **given)
        both = (monitoring.needing_a_look, monitoring.all_others)
        return {one.id for ask in both for one in ask(database, wanted, limit=9)}

    assert found(dag_id="web") == set()
    assert found(group="failed") == {numbers["failed"]}
    assert found(group="check") == set()
    assert found(since=to_ledger_time(NOW - timedelta(hours=1))) == {numbers["fine"]}
    assert found(until=to_ledger_time(NOW - timedelta(hours=1))) == {numbers["failed"]}
    assert found(account="acme", call="track") == {numbers["fine"], numbers["failed"]}
    assert found(account="zenith") == found(call="page") == set()


@pytest.mark.services
@on(EVERY[1:2])
def test_rows_that_failed_are_found_by_an_index_of_their_own(written):
    database, numbers = written

    def plan(connection):
        connection.exec_driver_sql("SET enable_seqscan = off")
        wanted = f"delivery = {numbers['failed']} AND status <> 'acknowledged'"
        rows = connection.exec_driver_sql(f"EXPLAIN SELECT position FROM regal_outcomes WHERE {wanted}")
        return "\n".join(row[0] for row in rows)

    assert "regal_outcomes_failed" in database.read(plan)


def redelivered(database, of, by, *positions):
    """Let a delivery have taken dead letters of another."""
    rows = ", ".join(map(str, positions))
    database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE regal_outcomes SET redelivered_by = {by} WHERE delivery = {of} AND position IN ({rows})"
    ))  # fmt: skip


def found(database, number):
    """Return whether a delivery needs a look, what it counts as, and what put it right."""
    needs = {one.id for one in monitoring.needing_a_look(database, Wanted(), limit=99)}
    others = {one.id for one in monitoring.all_others(database, Wanted(), limit=99)}
    assert (number in needs) is not (number in others)
    return number in needs, monitoring.fixes(database, [monitoring.one(database, number)]).get(number)


@on(EVERY)
def test_a_failed_delivery_is_fixed_by_a_later_one_of_the_same_place_that_finished_well(database_url):
    bad = {"lines": [line(1), line(2, "rejected", **LETTER)], "state": "failed", "run": "again"}
    first = write(database_url, **bad)
    with closing(open_database(database_url)) as database:
        assert found(database, first) == (True, None)
        write(database_url, **{**bad, "run": "another"}, name="named")
        write(database_url, lines=[line(1)], run="again", name="named")  # another delivery of the same task instance
        write(database_url, lines=[line(1)], run="another")
        doubtful = write(database_url, lines=[line(1), line(2, "unknown", **LETTER)], run="again")
        assert found(database, first) == (True, None), "the later one needs a look itself"
        last = write(database_url, lines=[line(1), line(2)], run="again")
        write(database_url, **bad)
        assert found(database, first) == (False, FixedBy((last,), False))
        assert found(database, doubtful) == (True, None)
        totals = monitoring.totals(database, Wanted())
        assert totals.states == {"fixed": 1, "failed": 2, "finished": 4}
        assert totals.rows["acknowledged"] == 8

        def of_group(group):
            wanted = Wanted(group=group)
            both = (monitoring.needing_a_look, monitoring.all_others)
            return {one.id for ask in both for one in ask(database, wanted, limit=9)}

        assert of_group("fixed") == {first}
        assert first not in of_group("failed")
        assert len(of_group("failed")) == 2


@on(EVERY)
def test_a_failed_sync_is_fixed_by_the_next_run_of_its_task_that_finishes(database_url):
    of_sync = {"lines": [line(1), line(2, "rejected", **{**LETTER, "form": "consent"})], "state": "failed"}
    sync = write(database_url, **of_sync, run="1")
    events = write(database_url, lines=[line(1), line(2, "rejected", **LETTER)], state="failed", run="1", task="events")
    mixed = write(
        database_url, **{**of_sync, "lines": [*of_sync["lines"], line(3, "unknown", **LETTER)]}, run="1", task="mixed"
    )
    with closing(open_database(database_url)) as database:
        write(database_url, lines=[line(1)], run="2", task="another")
        write(database_url, lines=[line(1)], run="2", name="named")
        again = write(database_url, **of_sync, run="2")
        assert found(database, sync) == (True, None), "the next run failed, too"
        fixing = write(database_url, lines=[line(1)], run="3")
        for task in ("events", "mixed"):
            write(database_url, lines=[line(1)], run="3", task=task)
        assert found(database, sync) == found(database, again) == (False, FixedBy((fixing,), False))
        assert found(database, events) == found(database, mixed) == (True, None)


@on(EVERY)
def test_rows_are_put_right_once_all_were_redelivered_and_all_of_that_was_acknowledged(database_url):
    unknown = [line(1), *(line(number, "unknown", **LETTER) for number in (2, 3)), line(4, "rejected", **LETTER)]
    check = write(database_url, lines=unknown, run="1")
    failed = write(database_url, lines=unknown, run="2", state="failed")
    fine, also_fine = (write(database_url, lines=[line(1), line(2)], run=f"fine {number}") for number in (1, 2))
    partly = write(database_url, lines=[line(1), line(2, "rejected", **LETTER)], run="partly")
    skipping = write(database_url, lines=[line(1)], skipped=1, run="skipping")
    running = write(database_url, lines=[line(1)], run="running", state=None)
    with closing(open_database(database_url)) as database:
        redelivered(database, check, fine, 2)
        assert found(database, check) == (True, None), "row 3 is left"
        for wrong in (partly, skipping, running):
            redelivered(database, check, wrong, 3)
            assert found(database, check) == (True, None), wrong
        redelivered(database, check, also_fine, 3)
        assert found(database, check) == (False, FixedBy((fine, also_fine), True))
        assert monitoring.totals(database, Wanted()).to_check == 0
        redelivered(database, failed, fine, 2, 3)
        assert found(database, failed) == (True, None), "the rejected row is left"
        redelivered(database, failed, fine, 4)
        assert found(database, failed) == (False, FixedBy((fine,), True))


@on(EVERY)
def test_what_a_redelivery_would_take_is_counted_of_its_delivery_alone(written):
    database, numbers = written

    def count(name, *statuses, reason=None, positions=()):
        return monitoring.count_letters(database, numbers[name], statuses=statuses, reason=reason, positions=positions)

    assert count("failed", "rejected", "unknown") == 2
    assert (count("failed", "rejected"), count("failed", "unknown")) == (1, 1)
    assert count("failed", "rejected", "unknown", reason="HTTP 500") == 1
    assert count("failed", "rejected", "unknown", positions=(1, 2)) == 1
    assert count("fine", "rejected", "unknown") == 0
    redelivered(database, numbers["failed"], numbers["fine"], 2)
    assert count("failed", "rejected", "unknown") == 1
