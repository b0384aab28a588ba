"""Traits and properties: the permanent type of each Python value."""

from __future__ import annotations

import struct
from collections import OrderedDict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType, SimpleNamespace
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_regal.events import Reading, Track
from airflow_provider_regal.events.python_values import (
    is_blank,
    is_missing,
    is_nothing,
    plain,
    read_decision,
    shortest,
    trimmed,
    whole,
)
from tests.events import hostile
from tests.events.saying import faults, trait, traits

NEW_YORK = ZoneInfo("America/New_York")
Pair = namedtuple("Pair", "one two")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("text", "text"),
        ("", ""),
        ("日本 🎉", "日本 🎉"),
        (True, True),
        (0, 0),
        (2**53, 2**53),
        (-(2**53), -(2**53)),
        (1.5, 1.5),
        (7.0, 7.0),
        (1e20, 1e20),
        (Decimal("7"), 7),
        (Decimal("45.00"), 45),
        (Decimal("7E+2"), 700),
        (ip_address("203.0.113.9"), "203.0.113.9"),
        (ip_interface("203.0.113.9/32"), "203.0.113.9"),
        (ip_network("203.0.113.0/24"), "203.0.113.0/24"),
        ([38, None, 42], [38, None, 42]),
        ([1.5, float("nan"), Decimal("NaN")], [1.5, None, None]),
        (Decimal("0.1"), 0.1),
        (Decimal("1E+5"), 100000),
        (Decimal("1E-999999"), 0.0),
        (date(2026, 3, 2), "2026-03-02"),
        (datetime.fromisoformat("2026-03-02T14:05:09"), "2026-03-02 14:05:09 +00:00"),
        (datetime(2026, 3, 2, 14, 5, 9, 999, UTC), "2026-03-02 14:05:09 +00:00"),
        (datetime(2026, 3, 2, 9, 5, 9, tzinfo=NEW_YORK), "2026-03-02 14:05:09 +00:00"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ([1, "a", [True]], [1, "a", [True]]),
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (hostile.Row({"a": 1}), {"a": 1}),
        ([], []),
        ({}, {}),
        (hostile.NumpyLike(7), 7),
        (hostile.NumpyLike(True), True),
        (hostile.NumpyLike([1, hostile.NumpyLike(2.5)]), [1, 2.5]),
        (hostile.Color.RED, "red"),
        (hostile.Shade.DARK, "dark"),
        (hostile.Level.HIGH, 3),
    ],
)
def test_a_value_gets_its_json_type(written, sent):
    written = trait(written)
    assert written == sent
    assert type(written) is type(sent)


@pytest.mark.parametrize("nothing", [*hostile.NOTHINGS, float("inf"), -float("inf"), Decimal("-Infinity")])
def test_nothing_is_left_out_or_sent_as_null(nothing):
    assert trait(nothing) is ...
    assert trait(nothing, send_nulls=True) is None
    assert trait([1, nothing, {"a": nothing}]) == [1, None, {}]  # the others keep their positions
    assert trait([1, nothing, {"a": nothing}], send_nulls=True) == [1, None, {"a": None}]


def test_a_naive_time_is_read_in_the_zone_of_the_reading():
    assert trait(datetime.fromisoformat("2026-03-02T09:05:09"), timezone=NEW_YORK) == "2026-03-02 14:05:09 +00:00"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (b"x", "bytes have no JSON form"),
        (bytearray(b"x"), "bytes have no JSON form"),
        (memoryview(b"x"), "bytes have no JSON form"),
        (2**53 + 1, "a whole number beyond 2^53"),
        (-(10**400), "a whole number beyond 2^53"),
        (Decimal("9007199254740993.00"), "a Decimal beyond 2^53"),
        (Decimal("1E+999999999"), "a Decimal beyond 2^53"),
        ({1, 2}, "a set has no JSON form"),
        (deque([1]), "a deque has no JSON form"),
        (timedelta(1), "a timedelta has no JSON form"),
        (time(1), "a time has no JSON form"),
        (1j, "a complex has no JSON form"),
        (Fraction(1, 3), "a Fraction has no JSON form"),
        (object(), "a object has no JSON form"),
        ("\ud800", "the text is not valid Unicode"),
        (hostile.NumpyLike(b"x"), "bytes have no JSON form"),
        (datetime(9999, 12, 31, 23, tzinfo=NEW_YORK), "the time lies outside the years"),
    ],
)
def test_what_has_no_json_form_is_a_fault(written, reason):
    for wrapped, place in ((written, "traits.x"), ([{"a": written}], "traits.x[0].a")):
        ((field, said),) = faults(user_id="1", traits={"x": wrapped}).items()
        assert field == place
        assert said.startswith(reason)


