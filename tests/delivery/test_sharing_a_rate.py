"""Processes that send to one account share its rate.

The ledger records when each request began, by the sender's clock: no second may exceed the limit. The server's view is
benchmarked (``benchmarks/sharing.py``), because a busy server reads separate requests at once.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from airflow_provider_regal.ledger.schema import outcomes, senders
from airflow_provider_regal.ledger.text import from_ledger_time
from tests.databases import PROVED, on
from tests.delivery.test_kill import Killable
from tests.ledger.view import ACCOUNT, LedgerView

pytestmark = [pytest.mark.slow, on(PROVED)]
LIMIT = 60


def sender(regal, database, run, rows, guarantee="at_least_once"):
    return Killable(regal, database, guarantee, run=run, rows=rows, rate=LIMIT)


def worst_second(database):
    """Count the most requests that began within a second, wherever it begins."""
    began = sorted(from_ledger_time(line.first_at) for line in LedgerView(database).query(select(outcomes)))
    worst = first = 0
    for last, at in enumerate(began):
        while at - began[first] >= timedelta(seconds=1):
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def until(when, at_most_s=60):
    ends = time.monotonic() + at_most_s
    while not when():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("guarantee", ["at_least_once", "at_most_once"])
def test_no_second_holds_more_than_the_limit(regal_sandbox, database_url, guarantee):
    senders = [sender(regal_sandbox, database_url, f"{number}-", 120 + 60 * number, guarantee) for number in range(4)]
    processes = []
    for one in senders:  # each joins while the others are sending
        processes.append(one.begin())
        until(lambda one=one: one.requests() >= 20 * len(processes))
    reports = [one.end(process) for one, process in zip(senders, processes, strict=True)]
    assert [report["acknowledged"] for report in reports] == [120, 180, 240, 300]
    assert worst_second(database_url) <= LIMIT


def test_a_killed_sender_gives_its_share_back(regal_sandbox, database_url):
    killed, other = (
        sender(regal_sandbox, database_url, "killed-", 10_000),
        sender(regal_sandbox, database_url, "other-", 600),
    )
    first = killed.begin()
    until(killed.after(60))
    second = other.begin()
    until(killed.after(180))
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: [line.granted for line in LedgerView(database_url).query(select(senders))] == [LIMIT], 20)
    assert other.end(second)["acknowledged"] == 600
    assert worst_second(database_url) <= LIMIT


def test_a_frozen_sender_that_wakes_up_sends_no_more_than_its_new_share(regal_sandbox, database_url):
    frozen, other = (
        sender(regal_sandbox, database_url, "frozen-", 400),
        sender(regal_sandbox, database_url, "other-", 700),
    )
    first = frozen.begin()
    until(frozen.after(60))
    first.send_signal(signal.SIGSTOP)
    second = other.begin()
    began = frozen.requests()
    until(frozen.after(began + 200))
    first.send_signal(signal.SIGCONT)
    assert frozen.end(first)["acknowledged"] == 400
    assert other.end(second)["acknowledged"] == 700
    assert worst_second(database_url) <= LIMIT


# In a process of its own: beside 20 threads, the sandbox would read separate requests at once.
SINGLE_EVENTS = """
from concurrent.futures import ThreadPoolExecutor
from airflow_provider_regal.hooks.regal import RegalHook

def track(number):
    return RegalHook(ledger_conn_id="ledger").track("X", user_id=f"one-{number}")

with ThreadPoolExecutor(20) as threads:
    assert {receipt.http_status for receipt in threads.map(track, range(60))} == {200}
"""


def test_single_events_share_the_rate_with_a_delivery(regal_sandbox, database_url, monkeypatch):
    url = make_url(database_url)
    sqlite = json.dumps({"conn_type": "sqlite", "host": url.database})
    ledger = sqlite if url.drivername == "sqlite" else database_url.replace(url.drivername, "postgresql")
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", ledger)
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection(account=ACCOUNT, rate_limit=LIMIT))
    other = sender(regal_sandbox, database_url, "other-", 300)
    process = other.begin()
    until(other.after(30))
    subprocess.run([sys.executable, "-c", SINGLE_EVENTS], check=True, timeout=60)
    assert other.end(process)["acknowledged"] == 300
    assert worst_second(database_url) <= LIMIT
    assert regal_sandbox.stats()["worst_window_1s_all"] <= LIMIT * 1.1
