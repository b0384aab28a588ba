"""A letter is sent once: whoever else wants it, whatever is cleared, and whenever the redelivery is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from contextlib import closing, suppress

import pytest

from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.errors import DecideRestartError, ReadDeadLettersError
from airflow_provider_regal.journal.folder_letters import FolderLetters, claims_in_folder
from airflow_provider_regal.journal.run_folder import RunFolder
from tests.delivery.redelivering import Redeliver

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}


def people(count):
    return [{"user_id": f"u{number}", "amount": number} for number in range(count)]


@pytest.fixture
def redeliver(deliver, folder):
    return Redeliver(deliver, folder.parent)


@pytest.fixture
def refused(deliver, regal_sandbox):
    """Deliver rows that Regal refuses, all of them."""

    def run(count=6, of_run="run", **options):
        regal_sandbox.set_faults([REFUSE])
        with suppress(ReadDeadLettersError):
            deliver(people(count), of_run=of_run, **options)
        regal_sandbox.set_faults([])

    return run


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events(stored=True))


def once(count):
    return Counter({f"u{number}": 1 for number in range(count)})


def one_try(url, key, root, of_run, number=1):
    """One try of a redelivery in a process of its own."""

    def deliver(rows, *, of_run, ledger, restart, event, around, **options):
        delivery = Delivery(
            folder=root / of_run, rows=rows, fingerprint="letters",
            settings=DeliverySettings.of(call="track", event=event, max_unknown=1.0, **options),
            target=Target("regal_test", url, key), pacer=Pacer(100_000), this=Try(0, number), around=around,
        )  # fmt: skip
        deliver.last = delivery
        return delivery.run()

    Redeliver(deliver, root)("run", "ru*", of_run=of_run, patience_s=20.0)


def begin(regal, root, of_run, number=1):
    process = multiprocessing.get_context("spawn").Process(
        target=one_try, args=(regal.url, regal.api_key, root, of_run, number)
    )
    process.start()
    return process


def kill_when(process, moment):
    deadline = time.monotonic() + 60
    while not moment() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_processes_with_overlapping_globs_send_each_letter_once(refused, regal_sandbox, folder):
    refused(60)
    processes = [begin(regal_sandbox, folder.parent, f"again{number}") for number in range(3)]
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert arrivals(regal_sandbox) == once(60)


def test_threads_with_overlapping_globs_send_each_letter_once(refused, regal_sandbox, folder):
    for number in range(3):
        refused(20, of_run=f"run{number}")

    threads = [
        threading.Thread(target=one_try, args=(regal_sandbox.url, regal_sandbox.api_key, folder.parent, f"again{n}"))
        for n in range(3)
    ]
    (folder / "x").mkdir(parents=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrivals(regal_sandbox) == Counter({f"u{number}": 3 for number in range(20)})


def test_killed_after_claiming_and_before_sending_it_sends_once_on_the_retry(refused, regal_sandbox, folder):
    refused(300)
    claims = folder / "redelivered"
    kill_when(begin(regal_sandbox, folder.parent, "again"), lambda: claims.exists() and len(list(claims.iterdir())) > 5)
    assert arrivals(regal_sandbox) == Counter()
    assert len(claims_in_folder(folder)) > 0

    begin(regal_sandbox, folder.parent, "again", number=2).join(90)

    assert arrivals(regal_sandbox) == once(300)


def test_killed_between_sending_and_recording_it_does_not_send_again(refused, regal_sandbox, folder):
    refused(100)
    before = regal_sandbox.stats()["requests"]
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 30}}])
    stats = lambda: regal_sandbox._ask(lambda account: account.stats()["requests"])  # noqa: E731
    kill_when(begin(regal_sandbox, folder.parent, "again"), lambda: stats() - before > 40)

    begin(regal_sandbox, folder.parent, "again", number=2).join(90)

    arrived = arrivals(regal_sandbox)
    assert set(arrived.values()) == {1}
    outcomes = Counter(claim.outcome for claim in claims_in_folder(folder).values())
    assert outcomes["acknowledged"] + outcomes["unknown"] == 100
    assert len(arrived) >= outcomes["acknowledged"]


def test_a_redelivery_of_the_same_name_that_lost_its_folder_does_not_take_its_letters_again(
    refused, redeliver, regal_sandbox, folder
):
    refused(3)
    redeliver()
    (folder.parent / "again").rename(folder.parent / "lost")
    assert redeliver().read == 0
    assert redeliver(restart=True, number=2).acknowledged == 3  # it is what that says


def test_clearing_a_delivery_leaves_out_what_a_redelivery_has_sent(
    refused, deliver, redeliver, regal_sandbox, folder, caplog
):
    refused(6)
    redeliver(limit=4)

    with caplog.at_level("INFO"):
        report = deliver(people(6), epoch=1, number=2)

    assert (report.acknowledged, report.skips) == (2, {"redelivered": 4})
    assert report.read == report.acknowledged + report.skipped
    assert arrivals(regal_sandbox) == once(6)
    assert "4 rejected rows are left out: redeliveries have dealt with them" in caplog.text
    assert redeliver(of_run="third").read == 0


def test_clearing_a_delivery_leaves_alone_what_a_redelivery_is_about_to_send(
    refused, deliver, regal_sandbox, folder, caplog
):
    refused(3)
    with closing(FolderLetters(folder)) as letters:
        letters.take([0], "a redelivery under way", lambda claim: False)

    with pytest.raises(ReadDeadLettersError):
        deliver(people(3), epoch=1, number=2)

    assert arrivals(regal_sandbox) == Counter({"u1": 1, "u2": 1})
    assert "1 rows stay rejected: redeliveries have taken them, and are not done" in caplog.text


def test_clearing_a_redelivery_leaves_out_what_a_further_one_has_sent(refused, redeliver, regal_sandbox):
    refused(3)
    regal_sandbox.set_faults([REFUSE])
    with pytest.raises(ReadDeadLettersError):
        redeliver()
    regal_sandbox.set_faults([])
    redeliver("again", of_run="third", limit=2)

    assert redeliver(epoch=1, number=2).acknowledged == 1
    assert arrivals(regal_sandbox) == once(3)


def test_a_delivery_that_starts_over_forgets_who_took_its_letters(refused, redeliver, regal_sandbox, folder):
    refused(3)
    redeliver()
    refused(3, restart=True, number=2)
    assert claims_in_folder(folder) == {}
    assert redeliver(of_run="third").acknowledged == 3
    assert arrivals(regal_sandbox) == Counter({f"u{number}": 2 for number in range(3)})


def test_a_folder_somebody_works_in_is_left_alone(refused, redeliver, regal_sandbox, folder, caplog):
    refused(2)
    with closing(RunFolder(folder)):
        assert redeliver().read == 0
    assert "A task works in" in caplog.text
    assert arrivals(regal_sandbox) == Counter()


def test_a_folder_whose_progress_is_damaged_is_left_alone(refused, redeliver, folder, caplog):
    refused(2)
    (folder / "progress.log").write_text("nonsense\n")
    assert redeliver().read == 0
    assert "is not an entry; its dead letters stay where they are" in caplog.text


def test_a_cleared_redelivery_that_was_done_sends_nothing(refused, redeliver, regal_sandbox):
    refused(3)
    redeliver()
    assert redeliver(epoch=1, number=2).status == "nothing_to_do"
    assert arrivals(regal_sandbox) == once(3)


def test_a_redelivery_whose_letters_are_gone_from_its_folder_asks_what_to_do(refused, redeliver, regal_sandbox, folder):
    refused(3)
    regal_sandbox.set_faults([{"on": {"requests": [5]}, "do": {"status": 401}}, *[]])
    with suppress(Exception):
        redeliver(max_connections=1)
    for chunk in (folder.parent / "again").glob("rows*"):
        chunk.unlink()
    regal_sandbox.set_faults([])
    with pytest.raises(DecideRestartError):
        redeliver(number=2)


def test_folders_beyond_the_limit_are_not_waited_for(refused, redeliver, folder, caplog):
    refused(1)
    refused(1, of_run="later")
    with closing(RunFolder(folder.parent / "later")):
        assert redeliver("run", "later", limit=1).acknowledged == 1
    assert "A task works in" not in caplog.text
