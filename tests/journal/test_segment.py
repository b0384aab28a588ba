"""Segments: what is written is read back, and what does not fit together is noticed."""

from __future__ import annotations

import pytest

from airflow_provider_regal.journal.segment import DamagedError, Kind, Part, Rank, Segment, decode, files_of


def segment(*parts, whole=False, gone=(), kind=Kind.WRITE):
    return Segment(kind, "writer", Rank(0, 1), 5.0, whole, parts, gone)


def test_what_is_written_is_read_back():
    written = segment(
        Part("marker.json", 3, None, None, b"{}\n"),
        Part("progress.log", 4, 10, None, b"R 1\n"),
        Part("rows-000000.jsonl", 99, None, "files/w-1"),
        gone=("old.json",),
    )
    assert decode(written.encode(7)) == written


def test_two_segments_of_one_writer_never_look_alike():
    assert segment().encode(1) != segment().encode(2)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"no json\n", b"[]\n", b"\xff\n"])
def test_what_is_no_segment_is_damage(content):
    with pytest.raises(DamagedError):
        decode(content)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x"])
def test_a_segment_of_another_length_is_damage(change):
    with pytest.raises(DamagedError):
        decode(change(segment(Part("a", 3, None, None, b"abc")).encode(1)))


def names(files):
    return {name: b"".join(part.data for part in parts) for name, parts in files.items()}


def test_parts_are_put_together_in_their_order():
    files = files_of([
        segment(Part("log", 2, 0, None, b"ab"), Part("marker", 1, None, None, b"1")),
        segment(Part("log", 1, 2, None, b"c"), Part("marker", 1, None, None, b"2")),
        segment(gone=("nothing",)),
    ])  # fmt: skip
    assert names(files) == {"log": b"abc", "marker": b"2"}


def test_a_file_that_is_gone_may_come_again():
    files = files_of([
        segment(Part("log", 2, 0, None, b"ab")),
        segment(gone=("log",)),
        segment(Part("log", 1, 0, None, b"c")),
    ])  # fmt: skip
    assert names(files) == {"log": b"c"}


def test_a_whole_segment_makes_what_was_before_not_count():
    files = files_of([segment(Part("log", 2, 0, None, b"ab")), segment(Part("x", 1, None, None, b"x"), whole=True)])
    assert names(files) == {"x": b"x"}


def test_a_gap_is_damage():
    with pytest.raises(DamagedError, match="log has a gap"):
        files_of([segment(Part("log", 2, 0, None, b"ab")), segment(Part("log", 1, 3, None, b"d"))])


def test_a_later_try_ranks_above_an_earlier_one():
    assert Rank(0, 1) < Rank(0, 2) < Rank(1, 2) < Rank(1, 3)
