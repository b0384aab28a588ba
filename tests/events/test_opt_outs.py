"""Opt-outs are taken out of events that are wrong elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given

from airflow_provider_regal.events.opt_outs import opt_outs_of
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
