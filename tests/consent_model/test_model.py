"""The model itself: it shares nothing with the package, and knows a broken rule when it sees one."""

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
    model.begins(name, Options(**options))
    model.reads(name, "dag.task", [Row((one,), yes) for one in statements], (at, at), certain=True)
    return model.receives(name, found, anew=True, calm=True)


def ended(model, name, found=(), *, green=True, faultless=False, owed=()):
    return model.ends(name, found, [], green=green, orderly=True, faultless=faultless, owed=set(owed))


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
    model.begins("two", Options())
    model.reads("two", "dag.task", [Row((replace(NO, at=NOW),))], (NOW, NOW), certain=False)
    assert model.final(KEY) == {True, False}
