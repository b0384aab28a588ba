"""Lines of JSON and CSV become rows that know their place; a bad line is one rejected row, and costs no other."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.delivery.marks import ORIGIN_MARK, REJECT_MARK, ROW_MARK
from airflow_provider_regal.delivery.sources.csv_rows import read_csv
from airflow_provider_regal.delivery.sources.files import SourceFile, read_files
from airflow_provider_regal.delivery.sources.json_lines import read_json_lines
from airflow_provider_regal.delivery.sources.streams import LONGEST_LINE, DamagedFileError
from tests.events.hostile import many

BOM = b"\xef\xbb\xbf"


def json_rows(content):
    return list(read_json_lines(io.BytesIO(content), "a.jsonl"))


def csv_rows(content, **options):
    content = content.encode() if isinstance(content, str) else content
    return list(read_csv(io.BytesIO(content), "a.csv", **options))


def good(rows):
    return [row[ROW_MARK] for row in rows if REJECT_MARK not in row]


def bad(rows):
    """Place -> reason of the rejected rows."""
    return {row[ORIGIN_MARK].partition(" ")[2]: row[REJECT_MARK][0][1] for row in rows if REJECT_MARK in row}


BAD_LINES = {
    "cut off": (b'{"user_id": "u", "na', "is no JSON"),
    "two objects": (b'{"a": 1} {"a": 2}', "is no JSON (Extra data)"),
    "a key twice": (b'{"user_id": "u", "phone": "1", "phone": "2"}', "the key 'phone' twice"),
    "a key twice, deep": (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' twice"),
    "a key twice, personal": (b'{"+12125550147": 1, "+12125550147": 1}', "the key '***' twice"),
    "NaN": (b'{"a": NaN}', "holds NaN"),
    "Infinity": (b'{"a": [-Infinity]}', "holds -Infinity"),
    "a list": (b"[1, 2]", "must be an object, not a list"),
    "a text": (b'"secret"', "must be an object, not text"),
    "a number": (b"5", "must be an object, not a number"),
    "null": (b"null", "must be an object, not null"),
    "true": (b"true", "must be an object, not a boolean"),
    "no UTF-8": (b'{"a": "\xff\xfe"}', "is not valid UTF-8"),
    "ten megabytes": (b'{"a": "' + b"x" * 10_000_000 + b'"}', "is longer than"),
    "too deep": (b"[" * 100_000, "nested too deeply"),
    "too many digits": (b'{"a": ' + b"9" * 5_000 + b"}", "digits"),
    "a control character": (b'{"a": "\x00"}', "is no JSON"),
    "CSV": (b"user_id,phone", "is no JSON"),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_rejected_with_its_place_and_costs_no_other(line, reason, zipped):
    content = b'{"n": 1}\n' + line + b'\n\n  \n{"n": 2}\r\n' + line
    rows = json_rows(gzip.compress(content) if zipped else content)
    assert good(rows) == [{"n": 1}, {"n": 2}]
    assert [row[ORIGIN_MARK] for row in rows] == [f"a.jsonl line {number}" for number in (1, 2, 5, 6)]
    assert bad(rows).keys() == {"line 2", "line 6"}
    for said in bad(rows).values():
        assert reason in said
        assert "secret" not in said


def test_the_last_line_may_be_cut_off():
    (row,) = json_rows(b'{"user_id": "u", "na')
    assert "may be cut off" in row[REJECT_MARK][0][1]
    assert row[ROW_MARK] == {"line": '{"user_id": "u", "na'}


def test_a_byte_order_mark_is_no_part_of_a_row():
    assert good(json_rows(BOM + b'{"n": 1}\n')) == [{"n": 1}]
    assert good(json_rows(BOM + b'{"n": 1}\n' + BOM + b'{"n": 2}')) == [{"n": 1}, {"n": 2}]  # put together from two
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


@many
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4)))
def test_every_object_is_given_as_it_was_written(rows):
    content = "\n".join(json.dumps(row, ensure_ascii=len(row) % 2 == 0) for row in rows).encode(errors="replace")
    if b"?" not in content:
        assert good(json_rows(content)) == rows


class TestCsv:
    def test_the_header_names_the_columns_and_empty_is_null(self):
        rows = csv_rows('user_id, phone ,plan\n1,+12125550100,""\n\n2,,gold\n')
        assert good(rows) == [
            {"user_id": "1", "phone": "+12125550100", "plan": None},
            {"user_id": "2", "phone": None, "plan": "gold"},
        ]
        assert [row[ORIGIN_MARK] for row in rows] == ["a.csv line 2", "a.csv line 4"]

    def test_a_quoted_field_may_hold_anything(self):
        rows = csv_rows('id,note\n1,"two\nlines, a comma and a ""quote"""\n2,x\n')
        assert good(rows) == [{"id": "1", "note": 'two\nlines, a comma and a "quote"'}, {"id": "2", "note": "x"}]
        assert [row[ORIGIN_MARK] for row in rows] == ["a.csv lines 2 to 3", "a.csv line 4"]

    def test_a_row_that_does_not_fit_the_header_is_rejected_and_kept(self):
        rows = csv_rows("a,b\n1\n1,2\n1,2,3\n")
        assert good(rows) == [{"a": "1", "b": "2"}]
        assert bad(rows) == {
            "line 2": "has 1 fields, and the header has 2",
            "line 4": "has 3 fields, and the header has 2",
        }
        assert rows[2][ROW_MARK] == {"fields": ["1", "2", "3"]}

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b'"1"x,2', "is no CSV"),
            (b"1,\xff", "is not valid UTF-8"),
            (b"1," + b"x" * 200_000, "field larger than"),
            (b"1," + b"x" * 2 * LONGEST_LINE, "is longer than"),
        ],
    )
    def test_a_bad_line_costs_no_other(self, line, reason):
        rows = csv_rows(b"a,b\n1,2\n" + line + b"\n3,4\n")
        assert good(rows) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
        assert reason in bad(rows)["line 3"]

    def test_a_quote_that_never_ends_names_the_lines_it_swallowed(self):
        rows = csv_rows('a,b\n1,2\n3,"4\n5,6\n7,8\n')
        assert good(rows) == [{"a": "1", "b": "2"}]
        assert bad(rows).keys() == {"lines 3 to 5"}

    @pytest.mark.parametrize(
        ("header", "complaint"),
        [
            ("id,phone,phone", "names 'phone' twice"),
            ("+12125550147,+12125550147", r"names '\*\*\*' twice"),
            ("id,,phone", "column 2 has no name"),
            ("id;phone", "is the delimiter ';'"),
            ('id,"phone', "no header"),
            ("x" * 2 * LONGEST_LINE, "no header"),
            (b"id,\xff", "not valid UTF-8"),
        ],
    )
    def test_a_header_that_cannot_be_used_is_said_once(self, header, complaint):
        header = header if isinstance(header, bytes) else header.encode()
        with pytest.raises(ValueError, match=f"a.csv: .*{complaint}"):
            csv_rows(header + b"\n1,2\n3,4\n")

    def test_the_delimiter_can_be_another(self):
        assert good(csv_rows("a;b\n1;2,5\n", delimiter=";")) == [{"a": "1", "b": "2,5"}]
        assert good(csv_rows("a\tb\n1\t2\n", delimiter="\t")) == [{"a": "1", "b": "2"}]


def test_files_are_read_one_after_the_other_and_closed():
    opened = []

    def opening(content):
        def open_it():
            opened.append(io.BytesIO(content))
            return opened[-1]

        return open_it

    files = [SourceFile("b", opening(b'{"n": 1}')), SourceFile("a", opening(b'{"n": 2}\n{"n": 3}'))]
    rows = read_files(files, "jsonl")
    assert next(rows)[ROW_MARK] == {"n": 1}
    assert len(opened) == 1
    assert [row[ORIGIN_MARK] for row in rows] == ["a line 1", "a line 2"]
    assert all(stream.closed for stream in opened)
