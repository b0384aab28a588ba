"""Parquet keeps the types of its columns, and its rows know their numbers."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.sources.marks import ORIGIN_MARK, REJECT_MARK, ROW_MARK
from airflow_provider_regal.sources.parquet import read_parquet
from airflow_provider_regal.sources.streams import DamagedFileError


def stored(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    file.seek(0)
    return file


def rows(table, **options):
    return list(read_parquet(stored(table, **options), "a.parquet"))


def value(array):
    """The first value of a column, as the snapshot gives it back."""
    (row, _) = rows(pa.table({"x": array}))
    return decode_row(encode_row(row))[ROW_MARK]["x"]


NOON = datetime(2026, 3, 2, 12, 0, 0, 123456)  # noqa: DTZ001 - one without zone is meant
NANOSECONDS = int(NOON.replace(tzinfo=UTC).timestamp()) * 10**9 + 123_456_789


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([Decimal("1.50"), None]), Decimal("1.50")),
        (pa.array([date(2026, 3, 2), None]), date(2026, 3, 2)),
        (pa.array([date(2026, 3, 2), None], pa.date64()), date(2026, 3, 2)),
        (pa.array([NOON, None], pa.timestamp("us")), NOON),
        (pa.array([NANOSECONDS, None], pa.timestamp("ns")), NOON),
        (pa.array([NOON, None], pa.timestamp("us", "UTC")), NOON.replace(tzinfo=UTC)),
        (pa.array([NANOSECONDS, None], pa.timestamp("ns", "America/New_York")), NOON.replace(tzinfo=UTC)),
        (pa.array([NOON, None], pa.timestamp("ms", "+02:00")), NOON.replace(tzinfo=UTC, microsecond=123_000)),
        (pa.array([b"\x00\xff", None]), b"\x00\xff"),
        (pa.array(["x", None]).dictionary_encode(), "x"),
        (pa.array([[1, 2], None]), [1, 2]),
        (pa.array([{"a": 1, "b": {"c": True}}, None]), {"a": 1, "b": {"c": True}}),
        (pa.array([[("a", 1), ("b", 2)], None], pa.map_(pa.string(), pa.int64())), {"a": 1, "b": 2}),
        (pa.array([[(1, "a")], None], pa.map_(pa.int64(), pa.string())), [[1, "a"]]),
        (pa.array([{"at": [NANOSECONDS]}, None], pa.struct([("at", pa.list_(pa.timestamp("ns")))])), {"at": [NOON]}),
        (pa.array([2**53 + 1, None]), 2**53 + 1),
        (pa.array([True, None]), True),
    ],
    ids=lambda given: str(given.type) if isinstance(given, pa.Array) else "",
)
def test_types_are_kept(array, expected):
    found = value(array)
    assert found == expected
    assert isinstance(found, type(expected))


def test_rows_are_numbered_across_row_groups_and_batches():
    found = rows(pa.table({"n": range(5_000)}), row_group_size=700)
    assert [row[ROW_MARK]["n"] for row in found] == list(range(5_000))
    assert [found[n][ORIGIN_MARK] for n in (0, 4_999)] == ["a.parquet row 1", "a.parquet row 5000"]


def test_nothing_in_a_file_is_no_row():
    assert rows(pa.table({"n": pa.array([], pa.int64())})) == []


def test_a_value_python_has_none_for_rejects_its_row_only():
    far = pa.array([0, 10**18, 1], pa.timestamp("us"))
    no_text = pa.array([b"a", b"b", b"\xff"]).view(pa.string())
    found = rows(pa.table({"n": [1, 2, 3], "at": far, "text": no_text}))
    assert found[0][ROW_MARK]["n"] == 1
    assert found[1][REJECT_MARK] == [["at", "lies outside the years 1 to 9999"]]
    assert found[2][REJECT_MARK] == [["text", "is not valid UTF-8"]]
    assert found[1][ORIGIN_MARK] == "a.parquet row 2"


def test_two_columns_of_one_name_are_said_once():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    with pytest.raises(ValueError, match="two columns named 'n'"):
        rows(table)


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"n": 1}\n' * 10])
def test_what_is_no_parquet_file_is_said(content):
    with pytest.raises(DamagedFileError, match=r"a\.parquet cannot be read after row 0 .* not a Parquet file"):
        list(read_parquet(io.BytesIO(content), "a.parquet"))


def test_a_damaged_file_stops_everything():
    content = bytearray(stored(pa.table({"n": [f"text {n}" for n in range(50_000)]})).getvalue())
    content[100:2_000] = b"\x00" * 1_900
    with pytest.raises(DamagedFileError):
        list(read_parquet(io.BytesIO(bytes(content)), "a.parquet"))


def test_memory_does_not_grow_with_the_number_of_row_groups():
    table = pa.table({"n": range(200_000), "text": [f"a text of row {n}" for n in range(200_000)]})
    file = stored(table, row_group_size=10_000)
    size = table.nbytes
    del table
    before = pa.total_allocated_bytes()
    most = 0
    for number, _ in enumerate(read_parquet(file, "a")):
        if number % 1_000 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < size / 4


def test_without_pyarrow_it_says_what_to_install():
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from airflow_provider_regal.sources.files import read_files\n"
        "next(read_files([], 'parquet'), None)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'airflow-provider-regal[parquet]'" in ran.stderr


def test_a_long_time_is_left_to_the_mapping():
    assert rows(pa.table({"x": pa.array([1_500, None], pa.duration("ns"))}))[0][ROW_MARK]["x"] == timedelta(
        microseconds=1
    )


def short(values):
    return pa.array(values, pa.float32())


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (short([19.99, None]), 19.99),
        (pa.array([[19.99, None], None], pa.list_(pa.float32())), [19.99, None]),
        (
            pa.array([{"a": 19.99, "b": 1}, None], pa.struct([("a", pa.float32()), ("b", pa.int8())])),
            {"a": 19.99, "b": 1},
        ),
        (
            pa.array([{"m": [("a", 0.1)]}, None], pa.struct([("m", pa.map_(pa.string(), pa.float32()))])),
            {"m": {"a": 0.1}},
        ),
        (pa.array([[[("a", 1)]], None], pa.list_(pa.map_(pa.string(), pa.int64()))), [{"a": 1}]),
        (
            pa.array([[("a", [("b", None)])], None], pa.map_(pa.string(), pa.map_(pa.string(), pa.int64()))),
            {"a": {"b": None}},
        ),
    ],
)
def test_maps_are_objects_and_short_floats_short_at_every_depth(array, expected):
    assert value(array) == expected


def test_the_index_that_pandas_writes_without_a_name_is_left_out_and_a_named_one_is_not():
    table = pa.table({"user_id": ["u"], "__index_level_0__": [7], "index": [1]})
    ((row),) = rows(table)
    assert row[ROW_MARK] == {"user_id": "u", "index": 1}
