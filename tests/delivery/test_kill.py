"""A delivery that is killed, or told to stop, at any moment: the next try loses nothing and doubles nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from airflow_provider_regal.journal.dead_letters import read_dead_letters

DRIVER = Path(__file__).with_name("driver.py")
PROJECT = Path(__file__).parents[2]
ROWS = 2_000
CONNECTIONS = 32
RESERVED_AHEAD = 32


class Killable:
    """Runs tries of one delivery, each in a process of its own."""

    def __init__(self, regal, folder, guarantee, **given):
        self.regal, self.folder, self.number = regal, folder, 0
        self.rows = given.pop("rows", ROWS)
        self.given = {"options": {"guarantee": guarantee}, "connections": CONNECTIONS, **given}

    def begin(self, **more):
        self.number += 1
        given = {
            "url": self.regal.url, "key": self.regal.api_key, "folder": str(self.folder), "rows": self.rows,
            "number": self.number, **self.given, **more,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(given)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self, when, number=signal.SIGKILL, **more):
        """Begin a try and send it a signal once ``when`` is true; gives what it printed, if anything."""
        process = self.begin(**more)
        while process.poll() is None and not when():
            time.sleep(0.001)
        process.send_signal(number)
        return self.end(process)

    def end(self, process=None):
        process = process or self.begin()
        out, complaints = process.communicate(timeout=300)
        assert "never retrieved" not in complaints, complaints
        assert "destroyed" not in complaints, complaints
        assert "Unclosed" not in complaints, complaints
        assert "Traceback" not in complaints, complaints
        return json.loads(out) if out else None

    def requests(self):
        return self.regal._ask(lambda account: account.stats()["requests"])

    def requests_in_the_end(self):
        """Count once what a killed process had handed to its sockets has been read: nothing more comes for a while."""
        before, now = -1, self.requests()
        while before != now:
            time.sleep(0.5)
            before, now = now, self.requests()
        return now

    def after(self, requests):
        return lambda: self.requests() >= requests

    def arrivals(self):
        return Counter(event["body"]["userId"] for event in self.regal.events() if event["stored"])

    def check_nothing_is_lost(self, report):
        assert report["error"] == "NoneType", report
        assert report["status"] == "finished"
        assert report["read"] == self.rows
        assert report["read"] == report["acknowledged"] + report["rejected"] + report["unknown"] + report["skipped"]
        arrived = self.arrivals()
        dead = {letter.position for letter in read_dead_letters(self.folder / "dead_letters.jsonl")}
        assert len(dead) == report["rejected"] + report["unknown"]
        for number in range(self.rows):
            assert f"u{number}" in arrived or number in dead, f"row {number} is lost"
        acknowledged = {number for number in range(self.rows) if number not in dead}
        assert all(arrived[f"u{number}"] for number in acknowledged)
        return sum(times - 1 for times in arrived.values())


@pytest.fixture
def killable(regal_sandbox, tmp_path):
    def make(guarantee="at_most_once", **given):
        return Killable(regal_sandbox, tmp_path / "run", guarantee, **given)

    return make


def kill_at(killable, record_property, guarantee, seed, kills=1):
    delivery = killable(guarantee)
    moments = random.Random(seed)
    for _ in range(kills):
        delivery.interrupt(delivery.after(delivery.requests() + moments.randrange(1, ROWS // (kills + 1))))
    report = delivery.end()
    repeats = delivery.check_nothing_is_lost(report)
    record_property("repeats", repeats)
    record_property("unknown", report["unknown"])
    if guarantee == "at_most_once":
        assert repeats == 0
        assert report["unknown"] <= kills * (CONNECTIONS + RESERVED_AHEAD)
    else:
        assert report["unknown"] == 0
        assert repeats <= kills * CONNECTIONS


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_a_kill_loses_nothing(killable, record_property, guarantee):
    kill_at(killable, record_property, guarantee, seed=1)


def test_two_kills_in_a_row_lose_nothing(killable, record_property):
    kill_at(killable, record_property, "at_most_once", seed=2, kills=2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_a_kill_at_any_moment_loses_nothing(killable, record_property, guarantee, seed):
    kill_at(killable, record_property, guarantee, seed=seed, kills=1 + seed % 2)


def test_a_kill_right_after_the_first_reservation_sends_no_row_twice(killable):
    delivery = killable(rows=200)
    log = delivery.folder / "progress.log"
    delivery.interrupt(lambda: log.exists() and log.stat().st_size > 0)
    report = delivery.end()
    assert delivery.check_nothing_is_lost(report) == 0
    assert report["unknown"] <= CONNECTIONS + RESERVED_AHEAD


def test_a_folder_lost_after_a_kill_fails_named_events(killable):
    delivery = killable(rows=300)
    delivery.interrupt(delivery.after(100))
    sent = delivery.requests_in_the_end()
    shutil.rmtree(delivery.folder)

    report = delivery.end(delivery.begin(lost=True))

    assert report["error"] == "DecideRestartError"
    assert "storage_path" in report["says"]
    assert delivery.requests() == sent


def test_a_folder_lost_after_a_kill_sends_contacts_again(killable):
    delivery = killable("at_least_once", rows=300, call="identify")
    delivery.interrupt(delivery.after(100))
    shutil.rmtree(delivery.folder)

    report = delivery.end(delivery.begin(lost=True))

    assert report["acknowledged"] == 300
    delivery.check_nothing_is_lost(report)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGTERM, "RetryLaterError"),  # Airflow's on_kill
        (signal.SIGINT, "KeyboardInterrupt"),
        (signal.SIGALRM, "TaskTimeoutError"),  # Airflow's execution_timeout
    ],
)
def test_a_signal_stops_in_good_order_and_the_next_try_goes_on(killable, regal_sandbox, number, error):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 50}}])
    delivery = killable(rows=600)

    stopped = delivery.interrupt(delivery.after(150), number)

    assert (stopped["error"], stopped["status"]) == (error, "stopped")
    assert 100 < stopped["acknowledged"] < 500
    assert stopped["unknown"] == 0, "what was under way was waited for"
    assert delivery.requests() == stopped["acknowledged"]
    assert json.loads((delivery.folder / "report.json").read_text())["acknowledged"] == stopped["acknowledged"]
    regal_sandbox.set_faults([])
    report = delivery.end()
    assert delivery.check_nothing_is_lost(report) == 0
    assert report["acknowledged"] == 600


def test_a_signal_while_regal_hangs_marks_what_is_under_way_within_seconds(killable, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 100}, "do": {"hang": True}}])
    delivery = killable(rows=300)

    started = time.monotonic()
    stopped = delivery.interrupt(delivery.after(105), signal.SIGTERM)
    assert time.monotonic() - started < 15

    assert stopped["error"] == "RetryLaterError"
    assert 0 < stopped["unknown"] <= CONNECTIONS
    regal_sandbox.stop(), regal_sandbox.set_faults([]), regal_sandbox.start()
    report = delivery.end()
    assert delivery.check_nothing_is_lost(report) == 0
    assert report["unknown"] == stopped["unknown"]


def test_sigterm_while_the_source_is_read_sends_nothing(killable):
    delivery = killable(rows=400_000)
    stopped = delivery.interrupt((delivery.folder / "rows-000000.jsonl").exists, signal.SIGTERM)
    assert (stopped["error"], delivery.requests()) == ("RetryLaterError", 0)
