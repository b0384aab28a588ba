"""The columns of a source: missing ones that options name, and misspelled reserved names."""

from __future__ import annotations

import pytest

from airflow_provider_regal.events.options import RowMapping
from airflow_provider_regal.events.rows.columns import ColumnsSeen, plan_of, reserved_names


def seen(*rows, lower_upper=True):
    columns = ColumnsSeen(lower_upper=lower_upper)
    for row in rows:
        columns.add(tuple(row))
    return columns


def near(*columns, call="identify", mapped=(), event=None):
    return seen(columns).near_misses(reserved_names(RowMapping(call, event)), mapped)


def test_a_name_that_no_row_has_is_missing_and_one_that_any_has_is_not():
    columns = seen(["user_id"], ["user_id", "plan"])
    assert columns.missing(["plan", "user_id", "tarif"]) == ["tarif"]


def test_without_rows_nothing_is_missing():
    assert seen().missing(["plan"]) == []


def test_upper_case_columns_are_found_by_both_names():
    assert seen(["USER_ID", "PLAN"]).missing(["plan", "PLAN"]) == []
    assert seen(["USER_ID", "PLAN"], lower_upper=False).missing(["plan"]) == ["plan"]


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("userId", "user_id"),
        ("user-id", "user_id"),
        ("USER_ID", "user_id"),
        ("originalTimestamp", "timestamp"),
        ("messageId", "message_id"),
        ("SMS_OPT_IN", "sms_opt_in"),
        ("sms_optin", "sms_opt_in"),
        ("smsOptIn", "sms_opt_in"),
        ("sms_opt_in_ta", "sms_opt_in_at"),
        ("emial", "email"),
        ("phon", "phone"),
        ("phonee", "phone"),
        ("firstname", "first_name"),
    ],
)
def test_a_name_one_letter_or_case_away_is_a_near_miss(column, meant):
    assert near(column, "lower") == {column: meant}


@pytest.mark.parametrize(
    "column",
    ["plan", "id", "phone2", "phones", "emails", "firstName", "eventSource", "text", "phones.work", "phone_ok"],
)
def test_other_names_are_none(column):
    assert near(column, "lower") == {}


def test_a_column_that_mapping_places_is_none():
    assert near("userId", "lower", mapped=["userId"]) == {}


def test_the_event_is_reserved_where_rows_name_it():
    assert near("Event", "lower", call="track") == {"Event": "event"}
    assert near("Event", "lower", call="track", event="Booked") == {}


@pytest.mark.parametrize(
    ("target", "may"),
    [
        ("opt_in", True),
        ("sms_opt_in", True),
        ("phones.work_sms_opt_in", True),
        ("traits.opt_in", True),
        ("traits.smsOptIn", True),
        ("traits.phones", True),
        ("traits.phones.+12125550100", True),
        ("traits.phones.+12125550100.smsOptIn", True),
        ("traits.plan", False),
        ("traits.address.smsOptIn", False),
        ("phone", False),
        ("phones.work", False),
    ],
)
def test_a_column_may_carry_consent_wherever_an_opt_in_is_read(target, may):
    plan = plan_of(["column"], RowMapping("identify", columns={"column": target}))
    assert plan.faults == []
    assert plan.may_carry_consent is may


def test_the_column_of_a_field_is_found_by_where_it_goes():
    plan = plan_of(["plan", "customer", "phone"], RowMapping("identify", columns={"customer": "user_id"}))
    assert (plan.column_of("user_id"), plan.column_of("phone"), plan.column_of("email")) == ("customer", "phone", None)
    assert not plan.has_message_id
    assert plan_of(["plan", "message_id"], RowMapping("identify")).has_message_id


def test_of_endless_names_not_all_are_kept_and_none_is_called_missing():
    seen = ColumnsSeen(lower_upper=True)
    for number in range(30_000):
        seen.add((f"column_{number}", "user_id"))
    assert seen.missing(["column_29999", "no_such_column"]) == []
    few = ColumnsSeen(lower_upper=True)
    few.add(("column_1",))
    assert few.missing(["column_1", "no_such_column"]) == ["no_such_column"]
