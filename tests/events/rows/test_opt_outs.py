"""Opt-outs are extracted from otherwise invalid events."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given

from airflow_provider_regal.events.rows.opt_outs import loses_a_decision, opt_outs_of, unreadable_decisions
from tests.events.hostile import many, written_events
from tests.events.saying import MAIL, PHONE

NO = {"channel": "sms", "subscribed": False, "timestamp": "2026-03-01T00:00:00Z"}
YES = {"channel": "voice", "subscribed": True, "timestamp": "2026-03-01T00:00:00Z", "ip": "203.0.113.9"}


def said(event):
    return {
        (getattr(point, "number", None) or point.address, opt_in.channel): opt_in.subscribed
        for point in (*event.phones, *event.emails)
        for opt_in in point.opt_ins
    }


@pytest.mark.parametrize(
    "wrong",
    [{"user_id": 1.5}, {"traits": {"x": b"bytes"}}, {"email": "no email"}, {"nonsense": 1}, {"timestamp": "once"}],
    ids=["user_id", "trait", "email", "field", "timestamp"],
)
def test_whatever_else_is_wrong_the_opt_out_is_found_and_nothing_else(wrong):
    event = opt_outs_of({"phone": PHONE, "opt_in": [NO, YES], **wrong})
    assert said(event) == {(PHONE, "sms"): False}
    assert event.user_id is None
    assert event.traits == {}


def test_an_opt_out_whose_phone_is_wrong_does_not_hold_the_others():
    event = opt_outs_of({"phone": "12", "email": MAIL, "opt_in": [NO, {"channel": "email", "subscribed": "false"}]})
    assert said(event) == {(MAIL, "email"): False}


def test_an_opt_out_under_its_phone_is_found_too():
    event = opt_outs_of({"traits": {"phones": {PHONE: {"smsOptIn": {"subscribed": False}}}, "x": b""}})
    assert said(event) == {(PHONE, "sms"): False}


@pytest.mark.parametrize("phone", [2125550100.0, Decimal("2125550100"), "2125550100.0", 12125550100.0])
def test_a_phone_that_became_a_fraction_has_all_its_digits(phone):
    assert said(opt_outs_of({"phone": phone, "opt_in": [NO]})) == {(PHONE, "sms"): False}


@pytest.mark.parametrize("phone", ["2.125550131E9", " 2.125550131e+09", "1.2125550131E+10"])
def test_a_phone_that_got_an_exponent_and_kept_all_digits_is_read(phone):
    assert said(opt_outs_of({"phone": phone, "opt_in": [NO]})) == {("+12125550131", "sms"): False}


@pytest.mark.parametrize(
    "phone",
    [
        "2.1E9", "2.12555E9", "2.1255501E+9", "2.125550131E10", "2.1255501311E9", "2.1E+09", float("nan"), float("inf"),
        2.5, Decimal("sNaN"), Decimal("1E+99999"),
    ],
)  # fmt: skip
def test_a_phone_that_lost_digits_is_not_guessed(phone):
    assert opt_outs_of({"phone": phone, "opt_in": [NO]}) is None


def test_the_same_phone_twice_loses_no_opt_out():
    event = opt_outs_of({"phones": {PHONE: {"smsOptIn": False}, "(212) 555-0100": {"voiceOptIn": False}}})
    assert said(event) == {(PHONE, "sms"): False, (PHONE, "voice"): False}


def test_what_is_neither_yes_nor_no_is_found_by_phone_and_channel():
    written = {"phone": PHONE, "email": MAIL, "opt_in": [{"channel": " SMS", "subscribed": "maybe"}, YES, NO]}
    assert unreadable_decisions(written) == [(PHONE, "sms", None)]
    written["opt_in"][0]["timestamp"] = "2026-03-02"
    assert unreadable_decisions(written)[0].at == datetime(2026, 3, 2, 23, 59, 59, 999_999, tzinfo=UTC)
    assert unreadable_decisions({"phone": "12", "opt_in": [{"channel": "sms", "subscribed": "maybe"}]}) == []


@pytest.mark.parametrize(
    ("written", "lost"),
    [
        ({"phone": PHONE, "opt_in": [NO]}, False),
        ({"phone": PHONE, "opt_in": [YES]}, False),
        ({"user_id": "u", "opt_in": [NO]}, False),  # the ledger may know the phone
        ({"phone": "12", "opt_in": [NO]}, True),
        ({"phone": PHONE, "opt_in": [{"channel": "sms", "subscribed": "maybe"}]}, True),
        ({"user_id": "u", "opt_in": [{"channel": "sms", "subscribed": "maybe"}]}, True),
        ({"phone": PHONE, "opt_in": [{"channel": "fax", "subscribed": False}]}, True),
        ({"phone": PHONE, "opt_in": [{"channel": "fax", "subscribed": True}]}, False),
    ],
)
def test_a_decision_is_lost_if_it_cannot_be_taken_out(written, lost):
    assert loses_a_decision(written) is lost


def test_an_event_without_opt_outs_gives_none():
    assert opt_outs_of({"phone": PHONE, "opt_in": [YES], "x": 1}) is None
    assert opt_outs_of({"user_id": "u"}) is None
    assert opt_outs_of({}) is None


@many
@given(written=written_events)
def test_any_event_gives_opt_outs_alone_or_none(written):
    event = opt_outs_of(written)
    if event is not None:
        assert set(said(event).values()) == {False}
        assert event.traits == {}
