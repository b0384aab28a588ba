"""The options of a delivery."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta

import pytest

from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings


def settings(call="identify", **options):
    return DeliverySettings.of(call=call, **options)


@pytest.mark.parametrize(
    ("allowed", "read", "rows"),
    [(0, 100, 0), (1, 100, 1), (1.0, 100, 100), (0.29, 100, 29), (0.07, 100, 7), (0.01, 50, 0)],
)
def test_thresholds(allowed, read, rows):
    assert settings(max_rejected=allowed).rejected_allowed(read) == rows
    assert settings(max_unknown=allowed).unknown_allowed(read) == rows


@pytest.mark.parametrize(("read", "rows"), [(0, 10), (1_000, 10), (5_000, 50)])
def test_unknowns_by_default(read, rows):
    assert settings().unknown_allowed(read) == rows


@pytest.mark.parametrize(
    ("call", "guarantee"), [("identify", "at_least_once"), ("track", "at_most_once"), ("page", "at_most_once")]
)
def test_the_guarantee_follows_what_a_repeat_does(call, guarantee):
    assert settings(call).guarantee_of(call) == guarantee


@pytest.mark.parametrize(
    "wrong",
    [
        {"call": "alias"},
        {"guarantee": "exactly_once"},
        {"max_rejected": -1},
        {"max_rejected": 1.5},
        {"max_rejected": True},
        {"max_unknown": float("nan")},
        {"max_refused": 1.5},
        {"max_refused": -0.1},
        {"max_refused": True},
        {"rate": 0},
        {"rate": 0.5},
        {"max_connections": 2.0},
        {"outage_patience": 0},
        {"outage_patience": float("nan")},
        {"min_rows": -1},
        {"limit": -1},
        {"limit": 1.5},
        {"timezone": "Mars/Base"},
        {"timezone": "../etc"},
        {"column_names": "lower"},
        {"max_event_age": 7},
        {"types": {"x": list}},
        {"call": "track", "event": "Booked", "only_changed": True},
        {"key": "user_id"},
        {"call": "track", "event": "Booked", "suppress_named_events": "True"},
        {"suppress_named_events": True},
        {"dry_run": "False"},
        {"only_changed": 1},
        {"max_consent_age": 7},
    ],
    ids=str,
)
def test_what_cannot_be_right_is_said_at_once(wrong):
    with pytest.raises(ValueError, match=r"."):
        settings(**{"call": "identify", **wrong})


def test_times_are_given_as_timedeltas_or_seconds():
    assert (
        settings(outage_patience=timedelta(minutes=5)).outage_patience_s
        == settings(outage_patience=300).outage_patience_s
    )


def test_an_option_that_is_gone_is_no_option():
    with pytest.raises(TypeError, match="checkpoint_interval"):
        settings(checkpoint_interval=5)


EVERY_OPTION = {
    "mapping": {"a": "traits.x", "b": None, "at": ("sms_opt_in_at", "timestamp")},
    "types": {"a": str, "b": int, "c": float, "d": bool, "e": date,
    "f": datetime, "g": "json"}, "values": {"Yes": True, "never": False, "?": None}, "column_names": "keep",
    "timezone": "America/New_York", "send_nulls": True, "on_invalid_phone": "drop", "on_invalid_email": "drop",
    "require_ip": False, "max_consent_age": timedelta(days=30), "opt_out_scope": "person", "outage_patience": 1.5,
    "guarantee": "at_most_once", "max_rejected": 0.5, "max_unknown": 3, "min_rows": 1, "max_rows": 9,
    "volume": [0.5, 2.0], "max_refused": None, "limit": 8, "rate": 7, "max_connections": 6, "max_event_age": None,
    "contract": {"traits": {"type": "object"}},
    "plan": True, "restart": True, "only_changed": True, "key": ["a", "b"], "on_shared": "reject",
    "sync": SyncSettings(
        {"a": "phone", "b": ["email", "ip"]}, initial="send", as_event="Agreed", on_removed="opt_out", full_resync=True,
        max_change_ratio=None, known_before=5,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "options", [{}, EVERY_OPTION, {"key": "a", "only_changed": True}], ids=["none", "every", "some"]
)
def test_options_are_the_same_when_they_were_written_down(options):
    given = settings(**options)
    read = DeliverySettings.from_json(given.to_json())
    assert (read.contract and read.contract.document) == (given.contract and given.contract.document)
    assert dataclasses.replace(read, contract=None) == dataclasses.replace(given, contract=None)
    # This is how the next plan recognizes contacts that an earlier plan sent.
    assert repr((read.mapping, read.reading, read.consent)) == repr((given.mapping, given.reading, given.consent))


def test_no_option_is_forgotten_there():
    given, usual = settings(**EVERY_OPTION), settings()
    elsewhere = {"dry_run", "suppress_named_events"}  # neither can be combined with the others
    for part in (None, "mapping", "reading", "consent", "sync"):
        mine, theirs = (one if part is None else getattr(one, part) for one in (given, usual))
        theirs = theirs or SyncSettings()
        names = {one.name for one in dataclasses.fields(mine)} - elsewhere - {"call", "event", "known_to_regal"}
        assert [name for name in names if getattr(mine, name) == getattr(theirs, name)] == [], part
