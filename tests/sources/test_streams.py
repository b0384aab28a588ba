"""In any format: compressed or not, of the wrong kind, damaged, or endless."""

from __future__ import annotations

import gzip
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.sources.csv_rows import read_csv
from airflow_provider_regal.sources.json_lines import read_json_lines
from airflow_provider_regal.sources.marks import ORIGIN_MARK, ROW_MARK
from airflow_provider_regal.sources.streams import LONGEST_LINE, DamagedFileError
from tests.events.hostile import many
from tests.sources.reading import BOM, bad, csv_rows, good, json_rows


def test_a_byte_order_mark_is_no_part_of_a_row():
    assert good(json_rows(BOM + b'{"n": 1}\n')) == [{"n": 1}]
    assert good(json_rows(BOM + b'{"n": 1}\n' + BOM + b'{"n": 2}')) == [{"n": 1}, {"n": 2}]  # assembled from two chunks
    assert json_rows(BOM) == []
    assert good(csv_rows(BOM + b"n\n1\n")) == [{"n": "1"}]


def test_what_is_zipped_is_told_by_the_content_and_not_by_the_name():
    content = b'{"n": 1}\n{"n": 2}\n'
    for stored in (content, gzip.compress(content), gzip.compress(content[:9]) + gzip.compress(content[9:])):
        rows = list(read_json_lines(io.BytesIO(stored), "a.jsonl.gz"))
        assert good(rows) == [{"n": 1}, {"n": 2}]
    assert json_rows(b"") == json_rows(gzip.compress(b"")) == csv_rows(b"") == []


@pytest.mark.parametrize("rows", [1, 50_000])
@pytest.mark.parametrize("garbage", [b"g", b"garbage", b"garbage" * 1_000])
@pytest.mark.parametrize("read", [read_json_lines, read_csv])
def test_a_zipped_file_with_something_after_its_end_stops_everything(read, garbage, rows):
    content = gzip.compress(b'{"a": 1}\n' * rows) + garbage
    with pytest.raises(DamagedFileError, match=r"damaged after line \d+ \(BadGzipFile\)"):
        list(read(io.BytesIO(content), "f.gz"))


def test_a_zipped_file_may_be_filled_up_with_zeros():
    content = gzip.compress(b'{"a": 1}\n') + bytes(512)
    assert len(list(read_json_lines(io.BytesIO(content), "f.gz"))) == 1


def test_a_zipped_file_that_breaks_off_stops_everything():
    stored = gzip.compress(b"".join(b'{"n": %d}\n' % n for n in range(100_000)))
    for damaged in (stored[: len(stored) // 2], stored[:-4], stored + b"rubbish"):
        with pytest.raises(DamagedFileError, match=r"a\.jsonl breaks off or is damaged after line \d+"):
            json_rows(damaged)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PAR1", "format='parquet'"),
        (b"PK\x03\x04", "ZIP"),
        (b"BZh9", "bzip2"),
        ("a,b".encode("utf-16"), "UTF-16"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
    ],
)
def test_a_file_of_another_kind_is_said_once(start, what):
    for read in (json_rows, csv_rows):
        with pytest.raises(ValueError, match=what):
            read(start + b"\x00\x01" * 50)


class Endless(io.RawIOBase):
    """A line without an end, as long as it is said to be, and then another."""

    def __init__(self, size):
        self.left = size

    def readable(self):
        return True

    def read(self, size=-1):
        if self.left <= 0:
            self.left, tail = -1, b"" if self.left < 0 else b'\n{"n": 1}\n'
            return tail
        size = min(size, self.left)
        self.left -= size
        return b"x" * size


@pytest.mark.parametrize("read", [read_json_lines, read_csv])
def test_memory_does_not_grow_with_a_line_or_a_file(read):
    tracemalloc.start()
    try:
        if read is read_json_lines:
            rows = list(read(Endless(30_000_000), "a"))
            assert (good(rows), len(bad(rows))) == ([{"n": 1}], 1)
        stored = io.BytesIO(gzip.compress(b"n\n" + (b'"' + b"x" * 1_000 + b'"\n') * 20_000))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert sum(1 for _ in read(stored, "a")) >= 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2 * LONGEST_LINE


@many
@given(content=st.binary(max_size=300), zipped=st.booleans())
def test_any_bytes_become_rows_or_an_error_of_the_file(content, zipped):
    for read in (json_rows, csv_rows):
        try:
            rows = read(gzip.compress(content) if zipped else content)
        except (ValueError, DamagedFileError):
            continue
        for row in rows:
            assert row[ORIGIN_MARK]
            assert isinstance(row[ROW_MARK], dict)
