"""JSON lines become rows that know their place; a bad line is one rejected row, and affects no other."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.sources.marks import ORIGIN_MARK, REJECT_MARK, ROW_MARK
from tests.events.hostile import many
from tests.sources.reading import bad, good, json_rows

BAD_LINES = {
    "cut off": (b'{"user_id": "u", "na', "is not JSON"),
    "two objects": (b'{"a": 1} {"a": 2}', "is not JSON (Extra data)"),
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
    "a control character": (b'{"a": "\x00"}', "is not JSON"),
    "CSV": (b"user_id,phone", "is not JSON"),
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


@many
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4)))
def test_every_object_is_given_as_it_was_written(rows):
    content = "\n".join(json.dumps(row, ensure_ascii=len(row) % 2 == 0) for row in rows).encode(errors="replace")
    if b"?" not in content:
        assert good(json_rows(content)) == rows
