"""Processes that send to one account share its rate.

The ledger records when each request began, by the sender's clock: no second may exceed the limit. The server's view is
benchmarked (``benchmarks/sharing.py``), because a busy server reads separate requests at once.
"""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from airflow_provider_regal.hooks.regal import RegalHook
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


def test_single_events_share_the_rate_with_a_delivery(regal_sandbox, database_url, monkeypatch):
    url = make_url(database_url)
    sqlite = json.dumps({"conn_type": "sqlite", "host": url.database})
    ledger = sqlite if url.drivername == "sqlite" else database_url.replace(url.drivername, "postgresql")
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", ledger)
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection(account=ACCOUNT, rate_limit=LIMIT))

    def track_three(hook):
        return [hook.track("X", user_id="one") for _ in range(3)]

    hooks = [RegalHook(ledger_conn_id="ledger") for _ in range(20)]
    for hook in hooks:  # a first event opens the ledger: if 20 threads did that at once, none would be on time
        hook.track("X", user_id="one")
    other = sender(regal_sandbox, database_url, "other-", 300)
    process = other.begin()
    until(other.after(20 + 30))
    with ThreadPoolExecutor(20) as threads:
        receipts = [receipt for three in threads.map(track_three, hooks) for receipt in three]
    assert len(receipts) == 60
    assert {receipt.http_status for receipt in receipts} == {200}
    assert other.end(process)["acknowledged"] == 300
    # By the server's clock: for single events, the ledger has the time at which they began to wait.
    assert regal_sandbox.stats()["worst_window_1s_all"] <= LIMIT * 1.1
