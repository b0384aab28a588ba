"""The report: small, and its counts as they are."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.journal.report import DeliveryReport
from tests.events.hostile import many

reasons = st.dictionaries(
    st.one_of(
        st.text(st.characters(exclude_categories=()), max_size=300),
        st.sampled_from(["\U0001f600" * 500, "x" * 10_000, "é" * 120 + "a", "é" * 120 + "b"]),
    ),
    st.integers(1, 10**9),
    max_size=30,
)


@many
@given(reasons=reasons, depth=st.integers(0, 6), count=st.integers(0, 10**10))
def test_it_stays_under_two_kilobytes_whatever_the_reasons(reasons, depth, count):
    report = DeliveryReport(run_folder="/regal" + "/scheduled__2026-03-02T00%3A00%3A00" * depth)
    report.reasons = Counter(reasons)
    report.read = report.acknowledged = report.requests = count
    report.seconds = 1e6 / 3
    shown = report.as_dict()
    assert len(json.dumps(shown)) < 2_048
    assert len(shown["reasons"]) <= 5
    assert len(report.as_table()) < 20 * 10_100 + 2_000


def test_the_commonest_reasons_come_first_and_equal_beginnings_are_added():
    report = DeliveryReport(run_folder="")
    report.reasons = Counter({"rare": 1, "often": 9, "x" * 130 + "1": 4, "x" * 130 + "2": 3})
    assert list(report.as_dict()["reasons"].items()) == [("often", 9), ("x" * 120, 7), ("rare", 1)]


def test_one_endless_run_folder_leaves_the_counts_readable():
    report = DeliveryReport(run_folder="/x" * 2_000)
    report.reasons["often"] = 1
    assert report.as_dict()["reasons"] == {}
    assert report.as_dict()["run_folder"] == report.run_folder


def test_the_table_of_a_thousand_reasons_says_how_many_it_leaves_out():
    report = DeliveryReport(run_folder="")
    report.reasons = Counter({f"reason {number}": 1 for number in range(1_000)})
    assert len(report.as_table().splitlines()) < 35
    assert "980 reasons more" in report.as_table()


def test_settled_and_speed():
    report = DeliveryReport(run_folder="", acknowledged=1, rejected=2, unknown=3, skipped=4, requests=10)
    assert report.settled == 10
    assert report.per_second == 0.0
    report.seconds = 2.0
    assert report.as_dict()["per_second"] == 5.0
