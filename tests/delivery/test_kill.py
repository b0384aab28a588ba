"""A delivery that is killed, or told to stop, at any moment: the next try loses nothing and sends nothing twice.

Tries run in processes of their own, which share nothing but the ledger.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from airflow_provider_regal.ledger.text import from_ledger_time
from tests.databases import PROVED, on
from tests.ledger.view import LedgerView

DRIVER = Path(__file__).with_name("driver.py")
PROJECT = Path(__file__).parents[2]
ROWS = 2_000
CONNECTIONS = 32
LEAST_AHEAD = 32
AHEAD_S = 0.25
COMMIT_S = 1.0


class Killable:
    """Runs tries of one delivery, each in a process of its own."""

    def __init__(self, regal, database, guarantee, **given):
        self.regal, self.database, self.number = regal, database, 0
        self.ledger = LedgerView(database)
        self.rows = given.pop("rows", ROWS)
        self.given = {"options": {"guarantee": guarantee}, "connections": CONNECTIONS, **given}

    def begin(self, **more):
        """Begin the next try."""
        self.number += 1
        given = {
            "url": self.regal.url, "key": self.regal.api_key, "database": self.database, "rows": self.rows,
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
        self.wait(when, process)
        process.send_signal(number)
        return self.end(process)

    def wait(self, when, process):
        while process.poll() is None and not when():
            time.sleep(0.001)

    def end(self, process=None):
        """Let a try run to its end; gives what it printed."""
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

    def acknowledged(self):
        """Who is acknowledged in the ledger, by what was committed."""
        return {line.user_id for line in self.ledger.outcomes(status="acknowledged")}

    def check_nothing_is_lost(self, report):
        """Compare the report, the ledger and Regal; gives how many events arrived again."""
        assert report["error"] == "NoneType", report
        assert report["status"] == "finished"
        assert report["read"] == self.rows
        assert report["read"] == report["acknowledged"] + report["rejected"] + report["unknown"] + report["skipped"]
        arrived = self.arrivals()
        lines = {line.user_id: line.status for line in self.ledger.outcomes()}
        assert Counter(lines.values())["unknown"] == report["unknown"] == len(self.ledger.dead_letters())
        assert {f"u{number}" for number in range(self.rows)} == set(lines)
        lost = [who for who, status in lines.items() if status == "acknowledged" and not arrived[who]]
        assert not lost
        return sum(times - 1 for times in arrived.values())


@pytest.fixture
def killable(regal_sandbox, database_url):
    def make(guarantee="at_most_once", **given):
        return Killable(regal_sandbox, database_url, guarantee, **given)

    return make


def reserved_ahead(requests, seconds):
    """The most rows that may be reserved and not in flight, at a rate that was measured from outside, generously."""
    return max(LEAST_AHEAD, int(AHEAD_S * 2 * requests / max(seconds, 0.2)))


def kill_at(killable, record_property, guarantee, seed, kills=1):
    delivery = killable(guarantee)
    moments = random.Random(seed)
    doubtful = 0
    for _ in range(kills):
        before = delivery.requests()
        process = delivery.begin()
        delivery.wait(delivery.after(before + 1), process)
        began = time.monotonic()
        delivery.wait(delivery.after(before + moments.randrange(1, ROWS // (kills + 1))), process)
        process.kill()
        seconds = time.monotonic() - began
        delivery.end(process)
        sent = delivery.requests_in_the_end() - before
        doubtful += CONNECTIONS + reserved_ahead(sent, seconds)
    kept, times_before = delivery.acknowledged(), delivery.arrivals()
    not_committed = sum(times_before.values()) - len(kept)
    report = delivery.end()
    repeats = delivery.check_nothing_is_lost(report)
    record_property("repeats", repeats)
    record_property("unknown", report["unknown"])
    times = delivery.arrivals()
    assert all(times[who] == times_before[who] for who in kept), "what a commit acknowledged is never sent again"
    if guarantee == "at_most_once":
        assert repeats == 0
        assert report["unknown"] <= doubtful
    else:
        assert report["unknown"] == 0
        assert repeats <= not_committed, "no more than what was sent since the last commit"


@on(PROVED)
@pytest.mark.parametrize("guarantee", ["at_most_once", pytest.param("at_least_once", marks=pytest.mark.slow)])
def test_a_kill_loses_nothing(killable, record_property, guarantee):
    kill_at(killable, record_property, guarantee, seed=1)


@on(PROVED)
@pytest.mark.slow
def test_two_kills_in_a_row_lose_nothing(killable, record_property):
    kill_at(killable, record_property, "at_most_once", seed=2, kills=2)


@pytest.mark.long
@on(PROVED)
@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_a_kill_at_any_moment_loses_nothing(killable, record_property, guarantee, seed):
    kill_at(killable, record_property, guarantee, seed=seed, kills=1 + seed % 2)


@on(PROVED)
@pytest.mark.slow
def test_under_at_least_once_a_kill_repeats_at_most_what_was_sent_in_the_last_second_and_a_half(killable):
    delivery = killable("at_least_once", rows=1_500, rate=400)
    delivery.interrupt(delivery.after(1_000))
    assert len(delivery.acknowledged()) >= 1_000 - 1.5 * COMMIT_S * 400 - CONNECTIONS
    report = delivery.end(delivery.begin(rate=100_000))
    assert delivery.check_nothing_is_lost(report) <= 1.5 * COMMIT_S * 400 + CONNECTIONS
    assert report["unknown"] == 0


@pytest.mark.slow
def test_a_kill_right_after_the_first_reservation_sends_no_row_twice(killable):
    delivery = killable(rows=200)
    delivery.interrupt(delivery.after(1))
    report = delivery.end()
    assert delivery.check_nothing_is_lost(report) == 0
    assert report["unknown"] <= CONNECTIONS + LEAST_AHEAD


@pytest.mark.slow
def test_the_next_try_waits_until_requests_of_the_killed_one_are_over(killable, regal_sandbox):
    """A killed process's requests may still be read by Regal: order per person must hold."""
    delivery = killable(rows=300, timeout_s=1)
    delivery.interrupt(delivery.after(100))
    sent = delivery.requests_in_the_end()
    held_at = delivery.ledger.delivery().held_at

    report = delivery.end()

    assert delivery.check_nothing_is_lost(report) == 0
    later = [event for event in regal_sandbox.events() if event["number"] > sent]
    assert later, "rows were left"
    first = min(datetime.strptime(event["received_at"], "%Y-%m-%d %H:%M:%S.%f %z") for event in later)
    assert (first - from_ledger_time(held_at)).total_seconds() > 1


