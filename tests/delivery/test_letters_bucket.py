"""Dead letters of run folders in a bucket, here one in memory, are sent once, as those of any folder."""

from __future__ import annotations

from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import fsspec
import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import ReadDeadLettersError
from airflow_provider_regal.journal import bucket_letters
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.bucket_letters import BucketLetters
from airflow_provider_regal.journal.bucket_retention import remove_old_folders
from airflow_provider_regal.journal.last_try import last_try
from airflow_provider_regal.journal.log_notes import DEAD_AFTER_S
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.mirrored_folder import MirroredFolder
from airflow_provider_regal.journal.redelivery import since_when
from airflow_provider_regal.journal.run_folder import FolderInUseError
from airflow_provider_regal.journal.segment import Rank
from tests.delivery.redelivering import Redeliver

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
NEVER = lambda claim: False  # noqa: E731


class Root:
    """The folder of all run folders, as the fixture ``deliver`` wants it."""

    def __init__(self, bucket):
        self.bucket = bucket

    def __truediv__(self, name):
        return self.bucket.below(name)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = f"/{uuid4().hex}/prefix"
    return Bucket(fsspec.filesystem("memory"), path, f"memory:/{path}", patience_s=0.0)


@pytest.fixture
def folder_of_first_run(root):
    return SimpleNamespace(parent=Root(root))


@pytest.fixture
def original(root):
    return root.below("run")


@pytest.fixture
def redeliver(deliver, root):
    return Redeliver(deliver, root)


@pytest.fixture
def refused(deliver, regal_sandbox):
    """Deliver rows that Regal refuses, all of them."""

    def run(count=6, of_run="run", **options):
        regal_sandbox.set_faults([REFUSE])
        with suppress(ReadDeadLettersError):
            deliver(people(count), of_run=of_run, **options)
        regal_sandbox.set_faults([])

    return run


def people(count):
    return [{"user_id": f"u{number}", "amount": number} for number in range(count)]


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events(stored=True))


def once(count):
    return Counter({f"u{number}": 1 for number in range(count)})


def letters_of(bucket, now=None):
    return closing(BucketLetters(bucket, Clock() if now is None else Clock(now=lambda: now)))


def holding(bucket, number=1):
    """Open a run folder as a task does."""
    return MirroredFolder(
        bucket, rank=Rank(0, number), checkpoint_interval_s=1.0, timeout_s=1.0, clock=Clock(sleep=lambda seconds: None)
    )


def claims_in(bucket):
    with letters_of(bucket) as letters:
        return dict(letters._claims)


def test_letters_are_sent_once_and_each_says_what_became_of_it(refused, redeliver, regal_sandbox, original, caplog):
    refused(5)
    before = {key for key in original.list(deep=True) if key.startswith("log/")}

    report = redeliver("run", "r*", "**")

    assert (report.read, report.acknowledged) == (5, 5)
    assert arrivals(regal_sandbox) == once(5)
    assert [(c.by.rpartition("/")[2], c.outcome) for c in claims_in(original).values()] == [
        ("again", "acknowledged")
    ] * 5
    assert len({key for key in original.list(deep=True) if key.startswith("log/")} - before) == 1, "one note for all"
    assert redeliver(of_run="other").read == 0
    assert "/again, acknowledged there" in caplog.text


def test_what_is_refused_anew_is_a_letter_of_the_redelivery(refused, redeliver, regal_sandbox, original):
    refused(2)
    regal_sandbox.set_faults([REFUSE])
    with pytest.raises(ReadDeadLettersError, match=r"All are in memory://?.*again/dead_letters.jsonl"):
        redeliver()
    regal_sandbox.set_faults([])
    assert {claim.outcome for claim in claims_in(original).values()} == {"rejected"}

    assert redeliver("again", of_run="third", limit=1).acknowledged == 1
    assert redeliver(epoch=1, number=2).acknowledged == 1, "cleared, it tries what the third has not taken"
    assert arrivals(regal_sandbox) == once(2)


def test_nothing_can_be_taken_once_a_task_has_worked_in_the_folder(refused, deliver, regal_sandbox, original):
    refused(3)
    with letters_of(original) as letters:
        assert len(list(letters.read())) == 3
        assert deliver(people(3), epoch=1, number=2).acknowledged == 3
        with pytest.raises(FolderInUseError, match="a task has worked in"):
            letters.take([0], "again", NEVER)
    assert arrivals(regal_sandbox) == once(3)


def test_a_folder_somebody_works_in_is_left_alone(refused, redeliver, regal_sandbox, original, caplog):
    refused(2)
    with closing(holding(original, 2)):
        assert redeliver().read == 0
        assert f"A task works in {original}" in caplog.text
        with pytest.raises(FolderInUseError), letters_of(original):
            pass
        with letters_of(original, datetime.now(UTC) + timedelta(seconds=DEAD_AFTER_S + 1)) as letters:
            assert len(list(letters.read())) == 2, "it was not heard of for long: it is dead"
    assert arrivals(regal_sandbox) == Counter()


def test_who_read_the_log_long_ago_finds_its_number_taken_for_ever(refused, deliver, original):
    refused(3)
    with letters_of(original) as late:
        with letters_of(original) as other:
            other.take([0], "other", NEVER)
        deliver(people(3), epoch=1, number=2, max_rejected=1)  # which puts the log together
        with pytest.raises(FolderInUseError):
            late.take([1], "late", NEVER)


