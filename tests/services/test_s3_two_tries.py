"""Two tries of one task instance at once: the later one asks, the earlier one leaves; a dead one is waited out."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import datetime

import pytest

from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.journal.run_folder import FolderReplacedError
from airflow_provider_regal.journal.segment import Kind, decode

pytestmark = pytest.mark.services
ROWS = 3_000
RATE = 300
INTERVAL_S = 0.5


def people(start=0):
    return [{"user_id": f"u{number}"} for number in range(start, ROWS)]


class Running:
    """A try that runs in a thread."""

    def __init__(self, delivery):
        self.delivery, self.error, self.ended = delivery, None, None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.delivery.run()
        except RetryLaterError as error:
            self.error = error
        self.ended = time.time()

    def join(self):
        self._thread.join(60)
        return self


def times_of(regal):
    return [datetime.fromisoformat(event["received"]).timestamp() for event in regal.events()]


def claimed_at(in_bucket):
    """Find when the claim was made: the third segment from the end of what the old sender saw."""
    return next(
        at
        for at, method, target in in_bucket.door.requests
        if method == "PUT" and "/log/" in target and _is_claim(in_bucket, target)
    )


def _is_claim(in_bucket, target):
    try:
        return decode(in_bucket.read("log/" + target.rpartition("/")[2].partition("?")[0])).kind is Kind.CLAIM
    except in_bucket.door.direct.exceptions.NoSuchKey:
        return False


@pytest.mark.parametrize("call", ["track", "identify"])
def test_the_old_sender_stops_within_a_checkpoint_interval(in_bucket, regal_sandbox, record_property, call):
    old = Running(in_bucket.delivery(people(), call=call, rate=RATE, checkpoint_interval=INTERVAL_S))
    in_bucket.wait_for(300)
    new = in_bucket.delivery([], call=call, number=2, rate=RATE, checkpoint_interval=INTERVAL_S)
    taking = threading.Event()
    stopped_at = []

    def look():
        old.join()
        stopped_at.append((claimed_at(in_bucket), max(times_of(regal_sandbox))))
        taking.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    report = new.run()
    watcher.join()
    claimed, last_of_old = stopped_at[0]
    record_property("sent on for", f"{last_of_old - claimed:.2f} s")
    assert "Another try" in str(old.error) or "another try" in str(old.error)
    assert (report.read, report.acknowledged, report.unknown) == (ROWS, ROWS, 0), "it had time for a last word"
    assert set(in_bucket.arrivals().values()) == {1}
    times = sorted(at for at in times_of(regal_sandbox) if at > claimed)
    handed_over = max(zip(times, times[1:], strict=False), key=lambda pair: pair[1] - pair[0])
    assert handed_over[0] - claimed <= INTERVAL_S + 0.3, "within one interval, and what a request takes"
