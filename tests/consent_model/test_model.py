"""The model itself: it shares nothing with the package, and detects broken rules."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.consent_model.model import (
    ConsentModel,
    No,
    Options,
    Received,
    Request,
    Row,
    Statement,
    Unreadable,
    Yes,
    answer_of,
    meaning_of,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PHONE, KEY, IP = "+12125550101", ("+12125550101", "sms"), "203.0.113.9"
YES = Statement("u1", PHONE, "sms", True, NOW - HOUR, IP)
NO = replace(YES, answer="STOP", ip=None)
SENT = Received(1, "u1", PHONE, "sms", True, NOW - HOUR, IP, stored=True, told=True, refused=False)


def test_the_model_imports_nothing_but_python():
    tree = ast.parse(Path(__file__).with_name("model.py").read_text())
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert names <= {*sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        *((yes, True) for yes in (True, 1, 1.0, Decimal(1), "true", " T ", "1")),
        *((no, False) for no in (False, 0, 0.0, Decimal("0.0"), "0", "F", "no", "off", "OPTED_OUT", "Stop", "denied")),
        *((nothing, None) for nothing in (None, "", " ", float("nan"))),
        *((odd, "unreadable") for odd in ("yes", "on", "maybe", 2, -1)),
    ],
)
def test_answers(written, answer):
    assert answer_of(written) == answer


@pytest.mark.parametrize(
    ("statement", "options", "meaning"),
    [
        (YES, {}, Yes(NOW - HOUR, IP)),
        (replace(YES, at=NOW - HOUR + timedelta(milliseconds=900)), {}, Yes(NOW - HOUR, IP)),
        (replace(YES, at=date(2026, 11, 24)), {}, Yes(NOW.replace(hour=0), IP)),
        (replace(YES, at=NOW + HOUR), {}, None),
        (replace(YES, at=None), {}, None),
        (replace(YES, at="soon"), {}, None),
        (replace(YES, at=datetime(1970, 1, 1, tzinfo=UTC)), {}, None),
        (YES, {"max_age": timedelta(minutes=59)}, None),
        (replace(YES, ip=None), {}, None),
        (replace(YES, ip=None), {"require_ip": False}, Yes(NOW - HOUR, None)),
        (replace(YES, ip="10.0.0.5"), {}, None),
        (replace(YES, ip="10.0.0.5"), {"require_ip": False}, Yes(NOW - HOUR, "10.0.0.5")),
        (replace(YES, ip="unknown"), {"require_ip": False}, None),
        (NO, {}, No(NOW - HOUR, True)),
        (replace(NO, at=None), {}, No(NOW, False)),
        (replace(NO, at="soon"), {}, No(NOW, False)),
        (replace(NO, at=NOW + HOUR), {}, No(NOW + HOUR, True)),
        (replace(NO, at=NOW + 25 * HOUR), {}, No(NOW, False)),
        (replace(NO, at=date(2026, 11, 24)), {}, No(NOW.replace(hour=23, minute=59, second=59), True)),
        (replace(YES, answer="yes"), {}, Unreadable(NOW - HOUR)),
        (replace(YES, answer=None), {}, None),
    ],
)
def test_what_a_statement_means(statement, options, meaning):
    assert meaning_of(statement, Options(**options), NOW) == meaning


@pytest.fixture
def model():
    return ConsentModel()


def delivers(model, name, *statements, yes="sent", at=NOW, found=(), **options):
    """Let a delivery read rows, each of one statement, and Regal receive something of it."""
    model.begins(name, Options(**options), anew=True)
    model.reads(name, "dag.task", [Row((one,), yes) for one in statements], (at, at), certain=True)
    return model.receives(name, requests(found), anew=True, calm=True)


def requests(found):
    """Return one request for each decision."""
    return [
        Request(one.number, frozenset({one.point}), named=False, opts_out_only=not one.subscribed, decisions=(one,))
        for one in found
    ]


def ended(model, name, found=(), *, green=True, faultless=False, owed=()):
    return model.ends(name, requests(found), [], green=green, orderly=True, faultless=faultless, owed=set(owed))


def test_a_yes_with_its_evidence_breaks_nothing(model):
    assert delivers(model, "one", YES, found=[SENT]) == []
    assert ended(model, "one", [SENT], faultless=True) == []
    assert model.final(KEY) == {True}


@pytest.mark.parametrize(
    ("statements", "options", "rule"),
    [
        ([YES, NO], {}, "rule 5: not newer than the opt-out"),
        ([NO], {}, "rule 1: nobody has said so"),
        ([replace(YES, ip="203.0.113.8")], {}, "rule 1: nobody has said so"),
        ([YES], {"yes": "never"}, "rule 1: nobody has said so"),
        ([YES, replace(YES, answer="maybe", at=NOW)], {}, "rule 4"),
        ([YES], {"may_send": "no"}, "a guard"),
        ([YES], {"may_send": "nothing"}, "rule 10"),
        ([YES, replace(NO, channel="voice", at=NOW)], {"scope": "person"}, "rule 5"),
    ],
)
def test_a_yes_that_must_not_be_sent(model, statements, options, rule):
    broken = delivers(model, "one", *statements, found=[SENT], **options)
    assert any(rule in one for one in broken), broken


def test_an_opt_out_that_nobody_has_stated(model):
    broken = delivers(model, "one", YES, found=[replace(SENT, subscribed=False)])
    assert "nobody has opted out" in broken[0]


def test_a_decision_that_is_sent_twice(model):
    delivers(model, "one", YES, found=[SENT], once=True)
    ended(model, "one", [SENT])
    assert "rule 5" in delivers(model, "two", YES, found=[replace(SENT, number=2)], once=True)[0]


def test_an_event_that_is_sent_twice(model):
    event = replace(SENT, event=True, told=False)
    assert delivers(model, "one", YES, found=[event]) == []
    assert "rule 5" in delivers(model, "two", YES, found=[event])[0]
    refused = replace(event, refused=True, channel="voice", stored=False)
    assert delivers(model, "three", replace(YES, channel="voice"), found=[refused, refused]) == []


def test_an_opt_out_that_is_lost(model):
    delivers(model, "one", NO)
    assert "does not owe it" in ended(model, "one", green=False)[0]
    assert ended(model, "one", green=False, owed=[KEY]) == []
    assert "it succeeded" in ended(model, "one", owed=[KEY])[0]
    assert "did not send it" in ended(model, "one", green=False, owed=[KEY], faultless=True)[0]
    assert model.final(KEY) == {False}


def test_an_owed_opt_out_that_is_not_sent_before_all_else_of_that_phone(model):
    delivers(model, "one", NO)
    voice = replace(YES, channel="voice")
    first = replace(SENT, channel="voice")
    owed = replace(SENT, number=2, user=None, subscribed=False)
    assert "not the first" in delivers(model, "two", voice, found=[first, owed])[0]
    assert delivers(model, "three", voice, found=[owed, first]) == []


def test_a_decision_that_cannot_be_read_and_a_task_that_succeeds(model):
    delivers(model, "one", replace(YES, answer="maybe"))
    assert "rule 4" in ended(model, "one")[0]


def test_what_may_have_been_read_leaves_both_ends_open(model):
    delivers(model, "one", YES)
    model.begins("two", Options(), anew=True)
    model.reads("two", "dag.task", [Row((replace(NO, at=NOW),))], (NOW, NOW), certain=False)
    assert model.final(KEY) == {True, False}


class TestTheHourThatAClockShowsTwice:
    NEW_YORK, SHOWN = Options(zone="America/New_York"), datetime(2026, 11, 1, 1, 30)  # noqa: DTZ001

    def test_is_the_earlier_for_a_yes_and_the_later_for_a_no(self):
        early, late = datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
        assert meaning_of(replace(YES, at=self.SHOWN), self.NEW_YORK, NOW) == Yes(early, IP)
        assert meaning_of(replace(NO, at=self.SHOWN), self.NEW_YORK, NOW) == No(late, True)
        assert meaning_of(replace(YES, at=self.SHOWN, answer="maybe"), self.NEW_YORK, NOW) == Unreadable(late)

    def test_a_day_is_one_of_the_zone(self):
        begins = datetime(2026, 11, 2, 5, tzinfo=UTC)
        assert meaning_of(replace(YES, at=date(2026, 11, 2)), self.NEW_YORK, NOW) == Yes(begins, IP)


def booked(*people, **more):
    return Request(9, frozenset(people), named=True, opts_out_only=False, **more)


def sends(model, name, *found, **options):
    model.begins(name, Options(**options), anew=True)
    return model.receives(name, found, anew=True, calm=True)


class TestSomebodyWhoIsHeld:
    def test_gets_nothing_but_opt_outs(self, model):
        model.suppresses([PHONE])
        assert "must not be contacted" in delivers(model, "one", YES, found=[SENT])[0]
        assert "must not be contacted" in sends(model, "two", booked(PHONE, "user:u1"))[0]
        assert delivers(model, "three", replace(NO, at=NOW), found=[replace(SENT, subscribed=False, at=NOW)]) == []

    def test_is_known_by_a_phone_on_record(self, model):
        ended_with_phone = {"green": True, "orderly": True, "faultless": False, "owed": set()}
        delivers(model, "one", YES, found=[SENT])
        model.ends("one", [], [("u1", PHONE)], **ended_with_phone)
        model.suppresses([PHONE])
        assert "must not be contacted" in sends(model, "two", booked("user:u1"))[0]
        model.releases([PHONE])
        assert sends(model, "three", booked("user:u1")) == []

    def test_has_opt_outs_that_bar_and_are_owed_as_before(self, model):
        model.suppresses([PHONE])
        delivers(model, "one", NO)
        assert "does not owe it" in ended(model, "one", green=False)[0]


class TestSomebodyWhoWasForgotten:
    WHO = ("user:u1", PHONE)

    def test_is_not_owed_what_was_known_and_is_what_is_news(self, model):
        delivers(model, "one", NO)
        model.forgets(self.WHO)
        delivers(model, "two", NO, replace(NO, at=None), replace(YES, answer="maybe"))
        assert ended(model, "two") == []
        delivers(model, "three", replace(NO, at=NOW))
        assert "does not owe it" in ended(model, "three", green=False)[0]

    def test_is_owed_all_of_it_once_they_may_come_back(self, model):
        delivers(model, "one", NO)
        model.forgets(self.WHO)
        model.releases(self.WHO)
        model.begins("two", Options(), anew=True)
        assert "does not owe it" in ended(model, "two")[0]
        assert "rule 5" in delivers(model, "three", YES, found=[SENT])[0]


class TestNamedEventsToWhoOptedOut:
    def test_are_held_where_every_channel_on_record_is_closed(self, model):
        delivers(model, "one", NO)
        assert sends(model, "two", booked(PHONE)) == []
        assert "every channel" in sends(model, "three", booked(PHONE), holds_events=True)[0]

    def test_are_not_where_a_yes_may_be_newer(self, model):
        delivers(model, "one", NO, replace(YES, channel="voice", at=NOW))
        assert sends(model, "two", booked(PHONE), holds_events=True) == []
        assert sends(model, "three", booked("+12125550177"), holds_events=True) == []


class TestTheFirstRunOfASync:
    def test_as_a_baseline_sends_nothing(self, model):
        broken = delivers(model, "one", YES, found=[SENT], first_run="baseline")
        assert "a baseline is only recorded" in broken[0]
        model.fills([Row((YES,))], Options(), NOW)
        assert model.final(KEY) == {True}

    def test_is_refused_where_nobody_has_chosen(self, model):
        delivers(model, "one", YES, first_run="refused")
        assert "was not refused" in ended(model, "one")[0]
        assert model.stops("one", "initial") == []

    def test_is_over_once_something_is_on_record(self, model):
        delivers(model, "one", YES, found=[SENT])
        ended(model, "one", [SENT])
        assert delivers(model, "two", replace(YES, at=NOW), found=[replace(SENT, at=NOW)], first_run="baseline") == []
        delivers(model, "three", first_run="refused")
        assert "without a reason" in model.stops("three", "initial")[0]
        assert "without a reason" in model.stops("three", "lost")[0]


class TestAGuardAgainstFlips:
    PHONES = tuple(f"+121255502{number:02}" for number in range(12))

    def flips(self, model, ratio):
        yeses = [replace(YES, point=phone) for phone in self.PHONES]
        noes = [replace(NO, point=phone, at=NOW) for phone in self.PHONES[:11]]
        sent = [replace(SENT, point=phone) for phone in self.PHONES]
        delivers(model, "one", *yeses, found=sent)
        ended(model, "one", sent)
        more = replace(YES, channel="voice")
        found = [replace(SENT, point=one.point, subscribed=False, at=NOW) for one in noes]
        return delivers(
            model, "two", *noes, more, found=[*found, replace(SENT, channel="voice")], max_change_ratio=ratio
        )

    @pytest.mark.parametrize(("ratio", "broken"), [(0.5, 1), (1.0, 0), (None, 0)])
    def test_lets_no_opt_in_pass(self, model, ratio, broken):
        assert len(self.flips(model, ratio)) == broken

    def test_needs_a_reason(self, model):
        delivers(model, "one", YES, max_change_ratio=0.0)
        assert "without a reason" in model.stops("one", "guard")[0]


def test_with_hashes_only_who_reads_an_opt_out_again_has_to_send_it():
    model = ConsentModel(hashed=True)
    delivers(model, "one", NO)
    assert ended(model, "one", green=False, owed=[KEY]) == []
    delivers(model, "two", replace(YES, channel="voice"))
    assert ended(model, "two", faultless=True, owed=[KEY]) == []
    delivers(model, "three", NO)
    assert "did not send it" in ended(model, "three", green=False, faultless=True, owed=[KEY])[0]


@pytest.mark.parametrize("answer", [False, "STOP"])
def test_a_sync_that_succeeds_has_lost_no_opt_out(model, answer):
    of_no_phone = replace(NO, point=None, answer=answer)
    delivers(model, "one", of_no_phone, is_sync=True)
    assert ended(model, "one") == ["rule 2: it succeeded, though the opt-out of u1 belongs to no phone"]
    assert ended(model, "one", green=False) == []
    delivers(model, "contacts", of_no_phone)
    assert ended(model, "contacts") == []


def test_an_opt_out_of_a_phone_on_record_is_not_lost(model):
    delivers(model, "contacts", YES, found=[SENT])
    delivers(model, "one", replace(NO, point=None), is_sync=True)
    assert not [one for one in ended(model, "one", green=True) if "belongs to no phone" in one]
