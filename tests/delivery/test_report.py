"""The report: small, with correct counts."""

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


WORDS = [
    "sent", "unchanged", "older", "no_evidence", "unreadable", "opt_outs", "opt_ins", "suppressed", "removed",
    "recorded",
]  # fmt: skip


@many
@given(reasons=reasons, count=st.integers(0, 10**10), planned=st.booleans())
def test_it_stays_under_two_kilobytes_whatever_the_reasons(reasons, count, planned):
    report = DeliveryReport(delivery=count)
    report.reasons = Counter(reasons)
    report.read = report.acknowledged = report.requests = count
    report.seconds = 1e6 / 3
    report.skips = Counter({skip.value: count for skip in Skip})
    report.plan = dict.fromkeys(WORDS, count) if planned else {}
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
    names = Counts.__dataclass_fields__.keys() - {
        "only_changed", "owed_rows", "owed_last", "guard", "answers_429", "outage_since", "outage_reason",
    }  # fmt: skip
    assert {name: getattr(report, name) for name in names} == {name: getattr(counts, name) for name in names}
    counts.skips["older"] += 1
    assert report.skips == {"unchanged": 5}, "it does not change with the delivery"


def test_speed():
    report = DeliveryReport(requests=10)
    assert report.per_second == 0.0
    report.seconds = 2.0
    assert report.as_dict()["per_second"] == 5.0


def test_the_plan_of_a_sync_is_five_words_and_what_they_mean():
    plan = dict.fromkeys(WORDS, 0) | {"sent": 1_234, "opt_outs": 1_233, "opt_ins": 1, "no_evidence": 2}
    report = DeliveryReport(plan=plan)
    assert report.plan_as_table().splitlines() == [
        "sent               1,234   new, or newer than what is on record: 1,233 opt-outs first, then 1 opt-in",
        "unchanged              0   Regal has it, or may have it already",
        "older                  0   a newer decision is in the source or on record",
        "no evidence            2   an opt-in without a time or IP address that counts; rejected",
        "unreadable             0   can't be read or can't be sent as it is; rejected",
    ]
    report.plan = plan | {"sent": 0, "recorded": 5, "suppressed": 2, "no_decision": 3, "removed": 1}
    assert report.plan_as_table().splitlines()[5:] == [
        "recorded               5   Regal is known to have it, so nothing is sent",
        "suppressed             2   of people who must not be contacted; not sent",
        "no decision            3   no yes or no for a phone or email that the row has; nothing is sent",
        "1 opt-in on record is not in the source",
    ]


def test_the_table_says_per_reason_how_many_opt_ins_were_withheld_and_how_to_list_them():
    report = DeliveryReport(delivery=17, withheld=Counter({"no ip": 3, "older": 1_200}))
    lines = report.as_table().splitlines()
    assert lines[5:9] == [
        "opt-ins withheld     1,203",
        "     1,200 x older",
        "         3 x no ip",
        "  List them: airflow regal consent --delivery 17",
    ]
    assert report.as_dict()["opt_ins_withheld"] == 1_203
