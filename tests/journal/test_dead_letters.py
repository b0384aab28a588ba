"""Dead letters: whole, the last of each row, with the values the row had."""

from __future__ import annotations

import json
import stat
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from airflow_provider_regal.journal.dead_letters import DeadLetter, DeadLetters, read_dead_letters


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dead_letters.jsonl"


def letter(position, message="plan: bad; age: bad", *, payload=None, reason="invalid", run="/run", **other):
    return DeadLetter(
        run=run, position=position, key=None, call="track", status="rejected", reason=reason, field="plan",
        message=message, attempts=0, first_time="", last_time="", payload={} if payload is None else payload, **other,
    )  # fmt: skip


def write(path, *letters, dead=lambda position: True):
    letters_file = DeadLetters(path)
    for one in letters:
        letters_file.write(one)
    letters_file.close(dead)


def read(path):
    return [(one.position, one.message) for one in read_dead_letters(path)]


def test_no_file_is_no_letters(path):
    assert list(read_dead_letters(path)) == []


def test_a_later_letter_replaces_an_earlier_one(path):
    write(path, letter(3, "a"), letter(1, "b"), letter(3, "c"))
    assert sorted(read(path)) == [(1, "b"), (3, "c")]


def test_a_row_that_is_dead_no_longer_loses_its_letter(path):
    write(path, *(letter(position) for position in range(5)))
    write(path, dead=lambda position: position in (1, 4))
    assert [position for position, _ in read(path)] == [1, 4]


def test_letters_of_several_tries_add_up(path):
    write(path, letter(1, "first"), letter(2, "first"))
    write(path, letter(2, "second"), letter(7, "second"))
    assert sorted(read(path)) == [(1, "first"), (2, "second"), (7, "second")]


def test_a_letter_cut_off_by_a_crash_is_none_and_the_next_is_whole(path):
    write(path, letter(1))
    with path.open("ab") as file:
        file.write(b'{"run": "/run", "position": 2, ' + b"x" * 200_000)
    assert [position for position, _ in read(path)] == [1]
    write(path, letter(2))
    assert [position for position, _ in read(path)] == [1, 2]


def test_a_file_that_holds_only_a_torn_letter_becomes_empty(path):
    path.write_bytes(b'{"run": ')
    write(path, letter(2))
    assert [position for position, _ in read(path)] == [2]


def test_a_row_has_the_types_it_had(path):
    row = {
        "amount": Decimal("1.10"), "at": datetime(2026, 3, 2, tzinfo=UTC), "raw": b"\xff", "half": "\ud800",
        "mongo": {"$date": "2026-03-02"},
    }  # fmt: skip
    write(path, letter(1, payload=row))
    (found,) = read_dead_letters(path)
    assert found.payload == row


@pytest.mark.parametrize("payload", [object(), {"x": object()}, {1: 2}, [{"x": float("nan")}]])
def test_whatever_the_payload_the_letter_is_written(payload, path):
    write(path, letter(1, payload=payload))
    assert len(list(read_dead_letters(path))) == 1


def test_text_that_looks_like_a_letter_does_not_confuse_the_positions(path):
    text = '", "position": 99, "key": "'
    write(path, letter(5, message=text, run=f"/dags/{text}", payload={"x": text}), letter(6))
    assert [position for position, _ in read(path)] == [5, 6]


def test_it_is_for_its_owner_only_after_a_rewrite_too(path):
    write(path, letter(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write(path, letter(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_line_is_json_that_others_can_read(path):
    write(path, letter(1, payload={"phone": "+12125550100", "n": 1}))
    assert json.loads(path.read_text())["payload"] == {"phone": "+12125550100", "n": 1}


def test_closing_many_large_letters_takes_little_memory(path):
    letters = DeadLetters(path)
    for position in range(2_000):
        letters.write(letter(position % 1_000, payload={"x": "y" * 5_000}))
    tracemalloc.start()
    letters.close(lambda position: True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    assert len(list(read_dead_letters(path))) == 1_000


@pytest.mark.parametrize(
    ("one", "cause"),
    [(letter(1), "plan: bad"), (letter(1, "no", reason="HTTP 400"), "rejected, HTTP 400")],
)
def test_the_cause_is_what_to_group_by(one, cause):
    assert one.cause == cause
