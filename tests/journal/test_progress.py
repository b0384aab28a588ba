"""The log says after a crash what memory said before it."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.journal.progress import CorruptProgressError, Outcome, Progress, Skip
from tests.events.hostile import many

outcomes = st.sampled_from([Outcome.ACKNOWLEDGED, Outcome.REJECTED, Outcome.UNKNOWN, *Skip])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.lists(st.integers(0, 30), max_size=5)),
        st.tuples(st.just("settle"), st.integers(0, 30), outcomes),
        st.tuples(st.just("release"), st.integers(0, 30)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


def state(progress):
    return [(progress.outcome(n), progress.is_reserved(n), progress.is_dead(n)) for n in range(32)]


def log(path, text):
    path.write_bytes(text.encode())
    return Progress(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "progress.log"


@many
@given(steps=steps)
def test_a_replay_equals_memory(steps):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "progress.log"
        progress = Progress(path)
        model = dict[int, object]()
        for step, *told in steps:
            if step == "reserve":
                progress.reserve(told[0])
                model.update(dict.fromkeys(told[0], "reserved"))
            elif step == "settle":
                progress.settle(*told)
                model[told[0]] = Outcome.SKIPPED if isinstance(told[1], Skip) else told[1]
            elif step == "release":
                progress.release(told[0])
                model[told[0]] = None
            elif step == "flush":
                progress.flush()
            else:
                progress.close()
                progress = Progress(path)
            known = {position: what for position, what in model.items() if isinstance(what, Outcome)}
            assert {n: progress.outcome(n) for n in range(32) if progress.outcome(n)} == known
            assert {n for n in range(32) if progress.is_reserved(n)} == {n for n in model if model[n] == "reserved"}
            for outcome in Outcome:
                assert progress.positions(outcome) == sorted(n for n, what in known.items() if what is outcome)
                assert progress.count(outcome) == len(progress.positions(outcome))
            assert progress.may_have_sent == bool(
                {"reserved", Outcome.ACKNOWLEDGED, Outcome.UNKNOWN} & set(model.values())
            )
        before = state(progress)
        progress.close()
        again = Progress(path)
        assert state(again) == before
        again.close()


def test_what_was_reserved_is_in_the_file_at_once_and_what_was_settled_after_a_flush(path):
    progress = Progress(path)
    progress.settle(1, Outcome.ACKNOWLEDGED)
    assert path.read_bytes() == b""
    progress.reserve([2, 3])
    assert path.read_bytes() == b"A 1\nR 2\nR 3\n", "in the order in which it happened"
    progress.sync()
    progress.close()


@pytest.mark.parametrize("torn", ["A", "A ", "A 1", "\0\0\0"])
def test_a_torn_last_line_was_never_made_and_is_not_continued(torn, path):
    progress = log(path, f"A 0\nR 1\n{torn}")
    assert progress.is_reserved(1)
    progress.settle(1, Outcome.UNKNOWN)
    progress.close()
    assert path.read_bytes() == b"A 0\nR 1\nU 1\n"


@pytest.mark.parametrize("line", ["", "Y 1", "A", "A -1", "A 1 ", "A 1R 2", "a 1", "A 1\r", "A 9999999999", "\0\0"])
def test_a_corrupt_line_is_an_error_that_names_it(line, path):
    with pytest.raises(CorruptProgressError, match="line 2 "):
        log(path, f"A 0\n{line}\nA 2\n")


def test_digits_of_other_scripts_are_corrupt(path):
    with pytest.raises(CorruptProgressError):
        log(path, "A ٣\n")


def test_a_corrupt_log_is_left_as_it_is(path):
    with pytest.raises(CorruptProgressError):
        log(path, "rubbish\nA 2")
    assert path.read_bytes() == b"rubbish\nA 2"


def test_it_is_for_its_owner_only(path):
    Progress(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_million_rows_take_a_megabyte_and_no_more_while_they_are_read(path):
    path.write_bytes(b"".join(b"R %d\nA %d\n" % (n, n) for n in range(100_000)))
    tracemalloc.start()
    progress = Progress(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert progress.count(Outcome.ACKNOWLEDGED) == 100_000
    assert kept < 200_000
    assert peak < 600_000
    progress.close()


def test_a_full_disk_is_an_error_and_leaves_no_half_entry(path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path.symlink_to("/dev/full")
    # Nothing is replayed: /dev/full gives zeros without end.
    progress = Progress.__new__(Progress)
    progress._states, progress._pending, progress._file = bytearray(), [], os.open(path, os.O_WRONLY)
    progress._syncing = threading.Lock()
    progress.settle(1, Outcome.ACKNOWLEDGED)
    with pytest.raises(OSError, match="No space left"):
        progress.flush()
    with pytest.raises(OSError, match="No space left"):
        progress.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(progress._file)
