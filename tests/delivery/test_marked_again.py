"""After a crash between Regal's answer and the mark, the ledger says what Regal got, and no more."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from airflow_provider_regal.errors import RegalError, RetryLaterError
from airflow_provider_regal.journal.ledger import Claim, Ledger, sqlite_engine
from airflow_provider_regal.journal.ledger_rules import to_ledger_time
from tests.delivery.consents import IP, NOW, at, known, phone, told
from tests.delivery.syncing import dying, run_sync

UNTIL = 14  # transactions; the whole of such a run takes fewer


@pytest.fixture
def path(ledger_path):
    return ledger_path


@pytest.fixture
def other(path):
    ledger = Ledger(sqlite_engine(path), account="acme", run="another run", now=lambda: NOW)
    yield ledger
    ledger.close()


def ledger_time(minute):
    return to_ledger_time(datetime.fromisoformat(at(minute)))


def wide(number, **channels):
    """A contact that said yes on these channels, each at a minute."""
    told = {"user_id": f"u{number}", "phone": phone(number)}
    for channel, minute in channels.items():
        when = at(minute) if isinstance(minute, int) else minute
        told |= {f"{channel}_opt_in": True, f"{channel}_opt_in_at": when, f"{channel}_opt_in_ip": IP}
    return told


@pytest.mark.parametrize("after", range(4, UNTIL))
@pytest.mark.parametrize("how", ["sync", "identify", "only_changed"])
def test_an_opt_in_the_ledger_denied_when_it_was_claimed_is_not_marked_as_acknowledged(
    regal_sandbox, tmp_path, path, other, how, after
):
    rows = [wide(1, sms=5, voice=5)]
    options = {"initial": "send"} if how == "sync" else {"sync": False, "only_changed": how == "only_changed"}

    def while_another_run_reads_an_opt_out():
        yield from rows
        other.bar([(phone(1), "sms", ledger_time(6))])

    given = while_another_run_reads_an_opt_out if how == "sync" else rows
    if how != "sync":
        other.bar([(phone(1), "sms", ledger_time(6))])
    with suppress(RetryLaterError):
        run_sync(given, regal_sandbox, tmp_path / "run", path, engine=dying(path, after), **options)
    run_sync(given, regal_sandbox, tmp_path / "run", path, number=2, **options)
    assert told(regal_sandbox) == [("u1", "voice", True)]
    assert known(path)[phone(1), "sms"][:4] == [None, None, ledger_time(6), "barrier"]
    assert known(path)[phone(1), "voice"][0] == 1


@pytest.mark.parametrize("after", range(4, UNTIL))
def test_an_opt_in_that_was_withheld_then_and_would_be_sent_now_is_not_marked_and_its_contact_is_looked_at_again(
    regal_sandbox, tmp_path, path, after
):
    rows = [wide(1, sms=(NOW + timedelta(seconds=30)).isoformat())]
    options = {"sync": False, "only_changed": True}
    with suppress(RetryLaterError):
        run_sync(rows, regal_sandbox, tmp_path / "run", path, engine=dying(path, after), **options)
    later = NOW + timedelta(minutes=5)
    run_sync(rows, regal_sandbox, tmp_path / "run", path, number=2, now=later, **options)
    got = told(regal_sandbox)
    marked = known(path).get((phone(1), "sms"), [None])[0]
    assert bool(marked) == bool(got)
    run_sync(rows, regal_sandbox, tmp_path / "next", path, now=later, **options)
    assert told(regal_sandbox) == [("u1", "sms", True)], "sent by now, and once"


@pytest.mark.parametrize("after", range(4, UNTIL))
def test_a_contact_sent_under_other_options_than_those_of_the_retry_is_sent_again(regal_sandbox, tmp_path, path, after):
    rows = [{"user_id": "u1", "phone": phone(1), "plan": "a"}]
    options = {"sync": False, "only_changed": True}
    with suppress(RetryLaterError):
        run_sync(
            rows, regal_sandbox, tmp_path / "run", path, engine=dying(path, after), mapping={"plan": None}, **options
        )
    run_sync(rows, regal_sandbox, tmp_path / "run", path, number=2, **options)
    run_sync(rows, regal_sandbox, tmp_path / "next", path, **options)
    assert regal_sandbox.contact(phone=phone(1))["traits"]["plan"] == "a"


def test_what_another_run_made_of_a_claim_since_is_left_to_it(regal_sandbox, tmp_path, path, other):
    """Ours was acknowledged, our mark was lost, and another run has taken the contact over meanwhile."""
    rows = [wide(1, sms=5)]
    for after in range(4, UNTIL):
        folder = tmp_path / f"run-{after}"
        with suppress(RetryLaterError):
            run_sync(rows, regal_sandbox, folder, path, engine=dying(path, after), initial="send", lease_s=0)
        other.claim([newer := Claim("opt_in", phone(1), "sms", False, ledger_time(6 + after))])
        other.settle(acknowledged=[newer])
        run_sync(rows, regal_sandbox, folder, path, number=2, initial="send", lease_s=0)
        assert known(path)[phone(1), "sms"][:4] == [0, newer.at, newer.at, "acknowledged"]


def run_in_a_process(*given, **options):
    """As a process of its own would, to be killed."""
    with suppress(RegalError):
        run_sync(*given, **options)


def test_of_a_row_that_died_only_what_was_claimed_is_unknown(regal_sandbox, tmp_path, path, other):
    other.bar([(phone(1), "sms", ledger_time(6))])
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"hang": True}}])
    rows, options = [wide(1, sms=5, voice=5)], {"sync": False, "guarantee": "at_most_once", "max_unknown": 5}
    given = (rows, (regal_sandbox.url, regal_sandbox.api_key), tmp_path / "run", path)
    process = multiprocessing.get_context("spawn").Process(target=run_in_a_process, args=given, kwargs=options)
    process.start()
    while process.is_alive() and not regal_sandbox.stats()["requests"]:
        time.sleep(0.01)
    process.kill()
    process.join()
    report = run_sync(*given, number=2, **options)
    assert report.unknown == 1
    assert known(path)[phone(1), "sms"][3] == "barrier"
    assert known(path)[phone(1), "voice"][3] == "unknown"


def test_types_first_sent_with_rows_that_are_marked_again_are_remembered(regal_sandbox, tmp_path, path):
    for after in range(4, UNTIL):
        row = {"user_id": f"u{after}", "phone": phone(after), f"plan{after}": 5}
        folder, options = tmp_path / f"run-{after}", {"sync": False}
        with suppress(RetryLaterError):
            run_sync([row], regal_sandbox, folder, path, engine=dying(path, after), **options)
        run_sync([row], regal_sandbox, folder, path, number=2, **options)
        ledger = Ledger(sqlite_engine(path), account="acme", run="a look")
        assert ledger.types()[f"traits.plan{after}"] == "a number"
        ledger.close()
