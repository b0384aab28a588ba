"""The fast path from a row to its payload returns the result of the full path, or gives up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events.options import Reading, RowMapping
from airflow_provider_regal.events.payload import to_payload
from airflow_provider_regal.events.rows.fast_path import quick_rows
from airflow_provider_regal.events.rows.mapping import RowMapper
from tests.events.hostile import emails, many, phones, times, values

NOW = datetime(2026, 11, 24, tzinfo=UTC)
READINGS = (Reading(), Reading(ZoneInfo("America/New_York"), send_nulls=True))

plain_values = st.one_of(
    st.text(max_size=4), st.integers(-(2**54), 2**54), st.floats(), st.booleans(), st.none(), st.dates(),
    st.datetimes(), st.decimals(), st.uuids(), st.lists(st.integers(), max_size=2), values,
)  # fmt: skip
columns = {
    "user_id": st.sampled_from(["u1", 5, None, " ", UUID(int=3), 2.0, True]),
    "phone": st.one_of(st.sampled_from(["(212) 555-0100", "+12125550199"]), phones),
    "email": st.one_of(st.just("A@Example.com"), emails),
    "timestamp": st.one_of(st.datetimes(), times),
    "message_id": st.sampled_from(["m-1", 17, None, "", 1.5]),
    "event": st.sampled_from(["Loan Signed", "identify", "", None, 5]),
    "first_name": plain_values,
    "address_city": plain_values,
    "address_state": st.sampled_from(["NY", "New York", None, 5, "", float("nan")]),
    "address_postalCode": st.sampled_from(["02110", None]),
    "subBrand": st.sampled_from(["acme", None, 5]),
    "plan": plain_values,
    "typed": plain_values,
    "pageview": plain_values,
    "category": plain_values,
}
rows = st.builds(
    lambda typed, one, two: {"typed": typed, **one, **two},
    columns.pop("typed"),
    st.fixed_dictionaries({}, optional=columns),
    st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from(["traits", "properties", "optIn"])), plain_values,
                    max_size=2),
)  # fmt: skip
mappings = st.builds(
    RowMapping,
    st.sampled_from(["identify", "page", "screen"]),
    types=st.sampled_from([None, {"typed": str}, {"typed": int}, {"typed": date}]),
    columns=st.sampled_from(
        [
            None,
            {"typed": "traits.typed"},
            {"typed": None},
            {"typed": "traits.address.city"},
            {"typed": ["traits.one", "traits.two"]},
            {"plan": ["traits.plan", "user_id"]},
        ]
    ),
) | st.builds(
    RowMapping,
    st.just("track"),
    event=st.sampled_from([None, "Loan Signed", " "]),
    columns=st.sampled_from(
        [
            None,
            {"typed": "traits.phone"},
            {"typed": "properties.a.b"},
            {"typed": "event"},
            {"typed": ["properties.a", "event", "traits.b"]},
        ]
    ),
)


def quick(row, how, reading):
    """What the quick way says; None if it gives up."""
    plan = RowMapper(how, reading).plan(tuple(row))
    reader = quick_rows(plan, how, reading, event_source="airflow")
    try:
        return None if reader is None else reader.read(row)
    except (ValueError, InvalidEventError):
        return None


@many
@given(row=rows, how=mappings, reading=st.sampled_from(READINGS))
def test_where_it_does_not_give_up_it_says_what_the_long_way_says(row, how, reading):
    found = quick(row, how, reading)
    if found is None:
        return
    event = RowMapper(how, reading).event(row)
    payload = to_payload(event, now=NOW, event_source="airflow")
    assert found.payload.encoded == payload.encoded
    assert (found.payload.call, found.payload.notes) == (payload.call, payload.notes)
    assert (payload.consents, payload.withheld, payload.opt_outs_elsewhere) == ((), (), ())
    told = (event.user_id, *(phone.number for phone in event.phones), *(email.address for email in event.emails))
    assert tuple(one.removeprefix("user:") for one in found.identifiers) == tuple(one for one in told if one)
    assert (found.user_id, found.message_id, found.timestamp) == (event.user_id, event.message_id, event.timestamp)


USUAL = {
    "user_id": 42, "phone": "(212) 555-0100", "email": "A@Example.com", "first_name": "Chloé", "address_city": "Albany",
    "plan": "gold", "visits": 3, "rate": 0.5, "vip": True, "left": None, "joined": date(2026, 1, 2),
    "paid": Decimal("3.50"), "timestamp": "2026-11-01 08:30:00",
}  # fmt: skip


@pytest.mark.parametrize("how", [RowMapping("identify"), RowMapping("track", event="Loan Signed"), RowMapping("page")])
def test_it_does_not_give_up_on_a_usual_row(how):
    assert quick(USUAL, how, Reading()) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"sms_opt_in": True}, {"opt_in": None}, {"sub_brand": "acme"}, {"phone": "212"}, {"email": "?"},
        {"first_name": 5}, {"visits": 2**60}, {"user_id": 1.5}, {"plan": b"x"}, {"timestamp": "soon"}, {"": 1},
        {"plan": "\ud800"}, {"plan": "x" * 300_000},
    ],
)  # fmt: skip
def test_it_gives_up_on_consent_and_on_whatever_may_be_wrong(more):
    assert quick({**USUAL, **more}, RowMapping("identify"), Reading()) is None