@on(PROVED)
@pytest.mark.slow
def test_a_kill_while_the_source_is_read_sends_nothing_and_the_next_try_reads_again(killable, tmp_path):
    delivery = killable(rows=3_500)
    begun = tmp_path / "reading"
    process = delivery.begin(reading=str(begun), pause_s=0.002)
    delivery.wait(begun.exists, process)
    time.sleep(1.0)
    process.kill()
    delivery.end(process)
    assert delivery.requests() == 0

    report = delivery.end()

    assert delivery.check_nothing_is_lost(report) == 0
    assert report["acknowledged"] == 3_500


class TestOverlappingTries:
    """Airflow may begin the next try while the last one still runs: its worker was only thought to be dead."""

    @on(PROVED)
    @pytest.mark.slow
    def test_the_first_sends_nothing_more_once_the_second_has_taken_over(self, killable, regal_sandbox):
        delivery = killable(rows=1_500, rate=300)
        first = delivery.begin()
        delivery.wait(delivery.after(200), first)

        second = delivery.begin()
        left = delivery.end(first)
        taken_over_at = delivery.requests()
        report = delivery.end(second)

        assert (left["error"], left["status"]) == ("TakenOverError", "stopped")
        assert taken_over_at < 1_400, "the first did not simply finish"
        assert delivery.check_nothing_is_lost(report) == 0
        assert report["unknown"] <= CONNECTIONS + reserved_ahead(300, 1)

    @on(PROVED)
    @pytest.mark.slow
    def test_a_try_that_was_frozen_sends_and_commits_nothing_when_it_wakes(self, killable, regal_sandbox):
        delivery = killable(rows=1_500, rate=300)
        first = delivery.begin()
        delivery.wait(delivery.after(200), first)
        first.send_signal(signal.SIGSTOP)
        delivery.requests_in_the_end()

        report = delivery.end()

        sent = delivery.requests()
        before = delivery.ledger.delivery(), delivery.ledger.outcomes()
        first.send_signal(signal.SIGCONT)
        left = delivery.end(first)
        assert left["error"] == "TakenOverError"
        assert delivery.requests_in_the_end() == sent
        assert (delivery.ledger.delivery(), delivery.ledger.outcomes()) == before
        assert delivery.check_nothing_is_lost(report) == 0

    @pytest.mark.slow
    def test_a_try_that_was_frozen_for_a_moment_goes_on(self, killable):
        delivery = killable(rows=600, rate=300)
        first = delivery.begin()
        delivery.wait(delivery.after(200), first)
        first.send_signal(signal.SIGSTOP)
        time.sleep(4)
        first.send_signal(signal.SIGCONT)
        report = delivery.end(first)
        assert delivery.check_nothing_is_lost(report) == 0


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGTERM, "RetryLaterError"),  # Airflow's on_kill
        pytest.param(signal.SIGINT, "KeyboardInterrupt", marks=pytest.mark.slow),
        pytest.param(signal.SIGALRM, "TaskTimeoutError", marks=pytest.mark.slow),  # Airflow's execution_timeout
    ],
)
def test_a_signal_stops_in_good_order_and_the_next_try_resumes_at_once(killable, regal_sandbox, number, error):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 50}}])
    delivery = killable(rows=600, timeout_s=30)

    stopped = delivery.interrupt(delivery.after(150), number)

    assert (stopped["error"], stopped["status"]) == (error, "stopped")
    assert 100 < stopped["acknowledged"] < 500
    assert stopped["unknown"] == 0, "what was under way was waited for"
    assert delivery.requests() == stopped["acknowledged"]
    record = delivery.ledger.delivery()
    assert (record.state, record.acknowledged, record.holder) == ("stopped", stopped["acknowledged"], None)
    regal_sandbox.set_faults([])
    began = time.monotonic()
    report = delivery.end()
    assert time.monotonic() - began < 20, "it was let go of: nobody waits for its requests"
    assert delivery.check_nothing_is_lost(report) == 0
    assert report["acknowledged"] == 600


