"""Two runs on one ledger: which one waits, which is withheld, and what a run that stops releases."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime

import pytest

from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.testing import Sandbox
from tests.delivery.consents import NOW, at, known, no, phone, told, yes
from tests.delivery.sync.syncing import run_sync
from tests.ledger.accounts import DeliveryAccount
from tests.ledger.view import ACCOUNT, open_database
from tests.ledger_file import table


@pytest.fixture
def other(ledger_path):
    """Another delivery on the same ledger, at the time of the tests."""
    with closing(open_database(ledger_path)) as database:
        yield DeliveryAccount(database, "another", account=ACCOUNT, now=lambda: NOW)


def claim(number, subscribed, minute):
    return Claim(OPT_IN, phone(number), "sms", subscribed, to_ledger_time(datetime.fromisoformat(at(minute))))


def test_what_another_run_is_sending_is_waited_for(sync, other, regal_sandbox):
    sending = claim(1, True, 5)
    other.claim([sending])
    threading.Timer(0.7, lambda: other.settle(acknowledged=[sending])).start()
    begun = time.monotonic()
    report = sync([yes(1, 6), yes(2)])
    assert (report.acknowledged, time.monotonic() - begun > 0.7) == (2, True)
    assert told(regal_sandbox)[-1] == ("u1", "sms", True)


def test_while_one_contact_is_waited_for_the_others_are_sent(sync, other, regal_sandbox):
    other.claim([claim(1, True, 5)])

    def settle_once_the_others_have_arrived():
        while regal_sandbox._ask(lambda account: account.stats()["requests"]) < 30:
            time.sleep(0.01)
        other.settle(released=[claim(1, True, 5)])

    threading.Thread(target=settle_once_the_others_have_arrived).start()
    assert sync([yes(1, 6), *(yes(number) for number in range(2, 32))]).acknowledged == 31


def opt_out_meanwhile(path, number, minute):
    """Let another run read an opt-out just when this one, having compared, writes down that it read one of number 9."""
    columns = "account, identifier, channel, opt_out_at, state"
    values = ("acme", phone(number), "sms", claim(number, False, minute).at, "barrier")
    with sqlite3.connect(path) as ledger:
        ledger.execute(
            f"CREATE TRIGGER meanwhile AFTER INSERT ON regal_consents WHEN NEW.identifier = '{phone(9)}' "
            f"BEGIN INSERT INTO regal_consents ({columns}) VALUES {values}; END"
        )
    ledger.close()


def test_an_opt_in_that_turns_out_older_when_it_is_claimed_is_withheld(sync, other, regal_sandbox, ledger_path):
    opt_out_meanwhile(ledger_path, 1, 6)
    report = sync([yes(1, 5), yes(2, 5), no(9)])
    assert (report.plan["sent"], report.plan["older"]) == (3, 0)
    assert (report.acknowledged, report.skips, report.opt_ins_withheld) == (2, {"older": 1}, 1)
    assert told(regal_sandbox) == [("u9", "sms", False), ("u2", "sms", True)]


def test_of_an_event_only_the_older_part_is_withheld(sync, other, regal_sandbox, ledger_path):
    opt_out_meanwhile(ledger_path, 1, 6)
    report = sync([yes(1, 5), yes(1, 5, channel="voice"), no(9)])
    assert (report.acknowledged, report.opt_ins_withheld) == (3, 1)
    assert told(regal_sandbox) == [("u9", "sms", False), ("u1", "voice", True)]
    assert known(ledger_path)[phone(1), "sms"][0] is None
    assert known(ledger_path)[phone(1), "voice"][0] == 1


def test_what_is_claimed_is_given_back_when_the_delivery_stops(sync, other, regal_sandbox, ledger_path):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 429, "retry_after": 60}}])
    with pytest.raises(RetryLaterError):
        sync([no(number) for number in range(40)] + [yes(99)], outage_patience=1)
    assert {rest[3] for rest in known(ledger_path).values()} == {"barrier"}
    assert {str(verdict) for verdict in other.claim([claim(n, False, 5) for n in range(40)])} == {"go"}


def test_what_may_have_arrived_is_not_given_back(sync, regal_sandbox, ledger_path):
    sync([no(1, 5)])
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"drop": True}}])
    with pytest.raises(RetryLaterError):
        sync([yes(1, 6)], outage_patience=0.2, of_run="r")
    assert known(ledger_path)[phone(1), "sms"][3:6] == ("unknown", 1, claim(1, True, 6).at)
    regal_sandbox.set_faults([])
    assert sync([yes(1, 6)], of_run="r", number=2).acknowledged == 1


def test_two_accounts_on_one_ledger_are_both_sent(regal_sandbox, tmp_path):
    with Sandbox(api_key="of-another-account") as other:
        for account, regal in (("acme", regal_sandbox), ("other", other)):
            for turn in range(2):
                run_sync([yes(1), no(2)], regal, f"r{turn}", tmp_path / "l.db", account=account, initial="send")
        for regal in (regal_sandbox, other):
            assert told(regal) == [("u2", "sms", False), ("u1", "sms", True)]


def test_with_a_secret_it_is_all_the_same_and_the_ledger_names_nobody(regal_sandbox, tmp_path):
    path = tmp_path / "l.db"

    def run(number, rows, **options):
        return run_sync(rows, regal_sandbox, f"r{number}", path, secret=b"pepper", **options)

    run(1, [{"user_id": "u9", "phone": phone(9)}], sync=False)
    run(2, [yes(1), no(2), no(3, None), yes(4, ip=None)], initial="send", max_rejected=1)
    assert run(3, [yes(1), no(2), no(3, None)]).skips == {"unchanged": 3}
    assert run(4, [yes(2, 4), no(1, 6)]).skips == {"older": 1}
    assert run(5, [yes(4, ip=None)], max_rejected=1).known == 1
    report = run(6, [yes(9, phone=None), yes(8, phone=None)], as_event="Yes", max_event_age=None, max_rejected=1)
    assert (report.acknowledged, report.rejected) == (1, 1)
    named = {line["identifier"] for line in table(path, "regal_consents")}
    named |= {line["identifier"] for line in table(path, "regal_consent_log")}
    named |= {line[name] for line in table(path, "regal_outcomes") for name in ("user_id", "phone", "email")}
    assert not named & {identifier for number in range(1, 10) for identifier in (phone(number), f"u{number}")}
