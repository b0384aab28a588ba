"""Times and texts in a form that every database can store and compare."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.ledger.text import TIME_LENGTH, Moments, fit, from_ledger_time, short, to_ledger_time
from tests.ledger.accounts import START


def test_times_are_text_in_utc():
    moment = START.replace(microsecond=7).astimezone(timezone(timedelta(hours=-5)))
    assert to_ledger_time(moment) == "2026-11-24T02:00:00.000007Z"
    assert from_ledger_time("2026-11-24T02:00:00.000007Z") == moment
    with pytest.raises(ValueError, match="time zone"):
        to_ledger_time(START.replace(tzinfo=None))


@given(st.datetimes(), st.datetimes())
def test_times_sort_as_they_follow_each_other(one, other):
    utc = [moment.replace(tzinfo=UTC) for moment in (one, other)]
    assert (to_ledger_time(utc[0]) < to_ledger_time(utc[1])) == (one < other)
    assert from_ledger_time(to_ledger_time(utc[0])) == utc[0]
    assert len(to_ledger_time(utc[0])) == TIME_LENGTH


class Passing:
    """Two clocks that go together; the monotonic one began long ago."""

    def __init__(self, start):
        self.start, self.passed, self.asked = start, timedelta(), 0

    def now(self):
        self.asked += 1
        return self.start + self.passed

    def monotonic(self):
        return 1_234.5 + self.passed.total_seconds()


@given(
    st.integers(0, 10**15),  # microseconds
    st.lists(st.timedeltas(min_value=timedelta(), max_value=timedelta(seconds=3)), max_size=20),
)
def test_moments_are_what_the_clock_says(since, steps):
    clock = Passing(START + timedelta(microseconds=since))
    moments = Moments(now=clock.now, monotonic=clock.monotonic)
    for step in steps:
        clock.passed += step
        told = moments.at(clock.monotonic())
        assert len(told) == TIME_LENGTH
        assert abs(from_ledger_time(told) - clock.now()) <= timedelta(microseconds=2)


def test_the_clock_is_read_once_a_second():
    clock = Passing(START)
    moments = Moments(now=clock.now, monotonic=clock.monotonic)
    for _ in range(3_000):
        clock.passed += timedelta(milliseconds=1)
        moments.at(clock.monotonic())
    assert 3 <= clock.asked <= 5
    before = clock.monotonic() - 0.5  # somebody else asked since for a later moment
    clock.passed = timedelta(seconds=10)
    moments.at(clock.monotonic())
    assert moments.at(before) == to_ledger_time(START + timedelta(seconds=10))


@given(st.text(st.characters(exclude_categories=()), max_size=40), st.integers(1, 20))
def test_texts_for_people_are_cut_to_fit(text, longest):
    kept = fit(text, longest)
    assert len(kept) <= longest
    assert "\0" not in kept
    kept.encode("utf-8")  # no half of a surrogate pair
    if len(text) > longest:
        assert kept.endswith("…")


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=8), max_size=6))
def test_keys_stay_apart_however_they_are_stored(keys):
    assert len({short(key, 4) for key in keys}) == len({*keys})


def test_the_package_is_imported_without_sqlalchemy():
    code = "import sys; from airflow_provider_regal.ledger import text; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
