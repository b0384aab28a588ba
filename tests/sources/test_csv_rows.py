"""Rows of a CSV file: columns from its header, each with its place; a bad line affects no other."""

from __future__ import annotations

import gzip

import pytest

from airflow_provider_regal.sources.marks import ORIGIN_MARK, ROW_MARK
from airflow_provider_regal.sources.streams import LONGEST_LINE
from tests.sources.reading import bad, csv_rows, good


def test_the_header_names_the_columns_and_empty_is_null():
    rows = csv_rows('user_id, phone ,plan\n1,+12125550100,""\n\n2,,gold\n')
    assert good(rows) == [
        {"user_id": "1", "phone": "+12125550100", "plan": None},
        {"user_id": "2", "phone": None, "plan": "gold"},
    ]
    assert [row[ORIGIN_MARK] for row in rows] == ["a.csv line 2", "a.csv line 4"]


def test_a_quoted_field_may_hold_anything():
    rows = csv_rows('id,note\n1,"two\nlines, a comma and a ""quote"""\n2,x\n')
    assert good(rows) == [{"id": "1", "note": 'two\nlines, a comma and a "quote"'}, {"id": "2", "note": "x"}]
    assert [row[ORIGIN_MARK] for row in rows] == ["a.csv lines 2 to 3", "a.csv line 4"]


def test_a_row_that_does_not_fit_the_header_is_rejected_and_kept():
    rows = csv_rows("a,b\n1\n1,2\n1,2,3\n")
    assert good(rows) == [{"a": "1", "b": "2"}]
    assert bad(rows) == {
        "line 2": "has 1 field, and the header has 2",
        "line 4": "has 3 fields, and the header has 2; put quotes around a field that contains the delimiter",
    }
    assert rows[2][ROW_MARK] == {"fields": ["1", "2", "3"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'"1"x,2', "is not CSV"),
        (b"1,\xff", "is not valid UTF-8; name the file's encoding, such as encoding='cp1252'"),
        (b"a,b", "is the header again"),
        (b'"a", b', "is the header again"),
        (b"1," + b"x" * 200_000, "field larger than"),
        (b"1," + b"x" * 2 * LONGEST_LINE, "is longer than"),
    ],
)
def test_a_bad_line_costs_no_other(line, reason):
    rows = csv_rows(b"a,b\n1,2\n" + line + b"\n3,4\n")
    assert good(rows) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert reason in bad(rows)["line 3"]


def test_a_quote_that_never_ends_names_the_lines_it_swallowed():
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
        ('id,"phone', "not the header"),
        ("x" * 2 * LONGEST_LINE, "not the header"),
        (b"id,\xff", "not valid UTF-8"),
    ],
)
def test_a_header_that_cannot_be_used_is_said_once(header, complaint):
    header = header if isinstance(header, bytes) else header.encode()
    with pytest.raises(ValueError, match=f"a.csv: .*{complaint}"):
        csv_rows(header + b"\n1,2\n3,4\n")


def test_the_delimiter_can_be_another():
    assert good(csv_rows("a;b\n1;2,5\n", delimiter=";")) == [{"a": "1", "b": "2,5"}]
    assert good(csv_rows("a\tb\n1\t2\n", delimiter="\t")) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "UTF8", "latin-1"])
def test_text_of_another_encoding_is_read_where_it_is_named(encoding):
    text = "id;note\n1;Caf\u00e9 \u00fc\n2;x\n"
    assert good(csv_rows(text.encode(encoding), encoding=encoding, delimiter=";")) == [
        {"id": "1", "note": "Caf\u00e9 \u00fc"},
        {"id": "2", "note": "x"},
    ]
    zipped = gzip.compress(text.encode(encoding))
    assert len(good(csv_rows(zipped, encoding=encoding, delimiter=";"))) == 2


def test_a_byte_that_the_encoding_does_not_have_costs_its_line_only():
    rows = csv_rows(b"a,b\n1,\x81\n2,\xe9\n", encoding="cp1252")
    assert good(rows) == [{"a": "2", "b": "\u00e9"}]
    assert "is not valid CP1252" in bad(rows)["line 2"]


def test_the_header_is_trimmed_of_what_no_one_sees():
    assert good(csv_rows("\u200buser_id\u00a0,b\n1,2\n")) == [{"user_id": "1", "b": "2"}]
