"""Times: what can be read, in which zone, and the one format in which they are written."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.events.times import read_day, read_time, write_time
from tests.events import hostile

MOMENT = datetime(2026, 3, 2, 14, 5, 9, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")


class NoOffset(tzinfo):
    """A zone that does not say how far it is from UTC."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None


@pytest.mark.parametrize(
    "written",
    [
        "2026-03-02T14:05:09Z",
        "2026-03-02T14:05:09.000Z",
        "2026-03-02 14:05:09 +00:00",
        "2026-03-02 10:05:09 -04:00",
        "2026-03-02 10:05:09 -0400",
        "2026-03-02 14:05:09+00",
        " 2026-03-02 14:05:09 ",
        "20260302T140509Z",
        "2026-03-02 14:05:09 UTC",
        "2026-03-02T14:05:09 utc",
        "2026-03-02 14:05:09 GMT",
        "2026-03-02 14:05:09 Z",
        "2026-03-02 14:05:09 +0000 UTC",
        "2026-03-02 14:05:09 +00",
        "Mon, 02 Mar 2026 14:05:09 GMT",
        "2 Mar 2026 15:05:09 +0100",
        "\ufeff2026-03-02 14:05:09\u00a0",
        1772460309,
        "1772460309",
        1772460309000,
        "1772460309000.0",
        Decimal("1772460309"),
        1772460309.0,
        1772460309000000,
        "1772460309000000",
        1772460309000000000,
        Decimal("1772460309000"),
        MOMENT,
        MOMENT.replace(tzinfo=None),
        MOMENT.replace(tzinfo=NoOffset()),
        MOMENT.astimezone(NEW_YORK),
        hostile.NumpyLike(MOMENT.replace(tzinfo=None)),
        hostile.NumpyLike(1772460309),
    ],
)
def test_a_time_is_read_from_what_people_and_warehouses_write(written):
    assert read_time(written) == MOMENT
    assert write_time(read_time(written)) == "2026-03-02 14:05:09 +00:00"


@pytest.mark.parametrize("written", ["2026-03-02 09:05:09", datetime.fromisoformat("2026-03-02T09:05:09")])
def test_a_time_without_a_zone_is_read_in_the_given_one(written):
    assert read_time(written, NEW_YORK) == MOMENT


@pytest.mark.parametrize("written", ["2026-03-02", date(2026, 3, 2)])
def test_a_day_begins_at_midnight_in_the_given_zone(written):
    assert write_time(read_time(written)) == "2026-03-02 00:00:00 +00:00"
    assert write_time(read_time(written, NEW_YORK)) == "2026-03-02 05:00:00 +00:00"


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_an_epoch_number_is_of_the_unit_that_gives_a_time_from_1990_to_tomorrow(unit):
    in_1990, now = int(datetime(1990, 1, 2, tzinfo=UTC).timestamp()), int(datetime.now(UTC).timestamp())
    for seconds in (in_1990, now, now + 3_600):
        assert read_time(seconds * unit) == datetime.fromtimestamp(seconds, UTC)
    for seconds in (in_1990 - 172_800, now + 172_800):
        with pytest.raises(ValueError, match="outside 1990 to tomorrow"):
            read_time(seconds * unit)


@pytest.mark.parametrize(
    ("number", "guess"),
    [
        (20261120, "a date key, YYYYMMDD?"),
        (Decimal("20261120"), "a date key, YYYYMMDD?"),
        (202611201430, "a date key, YYYYMMDDHHMM?"),
        ("20261120143000", "a date key, YYYYMMDDHHMMSS?"),
        (46_000, "a day number of Excel?"),
        (46_000.58, "a day number of Excel?"),
        (2026, "to tomorrow$"),
        (0, "to tomorrow$"),
        (-1_700_000_000, "to tomorrow$"),
        (-1_700_000_000_000, "to tomorrow$"),
    ],
)
def test_a_number_that_is_no_epoch_is_refused_with_a_guess(number, guess):
    with pytest.raises(ValueError, match=guess.replace("?", r"\?")):
        read_time(number)


@pytest.mark.parametrize("written", ["2026-03-02 14:05:09 +02:00 UTC", "2026-03-02 14:05:09 CET", "UTC", "soon GMT"])
def test_zones_that_contradict_or_are_not_utc_are_refused(written):
    with pytest.raises(ValueError, match="not a readable time"):
        read_time(written)


@pytest.mark.parametrize(
    "written",
    [20260302, "20260302", 20260302.0, "2026-03-02", "2026-03-02T23:30:00-05:00", date(2026, 3, 2), 1772460309,
     "1772460309", datetime.fromisoformat("2026-03-02T23:30"), "2026-03-02 14:05:09 UTC"],
)  # fmt: skip
def test_a_day_is_read_from_dates_times_and_date_keys(written):
    assert read_day(written, NEW_YORK) == date(2026, 3, 2)


def test_the_day_of_an_epoch_is_that_of_the_zone():
    assert read_day(1772420400, NEW_YORK) == date(2026, 3, 1)
    assert read_day(1772420400) == date(2026, 3, 2)


def test_fractions_of_a_second_are_cut_off():
    assert write_time(read_time("2026-03-02T14:05:09.999999999Z")) == "2026-03-02 14:05:09 +00:00"


def test_early_years_keep_four_digits():
    assert write_time(read_time("0987-01-02")) == "0987-01-02 00:00:00 +00:00"


@pytest.mark.parametrize(
    "written",
    ["", "soon", "2026-02-31", "03/02/2026", "12345", "2026-03-02T25:00:00Z", "9" * 400, "-" + "9" * 30, "\ud800",
     10**400,     -(10**400), 10**20, float("inf"), float("nan"), Decimal("1E+999999999"), Decimal("sNaN"), True, None,
     b"2026-03-02",     time(1), timedelta(1), [], {}, object(), hostile.NA, hostile.NAT, hostile.NumpyLike([1]),
     datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))),
     datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
)  # fmt: skip
def test_what_is_no_time_is_refused(written):
    with pytest.raises(ValueError, match=r"time|years"):
        read_time(written)


@hostile.many
@given(st.one_of(hostile.values, hostile.times))
def test_any_time_is_written_in_one_form_or_refused_without_its_value(written):
    try:
        moment = read_time(written)
    except ValueError as error:
        assert not any(secret in str(error) for secret in hostile.SECRETS)
    else:
        assert moment.tzinfo is UTC
        assert read_time(write_time(moment)) == moment.replace(microsecond=0)
