"""Decoded rows equal the encoded ones, whatever they contain."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_regal.events import OptIn
from airflow_provider_regal.ledger import rows as rows_module
from airflow_provider_regal.ledger.rows import ROWS_PER_CHUNK, RowChunk, as_stored, decode_chunk, decode_row, encode_row
from tests.events.hostile import NA, NAT, Color, Level, NumpyLike, Row, Shade, cyclic, deep, doubling, many, values
from tests.hostile_objects import (
    HOSTILE,
    EndlessDict,
    EndlessList,
    HostileError,
    LyingText,
    RaisingFloat,
    RaisingNumber,
    RaisingText,
    Twice,
    Zone,
)

texts = st.text(st.characters(exclude_categories=()), max_size=8).filter(
    # Two adjacent halves of a surrogate pair become one character.
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") == text or len(text) == 1
)
RING: list = []
RING.append(RING)
names = st.one_of(
    texts,
    st.sampled_from(["$", "$$", "$date", "$datetime", "$decimal", "$bytes", "$other", "$$date", "$event", "a\nb"]),
)
storable_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False),
        st.decimals(allow_nan=False),
        st.datetimes().map(lambda time: time.replace(fold=0)),
        st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0)),
        st.dates(),
        st.uuids(),
        st.binary(max_size=8),
        texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=2)),
    max_leaves=8,
)


@many
@given(row=st.dictionaries(names, storable_values, max_size=4))
def test_a_row_comes_back_equal_and_with_the_same_types(row):
    line = encode_row(row)
    assert "\n" not in line
    assert line.encode(), "it can be written"
    back = decode_row(line)
    assert back == row
    assert repr(back) == repr(row)


@pytest.mark.slow
@many
@given(row=st.dictionaries(st.one_of(names, st.integers(), st.none()), values, max_size=4))
def test_whatever_stands_in_a_row_can_be_kept(row):
    assert len(decode_row(encode_row(row))) >= (1 if row else 0)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (datetime(2026, 3, 8, 1, 30, tzinfo=ZoneInfo("America/New_York")), datetime(2026, 3, 8, 6, 30, tzinfo=UTC)),
        (datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=ZoneInfo("EST5EDT")), datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        (Color.RED, "red"),
        (Shade.DARK, "dark"),
        (Level.HIGH, 3),
        (Color.DEEP, [1, [2]]),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (Row({"a": 1}), {"a": 1}),
        (NumpyLike(5), 5),
        (NumpyLike([1, NA]), [1, None]),
        (NA, None),
        (NAT, None),
        (Decimal("1.10"), Decimal("1.10")),
        (date(2026, 3, 2), date(2026, 3, 2)),
        (UUID(int=7), UUID(int=7)),
        ({"$date": "2026-03-02"}, {"$date": "2026-03-02"}),
        ({"$oid": "5f"}, {"$oid": "5f"}),
    ],
    ids=lambda value: type(value).__name__,  # the same in every process, as xdist requires
)
def test_what_is_not_json_comes_back_as_what_it_means(value, back):
    found = decode_row(encode_row({"x": value, "deeper": [{"x": value}]}))
    assert found == {"x": back, "deeper": [{"x": back}]}
    assert type(found["x"]) is type(back)


def test_the_models_of_consent_come_back_as_what_they_say():
    found = decode_row(encode_row({"opt_in": [OptIn(channel="sms", subscribed=False)]}))
    assert found["opt_in"][0]["channel"] == "sms"
    assert found["opt_in"][0]["subscribed"] is False


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (timedelta(1), "timedelta"), (time(1), "time"), (object(), "object"), (1j, "complex"),
        (RING, "value that contains itself"), (deep(500), None), (10**5_000, "number of so many digits"),
        ({1: 2}, "object with a key that is not text"),
    ],
    ids=["timedelta", "time", "object", "complex", "cycle", "deep", "endless number", "keys"],
)  # fmt: skip
def test_what_cannot_be_kept_leaves_the_name_of_its_type(value, kind):
    found = decode_row(encode_row({"x": value}))["x"]
    while isinstance(found, (list, dict)):
        found = found[0] if isinstance(found, list) else next(iter(found.values()))
    assert type(found).__name__ == (kind or "value nested deeper than 64 levels")


def test_lists_that_repeat_each_other_without_end_are_cut_off():
    assert len(encode_row({"x": cyclic(), "y": doubling(40), "z": 1})) < 5_000_000


@pytest.mark.parametrize("value", [doubling(60), EndlessList(), EndlessDict()], ids=["doubling", "a list", "an object"])
def test_of_more_than_a_row_can_hold_nothing_is_kept(value):
    line = encode_row({"x": {"inside": [value]}, "y": 1})
    assert len(line) < 100
    assert type(decode_row(line)["x"]).__name__ == "value with more than 100,000 parts"


@pytest.mark.parametrize("value", ["y" * 300_000, b"y" * 300_000])
def test_of_a_text_that_no_event_has_nothing_is_kept_where_the_row_is_large(value):
    assert len(encode_row({f"x{number}": value for number in range(10)})) < 1_000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_raises_or_lies_leaves_the_name_of_its_type(name):
    value = HOSTILE[name]()
    for found in (decode_row(encode_row({"x": value, "y": [value]})), as_stored({"x": value, "y": [value]})):
        assert [type(found["x"]).__name__, type(found["y"][0]).__name__] == [name, name]


def test_kinds_of_pythons_own_types_are_stored_as_what_they_are():
    row = {RaisingText("a"): RaisingText("b"), "c": LyingText("d"), "e": RaisingNumber(5), "f": RaisingFloat(0.5)}
    found = as_stored(row)
    assert found == {"a": "b", "c": "d", "e": 5, "f": 0.5}
    assert {*map(type, (*found, *found.values()))} == {str, int, float}


def test_a_name_that_is_there_twice_is_no_name():
    found = as_stored({"user_id": "a", Twice("user_id"): "b"})
    assert type(found["user_id"]).__name__ == "value whose name is given twice"


def test_a_row_of_plain_values_is_stored_as_it_is():
    row = {"a": "x", "b": 1, "c": None, "d": datetime(2026, 3, 2, tzinfo=UTC), "e": Decimal(1)}
    assert as_stored(row) is row


@pytest.mark.parametrize(
    "row", [{"a": 10**5_000}, {"a": datetime(2026, 3, 2, tzinfo=Zone(HostileError))}], ids=["number", "zone"]
)
def test_a_row_of_values_that_could_raise_is_not(row):
    assert type(as_stored(row)["a"]).__name__ in ("number of so many digits", "datetime")


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"GrowingDict"}))
def test_what_can_not_be_read_as_a_row_leaves_the_name_of_its_type(name):
    assert as_stored(HOSTILE[name]()) == name
    assert as_stored(None) == "NoneType"
    assert as_stored(EndlessDict()) == "value with more than 100,000 parts"


def test_nan_and_infinity_stay():
    found = decode_row(encode_row({"a": math.nan, "b": -math.inf, "c": Decimal("sNaN")}))
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf
    assert found["c"].is_snan()


def test_a_column_whose_name_is_not_text_does_not_pass_for_one():
    """``csv.DictReader`` puts what a line has too much under None."""
    found = decode_row(encode_row({"a": 1, None: ["x"]}))
    assert found["a"] == 1
    assert type(found["(not text)"]).__name__ == "column whose name is not text"


def chunked(rows, first=1):
    """Write rows into one chunk, and read them back: number in the chunk, number in the source, row."""
    chunk = RowChunk()
    for source_row, row in enumerate(rows, first):
        chunk.add(source_row, row)
    return chunk.encoded()


class TestChunks:
    @many
    @given(
        rows=st.lists(
            st.one_of(
                st.fixed_dictionaries({"a": storable_values, "b": storable_values}),
                st.fixed_dictionaries({"b": storable_values, "a": storable_values}),
                st.fixed_dictionaries({"$date": texts, "$columns": texts}),
                st.dictionaries(names, storable_values, max_size=3),
            ),
            min_size=1,
            max_size=8,
        ),
        gaps=st.lists(st.integers(1, 10_000), min_size=8, max_size=8),
        needed=st.sets(st.integers(0, 7)),
    )
    def test_rows_come_back_equal_with_their_columns_in_order_and_their_place_in_the_source(self, rows, gaps, needed):
        """Unchanged rows are left out: where a row stands in the source has gaps."""
        chunk, positions = RowChunk(), list(itertools.accumulate(gaps))
        for source_row, row in zip(positions, rows, strict=False):
            chunk.add(source_row, row)
        assert len(chunk) == len(rows)
        found = list(decode_chunk(chunk.encoded(), without=lambda number: number not in needed))
        assert [(number, position, repr(row)) for number, position, row in found] == [
            (number, positions[number], repr(row)) for number, row in enumerate(rows) if number in needed
        ]

    @many
    @given(rows=st.lists(st.fixed_dictionaries({"name": texts, "city": texts}), min_size=1, max_size=5))
    @example(rows=[{"name": "Chlo\u00e9", "city": "a\u2028b\x85c\rd\x0be\U0001f600"}, {"name": "\ud800", "city": ""}])
    def test_a_row_is_one_line_whatever_stands_in_it(self, rows):
        assert [row for *_, row in decode_chunk(chunked(rows))] == rows

    def test_columns_are_written_only_where_they_change(self):
        rows = [{"a": 1, "b": "x"}, {"a": 2, "b": date(2026, 1, 2)}, {"a": 3, "b": ["y"]}, {"a": 4, "b": None}]
        rows += [{"a": 5, "b": None}, {"b": None, "a": 6}, {"b": None, "a": 7}, {"n": 8}, {"n": 9}]
        assert zlib.decompress(chunked(rows)).decode().splitlines() == [
            "[1]",
            '{"a":1,"b":"x"}',
            '[2, {"$date": "2026-01-02"}]',
            '{"a": 3, "b": ["y"]}',
            '{"a":4,"b":null}',
            "[5,null]",
            '{"b":null,"a":6}',
            "[null,7]",
            '{"n": 8}',
            '{"n": 9}',
        ]

    def test_columns_are_written_as_where_a_row_stands_alone(self):
        class Named(str):
            def __str__(self):
                return "another name"

        rows = [{"a": 1, "b": 2}, {Named("a"): 3, "b": 4}]
        assert [row for *_, row in decode_chunk(chunked(rows))] == [decode_row(encode_row(row)) for row in rows]

    def test_it_is_full_after_a_thousand_rows(self):
        chunk = RowChunk()
        for number in range(ROWS_PER_CHUNK):
            assert not chunk.is_full
            chunk.add(number + 1, {"n": number})
        assert chunk.is_full

    def test_large_rows_make_small_chunks(self):
        chunk = RowChunk()
        chunk.add(1, {f"x{number}": "y" * 200_000 for number in range(15)})
        assert chunk.is_full

    def test_rows_that_are_not_needed_are_not_even_decoded(self, monkeypatch):
        decoded = []
        real = rows_module.decode_row
        monkeypatch.setattr(rows_module, "decode_row", lambda line: decoded.append(line) or real(line))
        encoded = chunked([{"n": number} for number in range(10)])
        assert [number for number, *_ in decode_chunk(encoded, without=lambda number: number < 5)] == [5, 6, 7, 8, 9]
        assert len(decoded) == 5

    def test_a_chunk_that_was_cut_off_is_an_error(self):
        with pytest.raises(zlib.error):
            list(decode_chunk(chunked([{"n": number} for number in range(5)])[:-3]))


def test_a_named_tuple_in_a_cell_is_a_list():
    assert decode_row(encode_row({"x": namedtuple("Point", "a b")(1, 2)})) == {"x": [1, 2]}
