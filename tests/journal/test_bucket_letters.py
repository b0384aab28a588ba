"""Dead letters of a run folder in a bucket, here one in memory: who takes one has it, whoever else works there."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import fsspec
import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal import bucket_letters
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.bucket_letters import BucketLetters
from airflow_provider_regal.journal.dead_letters import DeadLetter
from airflow_provider_regal.journal.last_try import last_try
from airflow_provider_regal.journal.log_notes import DEAD_AFTER_S
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.mirrored_folder import MirroredFolder
from airflow_provider_regal.journal.progress import Outcome
from airflow_provider_regal.journal.redelivery import claims_of, find_in_bucket
from airflow_provider_regal.journal.segment import Kind, Rank
from airflow_provider_regal.journal.segment_log import SegmentLog

NEVER = lambda claim: False  # noqa: E731


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = f"/{uuid4().hex}/prefix"
    return Bucket(fsspec.filesystem("memory"), path, f"memory:/{path}", patience_s=0.0)


@pytest.fixture
def original(root):
    return root.below("run")


@pytest.fixture
def refused(original):
    """Leave a run folder with so many rejected rows."""

    def run(count):
        with closing(holding(original, 1)) as folder:
            folder.marker = Marker("table", 0, 1, outcome="failed")
            for position in range(count):
                folder.dead_letters.write(letter(position))
                folder.progress.settle(position, Outcome.REJECTED)

    return run


def letter(position):
    return DeadLetter("run", position, "u", "track", "rejected", "HTTP 400", None, "", 1, "t", "t", {"a": 1})


def letters_of(bucket, now=None):
    return closing(BucketLetters(bucket, Clock() if now is None else Clock(now=lambda: now)))


def holding(bucket, number):
    """Open a run folder as a task does."""
    return MirroredFolder(
        bucket, rank=Rank(0, number), checkpoint_interval_s=1.0, timeout_s=1.0, clock=Clock(sleep=lambda seconds: None)
    )


def claims_in(bucket):
    with letters_of(bucket) as letters:
        return dict(letters._claims)


def test_of_two_that_have_read_the_same_letters_one_gets_each(refused, original):
    refused(4)
    with letters_of(original) as one, letters_of(original) as other:
        assert [letter.position for letter in one.read()] == [letter.position for letter in other.read()]
        assert [claim.ours for claim in one.take([0, 1], "one", NEVER).values()] == [True, True]
        assert {p: (c.by, c.ours) for p, c in other.take([1, 2], "other", NEVER).items()} == {
            1: ("one", False),
            2: ("other", True),
        }
        assert [claim.ours for claim in one.take([2, 3], "one", NEVER).values()] == [False, True]
    assert {position: claim.by for position, claim in claims_in(original).items()} == {
        0: "one", 1: "one", 2: "other", 3: "one",
    }  # fmt: skip


def test_whoever_held_a_folder_and_is_taken_for_dead_can_note_nothing_more(refused, original):
    refused(2)
    dead = holding(original, 2)
    with letters_of(original, datetime.now(UTC) + timedelta(seconds=DEAD_AFTER_S + 1)) as letters:
        letters.take([0], "again", NEVER)
    with pytest.raises(OSError, match="another try has taken over"):
        dead.sync()
    with suppress(OSError):
        dead.close()
    with closing(holding(original, 3)) as folder:
        assert claims_of(folder).keys() == {0}


def test_a_task_starts_though_something_is_noted_meanwhile(refused, original):
    refused(2)
    log = SegmentLog(original, rank=Rank(0, 2), quiet_s=1.0, clock=Clock())
    log._read()
    with letters_of(original) as letters:
        letters.take([0], "again", NEVER)
    log._read = lambda: None  # as it was read before
    assert [segment.kind for segment in log.take()][-1] is Kind.NOTE
    log.append(kind=Kind.CLOSE)
    assert claims_in(original).keys() == {0}


def test_who_wakes_up_late_gives_back_nothing_that_was_taken_anew(refused, original):
    refused(2)
    with letters_of(original) as letters:
        (old, *_) = letters.take([0, 1], "mine", NEVER).values()
    with letters_of(original) as letters:
        assert letters.take([0], "mine", lambda claim: True)[0].ours
    bucket_letters.give_back(original, {0: old.token, 1: old.token}, Clock())
    assert claims_in(original).keys() == {0}


def test_how_the_last_try_ended_is_known_without_taking_the_folder(refused, original, root):
    assert last_try(root.below("nowhere")) is None
    refused(1)
    before = original.list(deep=True)
    told = last_try(original)
    assert (told.try_number, told.outcome) == (1, "failed")
    assert original.list(deep=True) == before
    with closing(holding(root.below("killed early"), 3)):
        assert last_try(root.below("killed early")).try_number == 3


def test_folders_are_found_by_path_glob_and_file_each_once(root):
    for name in ("d/r1/t", "d/r[2]/t", "d/r[2]/t/deliveries/x"):
        root.below(name).put("log/000000001", b"x")
    root.below("d/r3/t").put("report.json", b"{}")

    def find(path):
        return [found.uri.removeprefix(f"{root}/") for found in find_in_bucket(path, root)]

    every = ["d/r1/t", "d/r[2]/t", "d/r[2]/t/deliveries/x"]
    assert find("d/*/t") == find("d") == find("**") == find("") == find("d/") == find("*/r*/?") == every
    assert find("d/r[2]") == find("d/r[2]/t/dead_letters.jsonl") == find("**/r[[]2]/**") == every[1:]
    assert find("d/r[12]/t") == every[:1], "or it means a folder of that name"
    assert find("**/x") == every[2:]
    assert find("nothing*") == find("d/r1/*/t") == []
    for missing in ("d/r3/t", "d/r"):
        with pytest.raises(FileNotFoundError, match=f"There is no run folder {root}/{missing}"):
            find(missing)


def test_the_letters_copied_here_are_private_and_removed(refused, original, tmp_path):
    refused(2)
    with letters_of(original) as letters:
        list(letters.read())
        (folder,) = tmp_path.glob("regal-run-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert list(tmp_path.glob("regal-run-*")) == []


def test_a_note_names_nobody(refused, original):
    refused(2)
    with letters_of(original) as letters:
        letters.take([0, 1], "again", NEVER)
    last = max(key for key in original.list("log"))
    head, line = original.get(last).split(b"\n", 1)
    assert json.loads(head)["kind"] == "note"
    assert json.loads(line)["positions"] == [0, 1]