def test_clearing_a_delivery_leaves_out_what_a_redelivery_has_sent(
    refused, deliver, redeliver, regal_sandbox, original
):
    refused(6)
    redeliver(limit=4)
    assert len(claims_in(original)) == 4

    report = deliver(people(6), epoch=1, number=2)

    assert (report.acknowledged, report.skips) == (2, {"redelivered": 4})
    assert arrivals(regal_sandbox) == once(6)
    assert redeliver(of_run="third").read == 0


def test_clearing_a_delivery_leaves_alone_what_a_redelivery_is_about_to_send(
    refused, deliver, regal_sandbox, original, caplog
):
    refused(3)
    with letters_of(original) as letters:
        letters.take([0], "a redelivery under way", NEVER)
    with pytest.raises(ReadDeadLettersError):
        deliver(people(3), epoch=1, number=2)
    assert arrivals(regal_sandbox) == Counter({"u1": 1, "u2": 1})
    assert "1 rows stay rejected: redeliveries have taken them, and are not done" in caplog.text


def test_a_delivery_that_starts_over_forgets_who_took_its_letters(refused, redeliver, regal_sandbox, original):
    refused(3)
    redeliver()
    refused(3, restart=True, number=2)
    assert claims_in(original) == {}
    assert redeliver(of_run="third").acknowledged == 3


def test_letters_are_given_back_where_fix_fails(refused, redeliver, regal_sandbox, original):
    refused(3)

    def fix(letter):
        if letter["properties"]["amount"] == 2:
            raise KeyError("plan")
        return letter

    with pytest.raises(KeyError):
        redeliver(fix=fix)
    assert claims_in(original) == {}
    with pytest.raises(KeyError):
        redeliver(fix=fix, limit=10, number=2)
    assert redeliver(of_run="other").acknowledged == 3
    assert arrivals(regal_sandbox) == once(3)


def test_a_killed_try_takes_its_letters_again_and_cannot_give_them_back_later(
    refused, redeliver, regal_sandbox, original
):
    refused(3)
    mine = f"{redeliver.root}/again"
    killed = holding(redeliver.root.below("again"), 1)
    killed.marker = Marker("table", 0, 1)
    killed.sync()
    with letters_of(original) as letters:
        (claim, *_) = letters.take([0, 1, 2], mine, NEVER).values()

    assert redeliver(number=2).acknowledged == 3
    bucket_letters.give_back(original, dict.fromkeys(range(3), claim.token), Clock())  # it wakes up

    assert {claim.outcome for claim in claims_in(original).values()} == {"acknowledged"}
    assert redeliver(of_run="other").read == 0
    assert arrivals(regal_sandbox) == once(3)
    with suppress(OSError):
        killed.close()


def test_that_a_redelivery_has_begun_is_known_before_it_takes_anything(refused, redeliver, root):
    refused(1)
    seen = []

    def fix(letter):
        seen.append(last_try(root.below("again")))
        return letter

    redeliver(fix=fix)
    assert seen[0].try_number == 1
    assert seen[0].fingerprint == "table"


def test_a_redelivery_of_the_same_name_that_lost_its_folder_does_not_take_its_letters_again(refused, redeliver, root):
    refused(3)
    redeliver()
    root.below("again").remove(root.below("again").list(deep=True))
    assert redeliver().read == 0


def test_who_only_looks_writes_nothing(refused, redeliver, original):
    refused(3)
    before = original.list(deep=True)
    assert redeliver(status="unknown").read == 0
    assert since_when(original, Clock()) != ""
    assert original.list(deep=True) == before


def test_retention_removes_what_became_of_letters_too(refused, redeliver, root, original):
    refused(2)
    redeliver()
    assert any(key.startswith("redelivered/") for key in original.list(deep=True))
    later = datetime.now(UTC).timestamp() + 100
    assert remove_old_folders(root, older_than_s=10, now=later) == 2
    assert root.list(deep=True) == {}


def test_a_copy_of_letters_can_be_put_into_a_bucket(refused, redeliver, regal_sandbox, root, original):
    refused(2)
    root.below("copied").put("dead_letters.jsonl", original.get("dead_letters.jsonl"))
    assert redeliver("copied").acknowledged == 2
    assert redeliver("copied/dead_letters.jsonl", of_run="other").read == 0


def test_a_log_with_a_hole_leaves_its_letters_where_they_are(refused, redeliver, original, caplog):
    refused(2)
    with letters_of(original) as letters:
        letters.take([0], "x", NEVER)
    with letters_of(original) as letters:
        letters.take([1], "x", NEVER)
    numbers = sorted(key for key in original.list("log"))
    original.remove([numbers[-2]])
    assert redeliver().read == 0
    assert f"the log of {original} has a hole; its dead letters stay where they are" in caplog.text


def test_letters_that_are_many_are_taken_by_some_notes(refused, redeliver, regal_sandbox, original, monkeypatch):
    monkeypatch.setattr("airflow_provider_regal.delivery.sources.letters._TAKEN_AT_ONCE", 4)
    refused(10)
    assert redeliver(limit=9).acknowledged == 9
    assert Counter(claim.outcome for claim in claims_in(original).values()) == {"acknowledged": 9}
    assert sorted(claims_in(original)) == list(range(9))
