"""Outcome lines and dead letters, in every database."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from airflow_provider_regal.ledger.deliveries import Deliveries, Place, Try
from airflow_provider_regal.ledger.outcomes import (
    OutcomeLine,
    Selection,
    cause_of,
    encoded,
    letters,
    line_of,
    outcomes_of,
    read_letters,
    reasons_of,
    redelivered,
    remove_lines,
    take_letters,
    write_outcomes,
)
from tests.ledger.accounts import at

LINE = OutcomeLine(
    1, None, "track", "Booked", "u1", "+12125550100", None, "acknowledged", None, None, None, 1, at(1), at(1), "hash"
)


def dead(position, *, reason="HTTP 400", status="rejected", payload=None, first=1, **more):
    told = {"position": position, "status": status, "reason": reason, "first_at": at(first), "form": "body", **more}
    return LINE._replace(payload=encoded(payload or {"userId": f"u{position}"}), **told)


class Lines:
    """Outcome lines of deliveries in one ledger."""

    def __init__(self, account):
        self.account = account
        self.database = account.database

    def begin(self, task="task", run="run", dag="dag"):
        held = Deliveries(self.account.on_record).begin(
            Place(dag, run, task), Try(), call="track", source="s", options="o", hold_s=0
        )
        return held.id

    def write(self, delivery, *lines, account="acme"):
        self.database.write(lambda connection: write_outcomes(connection, delivery, account, lines))

    def do(self, work, *given, **options):
        return self.database.write(lambda connection: work(connection, *given, **options))

    def letters(self, *keys):
        return self.do(lambda connection: list(letters(connection, keys)))

    def chosen(self, **options):
        found = self.do(read_letters, Selection(**{"account": "acme", "status": (), **options}))
        return [(delivery, position) for delivery, position, *_ in found]


@pytest.fixture
def lines(accounts):
    return Lines(accounts())


def test_a_later_line_of_a_row_replaces_the_earlier(lines):
    delivery = lines.begin()
    lines.write(delivery, dead(1, reason="outage: HTTP 500", status="unknown"), LINE._replace(position=2))
    lines.write(delivery, LINE, LINE._replace(position=2, status="unknown"), LINE._replace(position=2, attempts=7))
    assert lines.letters((delivery, 1)) == []
    assert lines.do(reasons_of, delivery) == {}


def test_the_same_positions_of_other_deliveries_are_other_rows(lines):
    one, other = lines.begin(), lines.begin(run="another")
    lines.write(one, dead(1, reason="HTTP 400"))
    lines.write(other, dead(1, reason="HTTP 422"))
    assert [letter.reason for letter in lines.letters((other, 1), (one, 1))] == ["HTTP 422", "HTTP 400"]


def test_many_lines_at_once(lines):
    delivery = lines.begin()
    lines.write(delivery, *(dead(number) for number in range(1, 2_501)))
    assert lines.do(reasons_of, delivery) == {"rejected, HTTP 400": 2_500}
    lines.do(remove_lines, delivery, range(1, 2_000))
    assert lines.do(reasons_of, delivery) == {"rejected, HTTP 400": 501}
    lines.write(delivery)
    lines.do(remove_lines, delivery, [])


@pytest.mark.parametrize("count", [999, 1_000, 1_001, 2_000])
def test_each_of_many_lines_is_listed_once(lines, count):
    delivery, other = lines.begin(), lines.begin(run="another")
    lines.write(delivery, *(LINE._replace(position=number) for number in range(1, count + 1)))
    lines.write(other, dead(1))
    assert [one.position for one in outcomes_of(lines.database, delivery)] == [*range(1, count + 1)]


def test_a_payload_comes_back_with_its_types(lines):
    delivery = lines.begin()
    payload = {"user_id": 7, "amount": Decimal("1.10"), "day": date(2026, 3, 2), "name": "Chloé 😀", "$date": "x"}
    lines.write(delivery, dead(3, payload=payload, form="row", place="a.csv line 4", message="phone: is not valid"))
    (letter,) = lines.letters((delivery, 3))
    assert letter.payload == payload
    assert (letter.form, letter.place, letter.message) == ("row", "a.csv line 4", "phone: is not valid")
    assert (letter.position, letter.call, letter.status, letter.consents, letter.contact) == (
        3, "track", "rejected", [], None,
    )  # fmt: skip


def test_what_a_redelivery_has_to_ask_for_comes_with_it(lines):
    delivery, claim = lines.begin(), ["+12125550100", "sms", False, at(5), None]
    lines.write(delivery, dead(1, consents=json.dumps({"claims": [claim], "contact": "c"})))
    (letter,) = lines.letters((delivery, 1))
    assert (letter.consents, letter.contact) == ([claim], "c")


def test_texts_fit_their_columns(lines):
    delivery, long = lines.begin(), "ä\0\ud800" * 2_000
    line = line_of(
        position=1, place=long, call="track", event=long, user_id=None, phone=None, email=None, status="rejected",
        reason=long, field=long, message=long, attempts=0, first_at=at(1), last_at=at(1), payload_hash=None,
        form="row", payload=encoded({"x": 1}),
    )  # fmt: skip
    lines.write(delivery, line)
    (letter,) = lines.letters((delivery, 1))
    assert letter.message.startswith("ä ")
    assert letter.message.endswith("…")


@pytest.mark.parametrize(
    ("status", "reason", "message", "cause"),
    [
        ("rejected", "invalid", "phone: not valid; email: not valid", "phone: not valid"),
        ("rejected", "HTTP 400", "HTTP 400, Regal says: no", "rejected, HTTP 400"),
        ("unknown", "read timeout", None, "unknown, read timeout"),
        ("rejected", "invalid", None, ""),
    ],
)
def test_rows_are_grouped_by_their_first_fault_or_by_what_happened(status, reason, message, cause):
    assert cause_of(status, reason, message) == cause


class TestChoosing:
    @pytest.fixture
    def two(self, lines):
        one, other = lines.begin("a"), lines.begin("b", "another")
        lines.write(
            one, dead(1, first=3), dead(2, first=1, status="unknown", reason="read timeout"), LINE._replace(position=9)
        )
        lines.write(other, dead(5, first=2, reason="invalid", message="phone: 100% wrong; email: is empty"))
        return one, other

    def test_the_oldest_come_first_and_only_dead_letters(self, lines, two):
        one, other = two
        assert lines.chosen() == [(one, 2), (other, 5), (one, 1)]

    def test_by_what_they_are_of(self, lines, two):
        one, other = two
        assert lines.chosen(deliveries=[other]) == lines.chosen(task_id="b") == [(other, 5)]
        assert lines.chosen(run_id="another") == lines.chosen(reason="invalid") == [(other, 5)]
        assert lines.chosen(dag_id="other dag") == lines.chosen(account="other") == []
        assert lines.chosen(since=at(2)) == [(other, 5), (one, 1)]
        assert lines.chosen(until=at(2)) == [(one, 2)]

    @pytest.mark.parametrize(("reason", "number"), [("phone: 100% wrong", 1), ("phone: 100_", 0), ("%", 0)])
    def test_by_how_their_message_begins(self, lines, two, reason, number):
        assert len(lines.chosen(reason=reason)) == number


class TestTaking:
    def test_each_is_taken_once(self, lines):
        delivery = lines.begin()
        lines.write(delivery, dead(1), dead(2), LINE._replace(position=3))
        keys = [(delivery, 1), (delivery, 2), (delivery, 3), (delivery, 4)]
        assert lines.do(take_letters, 71, keys[:1]) == {(delivery, 1)}
        assert lines.do(take_letters, 72, keys) == {(delivery, 2)}, "an acknowledged row is no dead letter"
        assert lines.do(redelivered, delivery) == {1: 71, 2: 72}
        assert [letter.taken_by for letter in lines.letters(*keys)] == [71, 72]

    def test_what_a_delivery_of_the_same_place_has_taken_is_free(self, lines):
        delivery = lines.begin()
        lines.write(delivery, dead(1), dead(2))
        lines.do(take_letters, 71, [(delivery, 1)])
        lines.do(take_letters, 80, [(delivery, 2)])
        keys = [(delivery, 1), (delivery, 2)]
        assert lines.do(take_letters, 72, keys, takers=[71, 72]) == {(delivery, 1)}

    def test_who_has_taken_it_is_known_though_its_line_is_written_again(self, lines):
        """A row becomes known to be lost to an outage only later, when a redelivery may have it."""
        delivery = lines.begin()
        lines.write(delivery, dead(1, status="unknown", reason="HTTP 500"))
        lines.do(take_letters, 71, [(delivery, 1)])
        lines.write(delivery, dead(1, status="unknown", reason="outage: HTTP 500"))
        assert lines.do(redelivered, delivery) == {1: 71}
