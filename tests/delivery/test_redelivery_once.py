"""A letter is sent once, whichever tasks compete for it, are cleared, or are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.delivery import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import FixConnectionError, FixSourceError, TakenOverError, TooManyFailedRowsError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Try
from tests.delivery.redelivering import opener
from tests.ledger.view import ACCOUNT, DAG, open_database, place_of

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
# After a kill, the next try waits for the request timeout.
TIMEOUT_S = 0.5
HOLD_S = 4


def people(count):
    return [{"user_id": f"u{number}", "amount": number} for number in range(count)]


@pytest.fixture
def refused(deliver, regal_sandbox):
    """Deliver rows that Regal refuses, all of them."""

    def run(count=6, of_run="run", **options):
        regal_sandbox.set_faults([REFUSE])
        with suppress(TooManyFailedRowsError):
            deliver(people(count), of_run=of_run, max_refused=None, **options)
        regal_sandbox.set_faults([])

    return run


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events(stored=True))


def once(count):
    return Counter({f"u{number}": 1 for number in range(count)})


def requests(regal):
    """How many have come, without waiting until they are processed."""
    return regal._ask(lambda account: account.stats()["requests"])


def one_try(url, key, path, of_run, number=1, seen=None):
    """One try of a redelivery of all letters of the DAG, in a process of its own.

    :param seen: a file to touch when the first 500 letters are taken; then the reading takes a long time.
    """

    def fix(row):
        if seen is not None and int(row["userId"].removeprefix("u")) >= 500:
            Path(seen).touch()
            time.sleep(60)
        return row

    with closing(open_database(Path(path))) as database:
        Delivery(
            place=place_of(of_run),
            rows=opener(fix, dag_id=DAG, allow_empty=True),
            fingerprint="letters",
            settings=DeliverySettings.of(call="track", max_unknown=1.0),
            target=Target("regal_test", url, key, rate_limit=100_000, timeout_s=TIMEOUT_S),
            account=Account(database, account=ACCOUNT, source="dag.task"),
            this=Try(0, number),
        ).run()


def begin(regal, path, of_run, number=1, seen=None):
    process = multiprocessing.get_context("spawn").Process(
        target=one_try, args=(regal.url, regal.api_key, str(path), of_run, number, seen and str(seen))
    )
    process.start()
    return process


def kill_when(process, moment):
    deadline = time.monotonic() + 60
    while not moment() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def finish(process):
    process.join(90)
    assert process.exitcode == 0


@pytest.mark.slow
def test_processes_that_want_the_same_letters_send_each_once(refused, regal_sandbox, ledger_path, ledger):
    refused(60)
    processes = [begin(regal_sandbox, ledger_path, f"again{number}") for number in range(3)]
    for process in processes:
        finish(process)
    assert arrivals(regal_sandbox) == once(60)
    assert sum(ledger.delivery(f"again{number}").acknowledged for number in range(3)) == 60
    taken = Counter(letter.taken_by for letter in ledger.dead_letters())
    for number in range(3):
        delivery = ledger.delivery(f"again{number}")
        assert taken[delivery.id] == delivery.read_rows == delivery.acknowledged


def test_threads_that_want_the_same_letters_send_each_once(refused, regal_sandbox, ledger_path):
    for number in range(3):
        refused(20, of_run=f"run{number}")
    threads = [
        threading.Thread(target=one_try, args=(regal_sandbox.url, regal_sandbox.api_key, ledger_path, f"again{n}"))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrivals(regal_sandbox) == Counter({f"u{number}": 3 for number in range(20)})


@pytest.mark.slow
def test_two_tries_of_one_redelivery_at_once_send_each_letter_once(refused, regal_sandbox, ledger_path):
    refused(60)
    processes = [begin(regal_sandbox, ledger_path, "again", number) for number in (1, 2)]
    for process in processes:
        process.join(90)
    assert 0 in [process.exitcode for process in processes]
    assert arrivals(regal_sandbox) == once(60)


@pytest.mark.slow
def test_killed_while_taking_letters_it_takes_them_again_and_sends_each_once(
    refused, regal_sandbox, ledger_path, ledger, tmp_path
):
    refused(800, max_connections=64)
    seen = tmp_path / "seen"
    kill_when(begin(regal_sandbox, ledger_path, "again", seen=seen), seen.exists)
    assert sum(letter.taken_by is not None for letter in ledger.dead_letters()) == 500
    assert arrivals(regal_sandbox) == Counter()

    finish(begin(regal_sandbox, ledger_path, "again", number=2))

    assert arrivals(regal_sandbox) == once(800)


@pytest.mark.slow
def test_letters_of_a_redelivery_that_died_while_taking_them_are_free_once_it_is_surely_dead(
    refused, redeliver, regal_sandbox, ledger_path, ledger, tmp_path
):
    refused(800, max_connections=64)
    seen = tmp_path / "seen"
    kill_when(begin(regal_sandbox, ledger_path, "again", seen=seen), seen.exists)
    dead = ledger.delivery("again")

    assert redeliver(of_run="at once", timeout_s=TIMEOUT_S).read == 300, "it may be alive yet"
    with pytest.raises(FixSourceError):
        redeliver(of_run="still at once", timeout_s=TIMEOUT_S)
    time.sleep(HOLD_S + 0.5)
    assert redeliver(of_run="later", timeout_s=TIMEOUT_S).acknowledged == 500
    assert arrivals(regal_sandbox) == once(800)
    assert ledger.deliveries("again") == [dead._replace(holder=None)]


def test_a_redelivery_that_is_only_slow_sends_nothing_once_its_letters_were_taken_from_it(
    refused, deliver, redeliver, regal_sandbox, ledger
):
    """It seemed dead while ``fix`` took long; both must not send them."""
    refused(3)
    now = datetime.now(UTC)

    def slow(held):
        letters = opener(dag_id=DAG)(held)
        yield next(letters)
        assert redeliver(of_run="quick", now=now + timedelta(minutes=5)).acknowledged == 3
        yield from letters

    with pytest.raises(TakenOverError):
        deliver(slow, of_run="slow", event=None, now=now)

    assert arrivals(regal_sandbox) == once(3)
    assert {letter.taken_by for letter in ledger.dead_letters()} == {ledger.delivery("quick").id}


@pytest.mark.slow
def test_killed_between_sending_and_recording_it_does_not_send_again(refused, regal_sandbox, ledger_path, ledger):
    refused(100)
    before = requests(regal_sandbox)
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 30}}])
    kill_when(begin(regal_sandbox, ledger_path, "again"), lambda: requests(regal_sandbox) - before > 40)

    finish(begin(regal_sandbox, ledger_path, "again", number=2))

    arrived = arrivals(regal_sandbox)
    assert set(arrived.values()) == {1}
    outcomes = Counter(line.status for line in ledger.outcomes("again"))
    assert outcomes["acknowledged"] + outcomes["unknown"] == 100
    assert len(arrived) >= outcomes["acknowledged"]
    assert {letter.taken_by for letter in ledger.dead_letters()} == {ledger.delivery("again").id}


def test_the_same_redelivery_run_anew_does_not_take_its_letters_again_unless_told_to_restart(
    refused, redeliver, regal_sandbox
):
    refused(3)
    redeliver()
    assert redeliver(number=2).status == "nothing_to_do"
    assert redeliver(restart=True, number=2, epoch=1).acknowledged == 3  # the task that it names
    assert arrivals(regal_sandbox) == Counter({f"u{number}": 2 for number in range(3)})


def test_restart_does_not_take_what_another_task_has_taken(refused, redeliver, regal_sandbox):
    refused(3)
    redeliver(of_run="another")
    with pytest.raises(FixSourceError):
        redeliver(restart=True)
    assert arrivals(regal_sandbox) == once(3)


def test_clearing_a_delivery_leaves_out_what_a_redelivery_has_taken(refused, deliver, redeliver, regal_sandbox, caplog):
    refused(6)
    redeliver(limit=4)

    with caplog.at_level("INFO"):
        report = deliver(people(6), epoch=1, number=2)

    assert (report.acknowledged, report.skips) == (2, {"redelivered": 4})
    assert report.read == report.acknowledged + report.skipped
    assert arrivals(regal_sandbox) == once(6)
    assert "4 rejected rows are left out: redeliveries have taken them" in caplog.text
    with pytest.raises(FixSourceError):
        redeliver(of_run="third")


def test_clearing_a_delivery_leaves_alone_what_a_redelivery_is_about_to_send(
    refused, deliver, redeliver, regal_sandbox
):
    refused(3)
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError):
        redeliver(limit=1)  # it is stopped with SIGSTOP, and continues later
    regal_sandbox.set_faults([])

    report = deliver(people(3), epoch=1, number=2)

    assert (report.acknowledged, report.skips) == (2, {"redelivered": 1})
    assert redeliver(limit=1, number=2).acknowledged == 1
    assert arrivals(regal_sandbox) == once(3)


def test_a_redelivery_leaves_alone_what_a_cleared_delivery_is_about_to_send(refused, deliver, redeliver, regal_sandbox):
    refused(3)
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError):
        deliver(people(3), epoch=1, number=2)
    regal_sandbox.set_faults([])

    with pytest.raises(FixSourceError):
        redeliver()

    assert deliver(people(3), epoch=1, number=3).acknowledged == 3
    assert arrivals(regal_sandbox) == once(3)


def test_clearing_a_redelivery_leaves_out_what_a_further_one_has_taken(refused, redeliver, regal_sandbox):
    refused(3)
    regal_sandbox.set_faults([REFUSE])
    with pytest.raises(TooManyFailedRowsError):
        redeliver()
    regal_sandbox.set_faults([])
    redeliver("again", of_run="third", limit=2)

    assert redeliver(epoch=1, number=2).acknowledged == 1
    assert arrivals(regal_sandbox) == once(3)


def test_a_delivery_that_starts_over_has_letters_of_its_own(refused, redeliver, ledger, regal_sandbox):
    refused(3)
    redeliver()
    refused(3, restart=True, number=2)
    assert [letter.taken_by for letter in ledger.dead_letters()] == [None] * 3
    assert redeliver(of_run="third").acknowledged == 3
    assert arrivals(regal_sandbox) == Counter({f"u{number}": 2 for number in range(3)})


def test_a_cleared_redelivery_that_was_done_sends_nothing(refused, redeliver, regal_sandbox):
    refused(3)
    redeliver()
    assert redeliver(epoch=1, number=2).status == "nothing_to_do"
    assert arrivals(regal_sandbox) == once(3)


def test_letters_beyond_the_limit_are_left_to_others(refused, redeliver, regal_sandbox):
    refused(1)
    refused(1, of_run="later")
    assert redeliver("run", "later", limit=1).acknowledged == 1
    assert redeliver("later", of_run="third").acknowledged == 1
