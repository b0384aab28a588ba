"""Unknown rows that somebody found at Regal: what is marked, and that no redelivery takes them."""

from __future__ import annotations

import threading
from contextlib import closing
from functools import partial

import pytest

from airflow_provider_regal.ledger.admin import history, monitoring
from airflow_provider_regal.ledger.admin.found import mark_found, unmark_found
from airflow_provider_regal.ledger.admin.monitoring import FixedBy, Wanted
from airflow_provider_regal.ledger.outcomes import Selection, read_letters, take_letters, write_outcomes
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import EVERY, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW, line, write

AT = to_ledger_time(NOW)
LINES = [
    line(1),
    line(2, "rejected", payload={"a": 1}),
    *(line(number, "unknown", payload={"a": 1}) for number in (3, 4, 5)),
]


def mark(database, delivery, *positions):
    return database.write(partial(mark_found, delivery=delivery, positions=positions or None, found_at=AT))


def letters(database):
    chosen = Selection(account="acme", status=("rejected", "unknown"))
    return [(delivery, position) for delivery, position, *_ in database.read(partial(read_letters, chosen=chosen))]


@on(EVERY)
def test_only_unknown_rows_that_nothing_has_taken_are_marked(database_url):
    delivery, other = (write(database_url, lines=LINES, run=run) for run in "ab")
    with closing(open_database(database_url)) as database:
        assert database.write(partial(take_letters, by=other, keys=[(delivery, 5)])) == {(delivery, 5)}
        assert mark(database, delivery, 1, 2, 3, 5, 99) == {3}
        assert mark(database, delivery, 3) == set(), "it is marked already"
        assert history.unknown_rows(database).rows == 1 + 3
        assert mark(database, delivery) == {4}
        assert history.unknown_rows(database).delivery == other
        assert letters(database) == [(delivery, 2), (delivery, 5), *((other, number) for number in (2, 3, 4, 5))]


@on(EVERY)
def test_a_redelivery_takes_no_marked_row_until_the_mark_is_removed(database_url):
    delivery = write(database_url, lines=LINES)
    take = partial(take_letters, by=99, keys=[(delivery, 3), (delivery, 4)])
    with closing(open_database(database_url)) as database:
        assert mark(database, delivery, 3) == {3}
        assert database.write(take) == {(delivery, 4)}
        undo = partial(unmark_found, delivery=delivery)
        assert database.write(partial(undo, positions=[4, 5])) == set()
        assert database.write(partial(undo, positions=None)) == {3}
        assert database.write(take) == {(delivery, 3)}


@on(EVERY)
@pytest.mark.parametrize("status", ["rejected", "unknown"])
def test_a_row_that_is_sent_again_later_is_no_longer_found(database_url, status):
    """A retry of contacts sends unknown rows again: if Regal refuses one, it can be redelivered like any other."""
    delivery = write(database_url, lines=LINES, state="stopped")
    with closing(open_database(database_url)) as database:
        assert mark(database, delivery, 3) == {3}
        again = line(3, status, payload={"a": 1})
        database.write(lambda connection: write_outcomes(connection, delivery, "acme", [again]))
        assert letters(database) == [(delivery, number) for number in (2, 3, 4, 5)]


@on(EVERY)
def test_either_the_mark_or_the_redelivery_has_a_row(database_url):
    for run in range(10):
        delivery = write(database_url, lines=LINES, run=f"run {run}")
        had, both = {}, threading.Barrier(2)

        def work(name, change, to=delivery, had=had, both=both):
            with closing(open_database(database_url)) as database:
                both.wait()
                had[name] = change(database, to)

        ways = {
            "mark": mark,
            "take": lambda database, to: {
                position
                for _, position in database.write(
                    partial(take_letters, by=99, keys=[(to, number) for number in (5, 4, 3)])
                )
            },
        }
        threads = [threading.Thread(target=work, args=one) for one in ways.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert had["mark"] | had["take"] == {3, 4, 5}
        assert not had["mark"] & had["take"]


@on(EVERY)
def test_a_delivery_needs_no_look_once_all_its_unknown_rows_were_found_or_redelivered(database_url):
    check = write(database_url, lines=[line(1), *LINES[2:]])
    failed = write(database_url, lines=[line(1), *LINES[2:]], state="failed", run="failed")
    by = write(database_url, lines=[line(1)], run="redelivery")
    with closing(open_database(database_url)) as database:

        def needs_a_look():
            return {one.id for one in monitoring.needing_a_look(database, Wanted(), limit=9)}

        def fix_of(number):
            return monitoring.fixes(database, [monitoring.one(database, number)]).get(number)

        assert mark(database, check, 3, 4) == {3, 4}
        assert needs_a_look() == {check, failed}
        assert monitoring.unknown_left(database, [monitoring.one(database, check)])[check].rows == 1
        assert database.write(partial(take_letters, by=by, keys=[(check, 5)]))
        assert needs_a_look() == {failed}
        assert fix_of(check) == FixedBy((by,), True)
        assert mark(database, failed) == {3, 4, 5}
        assert needs_a_look() == set()
        assert fix_of(failed) == FixedBy((), True)
        assert monitoring.unknown_left(database, [monitoring.one(database, failed)]) == {}
        assert monitoring.letters(database, failed)[2:] == (0, 0, 0, 3)


@on(EVERY)
def test_what_to_look_for_in_regal_is_told_of_the_rows_that_are_left(database_url):
    lines = [
        line(1, "unknown", event="Lesson Booked"),
        line(2, "unknown", event="Lesson Moved", first_at="2026-11-29T11:00:00.000000Z"),
        line(3, "unknown", event="A", last_at="2026-11-29T13:00:00.000000Z"),
    ]
    delivery = write(database_url, lines=lines)
    with closing(open_database(database_url)) as database:
        record = monitoring.one(database, delivery)
        assert monitoring.unknown_left(database, [record])[delivery] == (
            3, "A", 3, "2026-11-29T11:00:00.000000Z", "2026-11-29T13:00:00.000000Z",
        )  # fmt: skip
        mark(database, delivery, 2, 3)
        assert monitoring.unknown_left(database, [record])[delivery] == (1, "Lesson Booked", 1, AT, AT)
