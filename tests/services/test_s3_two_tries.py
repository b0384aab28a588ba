"""Two tries of one task instance at once: the later one asks, the earlier one leaves; a dead one is waited out."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import FixConnectionError, RetryLaterError
from airflow_provider_regal.journal.run_folder import FolderInUseError
from airflow_provider_regal.journal.segment import Kind, Rank
from airflow_provider_regal.journal.segment_log import FolderTakenError, SegmentLog
from tests.services.s3 import claims_of, time_of

pytestmark = pytest.mark.services
ROWS = 1_000
RATE = 300
INTERVAL_S = 0.5
RESERVED = int(RATE * 2 * INTERVAL_S) + 64


def people():
    return [{"user_id": f"u{number}"} for number in range(ROWS)]


class Running:
    """A try that runs in a thread."""

    def __init__(self, delivery):
        self.delivery, self.error = delivery, None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.delivery.run()
        except RetryLaterError as error:
            self.error = error

    def join(self):
        self._thread.join(60)


def is_stopped(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def sent_by(number, regal):
    """:returns: when the requests of a try came, by Regal's clock."""
    return [time_of(event) for event in regal.events() if event["body"]["eventSource"] == f"try {number}"]


@pytest.mark.parametrize("call", ["track", "identify"])
def test_the_old_sender_stops_within_a_checkpoint_interval(in_bucket, s3, regal_sandbox, record_property, call):
    old = Running(in_bucket.delivery(people(), call=call, rate=RATE, checkpoint_interval=INTERVAL_S, timeout_s=30))
    in_bucket.wait_for(300)
    started = time.monotonic()
    new = in_bucket.delivery([], call=call, number=2, rate=1_000, checkpoint_interval=INTERVAL_S, timeout_s=30)
    report = new.run()
    old.join()

    claimed = claims_of(s3)[-1]  # an earlier one may have lost its number to a checkpoint
    sent_on_s = max(sent_by(1, regal_sandbox)) - claimed
    record_property("sent on for", f"{sent_on_s:.2f} s")
    record_property("handed over after", f"{min(sent_by(2, regal_sandbox)) - claimed:.2f} s")
    assert sent_on_s <= INTERVAL_S + 0.2, "one interval, and what the last request takes"
    assert "another try has taken over s3://bucket@journal/prefix/dag/run/task/-1" in str(old.error)
    assert max(sent_by(1, regal_sandbox)) < min(sent_by(2, regal_sandbox))
    assert (report.read, report.acknowledged, report.unknown) == (ROWS, ROWS, 0), "it had time for a last word"
    assert set(in_bucket.arrivals().values()) == {1}
    assert time.monotonic() - started < 30, "nobody waited for what was said to be over"


@pytest.mark.parametrize("call", ["track", "identify"])
def test_a_sender_that_was_frozen_sends_nothing_when_it_wakes(in_bucket, regal_sandbox, record_property, call):
    frozen = in_bucket.begin(ROWS, call=call, rate=RATE, checkpoint_interval=INTERVAL_S, timeout_s=1.0, uvloop=False)
    in_bucket.wait_for(300)
    frozen.send_signal(signal.SIGUSR1)
    report = in_bucket.delivery([], call=call, number=2, max_unknown=1.0).run()
    before = len(sent_by(1, regal_sandbox))
    assert is_stopped(frozen)
    woken = time.time()
    frozen.send_signal(signal.SIGCONT)
    told = in_bucket.end(frozen)

    record_property("unknown", report.unknown)
    assert "another try has taken over" in told["says"]
    assert [at for at in sent_by(1, regal_sandbox) if at > woken] == []
    assert len(sent_by(1, regal_sandbox)) == before
    assert (report.read, report.acknowledged + report.unknown) == (ROWS, ROWS)
    if call == "track":
        assert 0 < report.unknown <= RESERVED, "what it had reserved is unknown"
        assert max(in_bucket.arrivals().values()) == 1
        assert len(in_bucket.read("dead_letters.jsonl").splitlines()) == report.unknown
        assert json.loads(in_bucket.read("report.json"))["unknown"] == report.unknown
    else:
        assert len(in_bucket.arrivals()) == ROWS


def test_the_same_try_once_more_does_not_start(in_bucket):
    first = Running(in_bucket.delivery(people(), rate=RATE, checkpoint_interval=INTERVAL_S))
    in_bucket.wait_for(100)
    with pytest.raises(RetryLaterError, match="another try still sends from s3://bucket@journal/prefix/dag"):
        in_bucket.delivery(people()).run()
    first.join()
    assert first.delivery.report.acknowledged == ROWS
    assert set(in_bucket.arrivals().values()) == {1}


def log_of(in_bucket, number, *, quiet_s=30.0, sleep=None, stopped=lambda: False):
    def never(seconds):
        raise AssertionError("it waits")

    clock = Clock(sleep=sleep or never)
    return SegmentLog(in_bucket.bucket(), rank=Rank(0, number), quiet_s=quiet_s, clock=clock, stopped=stopped)


def test_a_try_that_is_told_to_stop_does_not_wait_for_another(in_bucket):
    log_of(in_bucket, 1).take()
    with pytest.raises(FolderInUseError):
        log_of(in_bucket, 2, stopped=lambda: True).take()


def test_a_try_that_died_long_ago_is_not_waited_for(in_bucket):
    log_of(in_bucket, 1, quiet_s=1.0).take()
    time.sleep(2.0)
    assert len(log_of(in_bucket, 2).take()) == 2


def test_two_that_are_equally_fast_cannot_both_have_it(in_bucket):
    one, other = log_of(in_bucket, 1), log_of(in_bucket, 2, sleep=lambda seconds: None)
    one.take()
    other._read()  # both look at the same moment
    one.append()
    created = other._create(other._blank)
    assert not created
    one.append()


def test_who_was_asked_to_leave_can_say_only_that(in_bucket):
    old = log_of(in_bucket, 1)
    old.take()
    with pytest.raises(FolderInUseError):
        log_of(in_bucket, 2, stopped=lambda: True).take()
    for _ in range(2):
        with pytest.raises(FolderTakenError):
            old.append()
    old.append(kind=Kind.CLOSE)
    assert [segment.kind for segment in log_of(in_bucket, 3).take()][-1] is Kind.CLOSE
    with pytest.raises(FolderTakenError):
        old.append(kind=Kind.CLOSE)


def test_a_storage_that_lets_two_make_one_object_is_refused(in_bucket, monkeypatch):
    log = log_of(in_bucket, 1)
    fs = log._bucket._fs
    pipe_file = fs.pipe_file
    monkeypatch.setattr(fs, "pipe_file", lambda path, data, mode="", **more: pipe_file(path, data, **more))
    with pytest.raises(FixConnectionError, match="If-None-Match"):
        log.take()


def test_an_answer_that_got_lost_does_not_make_us_doubt_our_own_segment(in_bucket, monkeypatch):
    log = log_of(in_bucket, 1)
    log.take()
    fs = log._bucket._fs
    pipe_file, lost = fs.pipe_file, []

    def losing_the_answer(path, data, **options):
        pipe_file(path, data, **options)
        if not lost:
            lost.append(path)
            raise OSError("no answer")

    monkeypatch.setattr(fs, "pipe_file", losing_the_answer)
    log.append()
    assert len(lost) == 1
    log.append()