@pytest.mark.parametrize("key", [5, None, "", True, ("a",), b"a"])
def test_a_key_that_is_no_text_is_a_fault(key):
    assert list(faults(user_id="1", traits={"x": {key: 1}})) == ["traits.x"]
    assert list(faults(Track, user_id="1", event="Seen", properties={key: 1})) == ["properties"]


def test_a_key_that_utf8_cannot_carry_is_a_fault():
    assert list(faults(user_id="1", traits={"a\ud800": 1})) == ["traits.a?"]


def test_every_fault_of_the_properties_is_named():
    written = {"user_id": "1", "event": "Seen", "properties": {"a": b"", "b": [1, {2}], "c": 1}}
    assert list(faults(Track, written=written)) == ["properties.a", "properties.b[1]"]


# Cyclic structures.


def test_thirty_two_levels_are_the_deepest():
    assert trait(hostile.deep(32)) is not ...
    ((_, reason),) = faults(user_id="1", traits={"x": hostile.deep(33)}).items()
    assert reason == "nested deeper than 32 levels; flatten it"
    assert len(faults(user_id="1", traits={"x": hostile.deep(5000)})) == 1


def test_what_contains_itself_is_a_fault():
    found = faults(user_id="1", traits={"x": hostile.cyclic()})
    assert set(found.values()) == {"contains itself; JSON cannot"}


def test_the_same_list_twice_is_no_cycle():
    shared = [1]
    assert trait([shared, shared, {"again": shared}]) == [[1], [1], {"again": [1]}]


def test_lists_that_double_at_every_level_end():
    assert "the event holds more than 100,000 values; leave some out" in faults(
        user_id="1", traits={"x": hostile.doubling(31)}
    ).values()  # fmt: skip


# Traits whose type is fixed by Regal's contract.


@pytest.mark.parametrize("name", ["firstName", "lastName", "subBrand"])
def test_standard_traits_are_text(name):
    assert faults(user_id="1", traits={name: 5}) == {f"traits.{name}": "must be text"}
    assert traits(user_id="1", traits={name: "Ines"}) == {name: "Ines"}


def test_a_zipcode_is_text_since_a_number_loses_its_zeros():
    assert faults(user_id="1", traits={"address": {"zipcode": 2110, "city": None}}) == {
        "traits.address.zipcode": "must be text (a number loses its leading zeros)"
    }


def test_an_address_is_an_object():
    assert list(faults(user_id="1", traits={"address": "1 Sample Way"})) == ["traits.address"]


def test_nulls_of_standard_traits_are_left_out_even_where_nulls_are_sent():
    written = {"firstName": None, "address": {"state": None, "floor": None}, "plan": None}
    assert traits(user_id="1", traits=written, reading=Reading(send_nulls=True)) == {
        "address": {"floor": None},
        "plan": None,
    }
    assert traits(user_id="1", traits={"address": None, "x": 1}, reading=Reading(send_nulls=True)) == {"x": 1}


# Before validation.


def test_plain_leaves_pythons_own_values_alone():
    for value in ("a", 1, 1.5, None, b"x", [1], {"a": 1}, Decimal(1), object(), {1}):
        assert plain(value) is value


class Timestamp(datetime):
    """pandas' Timestamp, which warns of the nanoseconds it loses unless told not to."""

    def to_pydatetime(self, warn: bool = True) -> datetime:
        assert not warn
        return datetime.fromisoformat("2026-03-02")


