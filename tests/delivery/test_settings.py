"""The options of a delivery."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_regal.delivery.settings import DeliverySettings


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
