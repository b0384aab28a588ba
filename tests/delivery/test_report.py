"""The report: small, and its counts as they are."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.ledger.deliveries import Counts
from airflow_provider_regal.ledger.states import Skip
from tests.events.hostile import many

reasons = st.dictionaries(
    st.one_of(
        st.text(st.characters(exclude_categories=()), max_size=300),
        st.sampled_from(["\U0001f600" * 500, "x" * 10_000, "é" * 120 + "a", "é" * 120 + "b"]),
    ),
    st.integers(1, 10**9),
    max_size=30,
)


KINDS = [
    "new", "changed", "unchanged", "superseded", "stale", "in_doubt", "silent", "rejected", "opt_outs", "opt_ins",
    "removed",
]  # fmt: skip


@many
@given(reasons=reasons, count=st.integers(0, 10**10), kinds=st.integers(0, 11))
def test_it_stays_under_two_kilobytes_whatever_the_reasons(reasons, count, kinds):
    report = DeliveryReport(delivery=count)
    report.reasons = Counter(reasons)
    report.read = report.acknowledged = report.requests = count
    report.seconds = 1e6 / 3
    report.skips = Counter({skip.value: count for skip in Skip})
    report.plan = dict.fromkeys(KINDS[:kinds], count)
    shown = report.as_dict()
    assert len(json.dumps(shown)) < 2_048
    assert len(shown["reasons"]) <= 5
    assert len(report.as_table()) < 20 * 10_100 + 2_000


def test_every_key_is_always_there():
    empty = DeliveryReport().as_dict()
    full = DeliveryReport(delivery=1, status="finished", reasons=Counter(often=1), skips=Counter(unchanged=1)).as_dict()
    assert list(empty) == list(full)
    assert (empty["delivery"], empty["left"], empty["per_second"]) == (None, 0, 0.0)


def test_top_reasons_come_first_and_equal_beginnings_are_added():
    report = DeliveryReport(reasons=Counter({"rare": 1, "often": 9, "x" * 130 + "1": 4, "x" * 130 + "2": 3}))
    assert list(report.as_dict()["reasons"].items()) == [("often", 9), ("x" * 120, 7), ("rare", 1)]


def test_the_table_of_a_thousand_reasons_says_how_many_it_leaves_out_and_how_to_list_them():
    report = DeliveryReport(delivery=7, reasons=Counter({f"reason {number}": 1 for number in range(1_000)}))
    assert len(report.as_table().splitlines()) < 35
    assert "and 980 more reasons: airflow regal outcomes 7" in report.as_table()


def test_the_table_counts_in_english():
    one = DeliveryReport(requests=1, repeats=1, outages=1, seconds=2.0).as_table()
    assert one.splitlines()[-1] == "1 request in 2.0 s (0/s), 1 repeat, 1 outage"
    many_ = DeliveryReport(requests=2_000, repeats=0, outages=2, seconds=2.0).as_table()
    assert many_.splitlines()[-1] == "2,000 requests in 2.0 s (1000/s), 0 repeats, 2 outages"


def test_the_table_names_what_is_left():
    report = DeliveryReport(read=10, acknowledged=1, rejected=2, skipped=4)
    assert (report.settled, report.left) == (7, 3)
    assert any(line.split() == ["left", "3"] for line in report.as_table().splitlines())


def test_it_takes_over_what_was_counted():
    counts = Counts(read=9, acknowledged=2, rejected=1, unknown=1, skipped=5, skips=Counter(unchanged=5), requests=4)
    counts.plan["new"] = 3
    report = DeliveryReport()
    report.count(counts)
    names = Counts.__dataclass_fields__.keys() - {"owed_rows", "guard"}
    assert {name: getattr(report, name) for name in names} == {name: getattr(counts, name) for name in names}
    counts.skips["older"] += 1
    assert report.skips == {"unchanged": 5}, "it does not change with the delivery"


def test_speed():
    report = DeliveryReport(requests=10)
    assert report.per_second == 0.0
    report.seconds = 2.0
    assert report.as_dict()["per_second"] == 5.0


def test_the_plan_of_a_sync_is_drawn_with_what_it_means():
    report = DeliveryReport(plan={"new": 1_234, "rejected": 2}, reasons=Counter({"phone: not valid": 2}))
    plan = report.plan_as_table(with_reasons=True).splitlines()
    assert plan[0].split(maxsplit=2) == ["new", "1,234", "nothing is on record"]
    assert plan[2].split() == ["2", "x", "phone:", "not", "valid"]