class NanosecondArray(hostile.NumpyLike):
    """numpy's datetime64[ns], whose tolist() gives bare numbers unless it is made coarser."""

    dtype = SimpleNamespace(kind="M")

    def astype(self, dtype: str) -> hostile.NumpyLike:
        return hostile.NumpyLike([datetime.fromisoformat("2026-03-02")] if dtype == "M8[us]" else [1])


Timestamp.__module__ = "pandas._libs.tslibs.timestamps"
NanosecondArray.__module__ = "numpy"


def test_times_of_pandas_and_numpy_become_pythons():
    assert type(plain(Timestamp(2026, 3, 2))) is datetime
    assert plain(NanosecondArray([1772409600000000000])) == [datetime.fromisoformat("2026-03-02")]


def test_nothing_and_blank():
    assert all(is_nothing(value) and is_blank(value) for value in hostile.NOTHINGS)
    assert is_blank(" \n")
    assert not is_nothing("")
    assert not any(is_nothing(value) or is_blank(value) for value in (0, False, "a", [], {}, Decimal(0), float("inf")))


@pytest.mark.parametrize(
    "text", ["None", "nan", "NULL", "\\N", "<NA>", "undefined", " null\u200b", "NaT", "N/A", "", "\ufeff \u00a0"]
)
def test_a_missing_value_that_became_text_is_missing(text):
    assert is_missing(text)
    assert not is_missing(f"{text}x y")


@pytest.mark.parametrize("present", ["0", "Nina", "nullable", "-", 0, False, "none of these"])
def test_what_only_resembles_a_missing_value_is_there(present):
    assert not is_missing(present)


@pytest.mark.parametrize("padded", ["u1        ", "\ufeffu1", "u1\u200b", "\u00a0u1\u2060", "\x00u1\r\n"])
def test_white_space_and_what_no_one_sees_is_trimmed(padded):
    assert trimmed(padded) == "u1"
    assert trimmed("u\u200b1") == "u\u200b1"


@pytest.mark.parametrize(
    ("number", "as_int"),
    [(42.0, 42), (Decimal("7E+2"), 700), (Decimal("1790.0"), 1790), (10**39, 10**39), (-3.0, -3)]
    + [(odd, None) for odd in (1.5, 2.0**60, float("nan"), float("inf"), 10**41, Decimal("1E+99"), Decimal("NaN"))],
)
def test_whole_numbers_of_every_type_are_known(number, as_int):
    assert whole(number) == as_int


@pytest.mark.parametrize("number", [19.99, 0.1, 3.4028235e38, 1e-45, 16777216.0, -0.0])
def test_a_float_of_32_bits_gets_its_shortest_form(number):
    (widened,) = struct.unpack("f", struct.pack("f", number))
    written = shortest(widened)
    assert struct.unpack("f", struct.pack("f", written)) == (widened,)
    assert len(repr(written)) <= len(repr(number))


@pytest.mark.parametrize(
    "no",
    [0, 0.0, -0.0, Decimal("0"), Decimal("0E-10"), "0.00", "0E-10", " 0\u200b", b"\0", bytearray(2), memoryview(b"\0"),
     hostile.NumpyLike(0.0), "Opted Out", "STOP\ufeff"],
)  # fmt: skip
def test_a_no_is_any_zero_of_any_type(no):
    assert read_decision(no) is False


@pytest.mark.parametrize("yes", [1, 1.0, Decimal("1.00"), "1.0", b"\1", b"\0\1", hostile.NumpyLike(1), "TRUE "])
def test_a_yes_is_any_one_of_any_type(yes):
    assert read_decision(yes) is True


@pytest.mark.parametrize("neither", [2, 0.5, Decimal("1E-3"), "1E1", b"", b"\2", b"\1\0", b"\0" * 9, "yes", "null"])
def test_what_is_neither_one_nor_zero_is_no_decision(neither):
    with pytest.raises(ValueError, match="true or false"):
        read_decision(neither)
