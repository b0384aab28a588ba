"""A delivery that is killed while it sends: the next try is on a machine that shares nothing but the bucket."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from airflow_provider_regal.journal.segment import Kind, decode

pytestmark = pytest.mark.services
ROWS = 900
RATE = 300
INTERVAL_S = 0.5
# Two intervals ahead, and what is under way.
RESERVED = int(RATE * 2 * INTERVAL_S) + 64


def kill_and_resume(in_bucket, call, moment):
    killed = in_bucket.begin(ROWS, call=call, rate=RATE, checkpoint_interval=INTERVAL_S, timeout_s=1.0)
    in_bucket.wait_for(moment)
    killed.send_signal(signal.SIGKILL)
    assert in_bucket.end(killed) is None
    report = in_bucket.delivery([], call=call, number=2, max_unknown=1.0).run()
    assert (report.status, report.read, report.acknowledged + report.unknown) == ("finished", ROWS, ROWS)
    return report


def test_at_most_once_loses_nothing_and_sends_nothing_twice(in_bucket, record_property):
    moment = random.randrange(50, ROWS - 300)
    record_property("killed after", moment)
    report = kill_and_resume(in_bucket, "track", moment)

    arrived = in_bucket.arrivals()
    dead = {letter["position"] for letter in map(json.loads, in_bucket.read("dead_letters.jsonl").splitlines())}
    record_property("unknown", report.unknown)
    assert max(arrived.values()) == 1
    assert [number for number in range(ROWS) if f"u{number}" not in arrived and number not in dead] == []
    assert len(dead) == report.unknown <= RESERVED
    assert {f"u{number}" for number in range(ROWS) if number not in dead} <= arrived.keys()


def test_at_least_once_loses_nothing(in_bucket, record_property):
    report = kill_and_resume(in_bucket, "identify", 400)

    arrived = in_bucket.arrivals()
    repeats = sum(arrived.values()) - ROWS
    record_property("repeats", repeats)
    assert len(arrived) == ROWS
    assert report.unknown == 0
    assert repeats <= RESERVED


def test_a_kill_before_anything_was_sent_starts_anew(in_bucket):
    killed = in_bucket.begin(100_000, timeout_s=0.5)
    while not any(key.startswith("files/") for key in in_bucket.objects()):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    in_bucket.end(killed)
    assert in_bucket.requests() == 0
    report = in_bucket.delivery([{"user_id": "u1"}], number=2).run()
    assert (report.acknowledged, report.read) == (1, 1)
    assert [key for key in in_bucket.objects() if key.startswith("files/")] == []


def test_what_a_killed_try_left_on_its_machine_is_removed_by_the_next_there(in_bucket, tmp_path):
    left = tmp_path / "regal-run-of-a-killed-one"
    left.mkdir(mode=0o700)
    (left / "rows-000000.jsonl").write_text("personal\n")
    os.utime(left, (time.time() - 3_600,) * 2)
    in_bucket.delivery([{"user_id": "u1"}]).run()
    assert not left.exists()


def test_the_working_folder_is_private_while_it_is_there(in_bucket, tmp_path):
    seen = []

    def look():
        (folder,) = tmp_path.glob("regal-run-*")
        seen.append(oct(folder.stat().st_mode & 0o777))
        seen.extend({oct(file.stat().st_mode & 0o777) for file in folder.iterdir()})

    thread = in_bucket.then(look, 20)
    in_bucket.delivery([{"user_id": f"u{number}"} for number in range(400)], rate=200).run()
    thread.join()
    assert seen == ["0o700", "0o600"]


def test_little_is_kept_of_a_finished_delivery(in_bucket):
    in_bucket.delivery([{"user_id": f"u{number}"} for number in range(300)], rate=200, checkpoint_interval=0.1).run()
    first, last = (key for key in in_bucket.objects() if key.startswith("log/"))
    assert decode(in_bucket.read(first)).kind is Kind.TAKE
    ending = decode(in_bucket.read(last))
    assert (ending.kind, ending.whole) == (Kind.CLOSE, True)
    assert int(last[4:]) > 8
