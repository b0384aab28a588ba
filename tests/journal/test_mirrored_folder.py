"""A run folder in a bucket, here one in memory: what one try leaves is what the next finds, and one try has it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from uuid import uuid4

import fsspec
import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.bucket import Bucket, StorageError
from airflow_provider_regal.journal.bucket_retention import remove_old_folders
from airflow_provider_regal.journal.dead_letters import DeadLetter, read_dead_letters
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.mirrored_folder import MirroredFolder
from airflow_provider_regal.journal.progress import CorruptProgressError, Outcome
from airflow_provider_regal.journal.run_folder import FolderInUseError
from airflow_provider_regal.journal.segment import Rank
from airflow_provider_regal.journal.segment_log import FolderTakenError


class Time:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, 0.0

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds

    @property
    def clock(self):
        return Clock(monotonic=lambda: self.now, sleep=self.sleep)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def bucket(time):
    path = f"/{uuid4().hex}/run"
    return Bucket(
        fsspec.filesystem("memory"), path, f"memory:/{path}", patience_s=5.0, monotonic=lambda: time.now,
        sleep=time.sleep,
    )  # fmt: skip


@pytest.fixture
def open_folder(bucket, time, tmp_path):
    def make(number=1, epoch=0, *, timeout_s=10.0, stopped=lambda: False):
        return MirroredFolder(
            bucket, rank=Rank(epoch, number), checkpoint_interval_s=1.0, timeout_s=timeout_s, clock=time.clock,
            stopped=stopped, parent=tmp_path,
        )  # fmt: skip

    return make


def letter(position):
    return DeadLetter("run", position, "u", "track", "rejected", "invalid", "f", "wrong", 0, "t", "t", {"a": 1})


def filled(folder, rows=3):
    folder.marker = Marker("source", 0, 1)
    folder.take_snapshot({"n": number} for number in range(rows))
    folder.progress.reserve(range(rows))
    folder.progress.settle(0, Outcome.ACKNOWLEDGED)
    folder.dead_letters.write(letter(1))
    folder.progress.settle(1, Outcome.REJECTED)
    folder.progress.flush()
    folder.withheld(0, ["why"], {"n": 0})
    folder.write_report({"read": rows})
    return folder


def check_filled(folder, rows=3):
    assert folder.marker == Marker("source", 0, 1)
    assert [row for _, row in folder.rows()] == [{"n": number} for number in range(rows)]
    assert folder.progress.outcome(0) is Outcome.ACKNOWLEDGED
    assert folder.progress.outcome(1) is Outcome.REJECTED
    assert folder.progress.is_reserved(2)
    assert [found.position for found in read_dead_letters(folder.path / "dead_letters.jsonl")] == [1]
    assert (folder.path / "withheld.jsonl").read_text().count("why") == 1
    assert folder.read_report() == {"read": rows}


def test_what_a_closed_try_left_is_there_for_the_next(open_folder, time):
    filled(open_folder()).close()
    folder = open_folder(2)
    check_filled(folder)
    assert time.slept == 0
    folder.close()


def test_what_a_dead_try_had_synced_is_there_once_nothing_of_it_is_under_way(open_folder, time):
    dead = filled(open_folder())
    dead.sync()
    folder = open_folder(2)
    check_filled(folder)
    assert 14.0 <= time.slept < 15.0, "two intervals, the time of a request, and some"
    folder.close()
    with pytest.raises(FolderTakenError):
        dead.close()  # too late
    folder = open_folder(3)
    check_filled(folder)
    folder.close()


def test_what_was_not_synced_is_not_there(open_folder):
    dead = open_folder()
    dead.marker = Marker("source", 0, 1)
    dead.sync()
    dead.progress.settle(0, Outcome.ACKNOWLEDGED)
    folder = open_folder(2)
    assert (folder.progress.length, folder.marker) == (0, Marker("source", 0, 1))
    folder.close()


def test_many_rows_go_into_objects_of_their_own_and_are_removed_with_the_rows(open_folder, bucket):
    folder = filled(open_folder(), rows=60_000)
    folder.sync()
    assert len(bucket.list("files")) >= 10
    folder.close()
    folder = open_folder(2)
    check_filled(folder, rows=60_000)
    folder.drop_rows()
    folder.close()
    assert bucket.list("files") == {}


def test_rows_that_were_not_read_to_the_end_are_not_kept(open_folder):
    def broken():
        yield from ({"n": number} for number in range(12_000))
        raise RuntimeError

    folder = open_folder()
    with pytest.raises(RuntimeError):
        folder.take_snapshot(broken())
    folder.close()
    folder = open_folder(2)
    assert folder.row_count is None
    assert list(folder.path.glob("rows-*")) == []
    folder.close()


def test_starting_over_replaces_everything_even_while_it_is_not_closed(open_folder):
    filled(open_folder()).close()
    folder = open_folder(2)
    folder.start_over()
    folder.take_snapshot([{"n": 9}])
    folder.progress.reserve([0])
    folder.sync()
    folder = open_folder(3)
    assert [row for _, row in folder.rows()] == [{"n": 9}]
    assert folder.progress.length == 1
    assert not (folder.path / "withheld.jsonl").exists()
    folder.close()


def test_letters_of_rows_that_are_dead_no_longer_are_dropped(open_folder, bucket):
    filled(open_folder()).close()
    folder = open_folder(2)
    folder.dead_letters.write(letter(2))
    folder.progress.release(1)
    folder.progress.settle(1, Outcome.ACKNOWLEDGED)
    folder.progress.settle(2, Outcome.REJECTED)
    folder.close()
    folder = open_folder(3)
    assert [found.position for found in read_dead_letters(folder.path / "dead_letters.jsonl")] == [2]
    folder.close()
    assert bucket.get("dead_letters.jsonl").count(b"\n") == 1


def test_a_torn_line_is_left_for_the_next_segment(open_folder):
    folder = open_folder()
    with (folder.path / "progress.log").open("w") as log:
        for written in ("R 1\nR", " 2\n"):
            log.write(written)
            log.flush()
            folder._mirror.push()
    found = open_folder(2)
    assert (found.path / "progress.log").read_text() == "R 1\nR 2\n"
    found.close()


def test_a_try_that_was_asked_to_leave_still_says_what_it_knows(open_folder):
    old = filled(open_folder())
    old.sync()
    asked = itertools.count()
    with pytest.raises(FolderInUseError):
        open_folder(2, stopped=lambda: next(asked) > 0)
    with pytest.raises(FolderTakenError):
        old.sync()
    old.progress.settle(2, Outcome.ACKNOWLEDGED)
    old.close()
    new = open_folder(3)
    assert new.progress.outcome(2) is Outcome.ACKNOWLEDGED
    new.close()


def test_a_try_that_is_not_later_does_not_ask(open_folder):
    old = filled(open_folder(number=2))
    old.sync()
    polls = []

    def working():
        polls.append(1)
        old.sync()
        return False

    with pytest.raises(FolderInUseError):
        open_folder(number=2, stopped=working)
    assert len(polls) == 1
    old.sync()
    old.close()


def test_who_wakes_up_after_all_was_put_together_can_note_nothing_more(open_folder):
    frozen = filled(open_folder())
    frozen.sync()
    for number in (2, 3):
        folder = open_folder(number)
        folder.sync()
        folder.close()
    frozen.progress.reserve([0])
    with pytest.raises(FolderTakenError):
        frozen.sync()
    frozen.close()
    folder = open_folder(4)
    check_filled(folder)
    folder.close()


def test_who_slept_while_it_waited_does_not_take_what_was_put_together_since(open_folder, time):
    old = filled(open_folder(number=2))
    old.sync()

    def sleeping():
        old.sync()
        old.close()
        filled(open_folder(number=3)).close()
        time.now += 1_000
        return False

    with pytest.raises(FolderInUseError, match="meanwhile"):
        open_folder(number=2, stopped=sleeping)
    folder = open_folder(4)
    assert folder.progress.length == 3
    folder.close()


def test_much_at_once_goes_into_objects_of_its_own(open_folder, bucket):
    folder = open_folder()
    for start in (0, 100_000):
        folder.progress.reserve(range(start, start + 100_000))
        folder.sync()
    assert len(bucket.list("files")) == 2
    for number in (2, 3):
        found = open_folder(number)
        assert all(map(found.progress.is_reserved, range(200_000)))
        found.close()
        assert len(bucket.list("files")) == 1


def test_nothing_is_sent_once_two_checkpoints_were_missed(open_folder, time):
    folder = open_folder()
    assert folder.wait_s(time.now + 2.0) == 0
    assert folder.wait_s(time.now + 2.1) > 0
    time.now += 5
    folder.sync()
    assert folder.wait_s(time.now) == 0
    folder.close()


class Failing:
    """A file system that fails for a while."""

    async_impl = False

    def __init__(self, fs, error, times):
        self._fs, self._error, self.left = fs, error, times

    def __getattr__(self, name):
        def call(*args, **options):
            if self.left:
                self.left -= 1
                raise self._error
            return getattr(self._fs, name)(*args, **options)

        return call


def test_a_hiccup_is_waited_out(open_folder, bucket, time):
    folder = filled(open_folder())
    bucket._fs = Failing(bucket._fs, TimeoutError(), 3)
    folder.sync()
    assert 1.0 < time.slept < 5.0
    folder.close()


def test_an_outage_of_the_bucket_ends_patience_and_is_then_not_waited_for_again(open_folder, bucket, time):
    folder = filled(open_folder())
    folder.sync()
    whole, bucket._fs = bucket._fs, Failing(bucket._fs, PermissionError("secret key"), 1_000)
    with pytest.raises(StorageError, match="cannot be reached or written: PermissionError"):
        folder.sync()
    assert 3.0 <= time.slept <= 5.0
    before = time.slept
    with pytest.raises(StorageError):
        folder.sync()
    folder.close()
    assert time.slept == before
    bucket._fs = whole
    folder = open_folder(2)
    check_filled(folder)
    folder.close()


def test_a_hole_in_the_log_is_for_somebody_to_decide_about(open_folder, bucket):
    folder = filled(open_folder())
    folder.sync()
    folder.sync()
    bucket.remove([sorted(bucket.list("log"))[1]])
    folder = open_folder(2)
    with pytest.raises(CorruptProgressError):
        _ = folder.progress
    assert folder.marker is not None
    folder.close()
    folder = open_folder(3)
    with pytest.raises(CorruptProgressError):
        _ = folder.progress
    folder.start_over()
    assert folder.progress.length == 0
    folder.close()
    folder = open_folder(4)
    assert folder.progress.length == 0
    folder.close()


def test_old_folders_are_removed_and_others_stay(bucket):
    for key in ("d/r/t/-1/log/000000001", "d/r/t/-1/files/w-1-rows-000000.jsonl", "d/r/t/-1/report.json"):
        bucket.put(key, b"x")
    bucket.put("d/r/t/-1/deliveries/n/log/000000001", b"x")
    bucket.put("somebody/elses", b"x")
    now = datetime.now(UTC).timestamp()
    assert remove_old_folders(bucket, older_than_s=60, now=now) == 0
    assert remove_old_folders(bucket, older_than_s=60, now=now + 3_600) == 2
    assert list(bucket.list(deep=True)) == ["somebody/elses"]


def test_the_working_folder_goes_with_the_try(open_folder, tmp_path):
    folder = filled(open_folder())
    (working,) = tmp_path.iterdir()
    assert working.stat().st_mode & 0o777 == 0o700
    folder.close()
    assert list(tmp_path.iterdir()) == []
