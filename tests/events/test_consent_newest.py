"""The consent rules, second half: only the newest counts, promotion, and plausible times."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.events import ConsentPolicy
from airflow_provider_regal.events.times import READABLE_TIMES
from tests.events import hostile
from tests.events.saying import (
    IP,
    NOW,
    OTHER,
    PHONE,
    opt_in,
    payload,
    reasons,
    sent,
)

# Rule 5: only the newest per identifier and channel counts.


@hostile.many
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sms", "voice"]),
            st.booleans(),
            st.one_of(st.none(), st.integers(-3, 1)),
        ),
        max_size=6,
    )
)
def test_only_the_newest_counts_and_at_equal_times_the_opt_out_wins(decisions):
    # Days before now. With None, or a day in the future, an opt-in is withheld and an opt-out counts as now.
    written = [
        opt_in(yes, channel, timestamp=None if day is None else NOW + timedelta(days=day))
        for channel, yes, day in decisions
    ]
    expected: dict[str, bool] = {}
    for channel in ("sms", "voice"):
        real = [
            (0 if day is None or day > 0 else day, not yes)
            for at, yes, day in decisions
            if at == channel and not (yes and (day is None or day > 0))
        ]
        if real:
            expected[channel] = not max(real)[1]
    assert {channel: value["subscribed"] for channel, value in sent(*written).items()} == expected


def test_opt_ins_of_all_forms_for_one_phone_are_compared():
    older, newer = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    made = payload(
        phone=PHONE,
        phones={PHONE: {"smsOptIn": {"subscribed": True, "timestamp": older, "ip": IP}}},
        opt_in=[opt_in(False, timestamp=newer)],
    )
    assert made.body["traits"]["phones"][PHONE]["smsOptIn"]["subscribed"] is False


def test_each_phone_and_channel_is_judged_by_itself():
    made = payload(
        phones={
            PHONE: {"smsOptIn": {"subscribed": False}, "voiceOptIn": opt_in_placed()},
            OTHER: {"smsOptIn": opt_in_placed()},
        }
    )
    assert made.body["traits"]["phones"][PHONE]["smsOptIn"]["subscribed"] is False
    assert made.body["traits"]["phones"][PHONE]["voiceOptIn"]["subscribed"] is True
    assert made.body["traits"]["phones"][OTHER]["smsOptIn"]["subscribed"] is True


def opt_in_placed(**evidence: Any) -> dict[str, Any]:
    entry = opt_in(**evidence)
    del entry["channel"]
    return entry


# Rule 7: promotion without consent is reported.


def test_promoting_a_phone_without_the_consent_another_has_is_reported():
    made = payload(phones={PHONE: {"smsOptIn": opt_in_placed()}, OTHER: {"isPrimary": True}})
    (note,) = made.notes
    assert note.startswith("phones[1] becomes primary without its own opt-in for sms, which another phone")


def test_an_opt_out_or_a_withheld_opt_in_of_the_promoted_phone_is_no_consent():
    for own in ({"subscribed": False}, opt_in_placed(ip=None)):
        made = payload(phones={PHONE: {"smsOptIn": opt_in_placed()}, OTHER: {"isPrimary": True, "smsOptIn": own}})
        assert len(made.notes) == 1


def test_promotion_with_its_own_consent_is_not_reported():
    made = payload(
        phones={PHONE: {"smsOptIn": opt_in_placed()}, OTHER: {"isPrimary": True, "smsOptIn": opt_in_placed()}}
    )
    assert made.notes == ()


def test_a_single_phone_whose_opt_in_is_withheld_is_not_called_promoted():
    made = payload(phone=PHONE, opt_in=[opt_in(timestamp=None)])
    assert made.notes == ()
    assert len(made.withheld) == 1


# Rule 6: no consent from the future or from too long ago.


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("2026-11-23T12:00:01Z", "the timestamp lies in the future"),
        ("2999-01-01", "the timestamp lies in the future"),
        ("1970-01-01T00:00:00Z", "the timestamp lies before 1991, which is not a plausible time of consent"),
        (631152001, "the timestamp lies before 1991, which is not a plausible time of consent"),
        (0, f"the timestamp can't be read, so it is not evidence; write {READABLE_TIMES}"),
    ],
)
def test_an_opt_in_of_an_impossible_time_is_withheld(time, reason):
    assert sent(opt_in(timestamp=time)) == {}
    assert reasons(opt_in(timestamp=time)) == [reason]


def test_an_opt_in_of_this_very_moment_is_sent():
    assert sent(opt_in(timestamp=NOW))["sms"]["subscribed"] is True


def test_an_opt_in_older_than_max_consent_age_is_withheld_and_an_opt_out_is_not():
    policy = ConsentPolicy(max_consent_age=timedelta(days=30))
    assert reasons(opt_in(), policy=policy) == ["given longer ago than max_consent_age (30 days, 0:00:00)"]
    assert sent(opt_in(False), policy=policy)["sms"]["subscribed"] is False
    assert sent(opt_in(timestamp=NOW - timedelta(days=30)), policy=policy)["sms"]["subscribed"] is True


def test_a_naive_time_of_consent_is_read_in_utc():
    assert (
        sent(opt_in(timestamp=datetime.fromisoformat("2026-03-02T14:05:09")))["sms"]["timestamp"]
        == "2026-03-02 14:05:09 +00:00"
    )