@pytest.mark.slow
def test_a_signal_while_regal_hangs_settles_what_is_under_way_within_seconds(killable, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 100}, "do": {"hang": True}}])
    delivery = killable(rows=300, timeout_s=30)

    started = time.monotonic()
    stopped = delivery.interrupt(delivery.after(105), signal.SIGTERM)
    assert time.monotonic() - started < 15

    assert stopped["error"] == "RetryLaterError"
    assert 0 < stopped["unknown"] <= CONNECTIONS
    regal_sandbox.stop(), regal_sandbox.set_faults([]), regal_sandbox.start()
    report = delivery.end()
    assert delivery.check_nothing_is_lost(report) == 0
    assert report["unknown"] == stopped["unknown"]


@pytest.mark.slow
def test_sigterm_while_the_source_is_read_sends_nothing(killable, tmp_path):
    delivery, begun = killable(rows=400_000), tmp_path / "reading"
    stopped = delivery.interrupt(begun.exists, signal.SIGTERM, reading=str(begun))
    assert (stopped["error"], delivery.requests()) == ("RetryLaterError", 0)


class TestAPlan:
    """The task that plans and the one that sends are each killed; what was approved is sent, and no row twice."""

    @pytest.mark.slow
    @on(PROVED)
    def test_that_is_killed_while_it_is_sent_is_resumed_by_the_next_try(self, killable):
        delivery = killable()
        delivery.given["options"]["plan"] = True
        planned = delivery.end()
        assert (planned["status"], planned["left"], delivery.requests()) == ("planned", ROWS, 0)
        delivery.given |= {"approved": planned["delivery"]}
        delivery.number = 0

        delivery.interrupt(delivery.after(500))
        report = delivery.end()

        assert delivery.check_nothing_is_lost(report) == 0
        assert report["delivery"] == planned["delivery"]
        assert report["unknown"] <= 2 * CONNECTIONS + reserved_ahead(ROWS, 1)

    @pytest.mark.slow
    @on(PROVED)
    def test_that_is_killed_while_it_is_made_is_made_by_the_next_try(self, killable, tmp_path):
        delivery, begun = killable(), tmp_path / "reading"
        delivery.given["options"]["plan"] = True
        delivery.interrupt(begun.exists, reading=str(begun), pause_s=0.001)
        planned = delivery.end()
        assert (planned["status"], planned["left"], delivery.requests()) == ("planned", ROWS, 0)
        delivery.given |= {"approved": planned["delivery"]}
        assert delivery.check_nothing_is_lost(delivery.end()) == 0
