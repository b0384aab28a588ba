"""An opt-out that was read but not acknowledged is sent first by the next delivery of contacts."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_regal.errors import FixSourceError, RegalError, RetryLaterError, TooManyFailedRowsError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.people.suppressions import suppress as suppress_people
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import EVERY, on
from tests.delivery.consents import IP, NOW, adds_up, at, no, phone, told, yes
from tests.delivery.sync.syncing import hours_pass
from tests.ledger.accounts import DeliveryAccount
from tests.ledger.view import ACCOUNT, LedgerView, open_database

PROJECT = Path(__file__).parents[2]
OUTAGE = [{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}]
LOST = [{"on": {"from": 1}, "do": {"status": 500, "store": False}}]
REFUSED = [{"on": {"from": 1}, "do": {"status": 400}}]
KILLED = """
import os, pathlib, signal, sys
from tests.delivery.sync.syncing import run_sync
def rows():
    for number in range(1_500):
        yield {"phone": f"+1212555{number:04d}", "sms_opt_in": False, "sms_opt_in_at": "2026-11-01T00:00:00Z"}
    os.kill(os.getpid(), signal.SIGKILL)
url, key, path = sys.argv[1:]
run_sync(rows, (url, key), "killed", pathlib.Path(path), sync=False)
"""
SAID_AT_5 = {"subscribed": False, "timestamp": "2026-11-23 02:05:00 +00:00"}
NOBODY = {"user_id": "u99", "plan": "gold"}
MINUTE = timedelta(minutes=1)


@pytest.fixture
def run(deliver):
    """Deliver contacts; each delivery in a run of its own, a minute after the one before."""
    runs = iter(range(1_000))

    def run(rows, *, call="identify", of_run=None, now=None, **options):
        number = next(runs)
        return deliver(rows, call=call, of_run=of_run or f"run-{number}", now=now or NOW + number * MINUTE, **options)

    return run


@pytest.fixture
def failed(run, regal_sandbox):
    """Deliver while Regal does something else than to take it."""

    def failed(rows, faults, **options):
        regal_sandbox.set_faults(faults)
        with suppress(RegalError):
            run(rows, outage_patience=0.1, **options)
        regal_sandbox.set_faults([])

    return failed


def contact(number, subscribed, minute, channel="sms", **more):
    said = {f"{channel}_opt_in": subscribed, f"{channel}_opt_in_at": at(minute), f"{channel}_opt_in_ip": IP}
    return {"user_id": f"u{number}", "phone": phone(number), **said, **more}


def bodies(regal):
    """What Regal took in, in order."""
    return [event["body"] for event in regal.events(stored=True)]


def owed(ledger):
    """Whose opt-outs the ledger says are owed."""
    found = ledger.query("SELECT identifier, channel FROM regal_consents WHERE owed_since IS NOT NULL")
    return sorted(tuple(row) for row in found)


class TestWhatWasLeftUnsent:
    def test_by_an_outage_goes_first_whoever_has_read_it_and_only_once(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5, plan="gold"), contact(2, False, 6)], OUTAGE, task="dag.other")
        assert owed(ledger) == [(phone(1), "sms"), (phone(2), "sms")]

        report = run([NOBODY], of_run="next", max_connections=1)

        first, second, own = bodies(regal_sandbox)
        assert own["userId"] == "u99"
        assert first == {
            "traits": {"phones": {phone(1): {"smsOptIn": SAID_AT_5}}},
            "eventSource": "airflow",
        }  # fmt: skip
        assert list(second["traits"]["phones"]) == [phone(2)]
        assert (report.read, report.acknowledged, report.owed_sent, report.opt_outs_owed) == (1, 1, 2, 0)
        assert adds_up(report)
        lines = ledger.outcomes("next")
        assert [(line.position, line.status, line.phone) for line in lines] == [
            (1, "acknowledged", None), (2, "acknowledged", phone(1)), (3, "acknowledged", phone(2)),
        ]  # fmt: skip
        assert lines[1].place.startswith("opt-out owed since 2026-11-24T02:00Z, read by dag.other")
        assert owed(ledger) == []
        run([NOBODY])
        assert len(bodies(regal_sandbox)) == 4

    def test_goes_where_a_newer_opt_in_is_withheld_for_what_cannot_be_read(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        with pytest.raises(TooManyFailedRowsError):
            run([contact(1, True, 6), contact(1, "perhaps", 7)])
        assert told(regal_sandbox) == [(None, "sms", False)]
        assert owed(ledger) == []

    def test_by_a_500_under_at_most_once(self, run, failed, sync, regal_sandbox, ledger):
        failed([contact(1, False, 5)], LOST, guarantee="at_most_once", max_unknown=5)
        assert owed(ledger) == [(phone(1), "sms")]
        assert sync([yes(2)]).owed_sent == 1
        assert told(regal_sandbox) == [(None, "sms", False), ("u2", "sms", True)]

    def test_by_the_end_of_retries_of_a_sync(self, run, sync, regal_sandbox, ledger):
        sync([yes(1)])
        regal_sandbox.set_faults(OUTAGE)
        for number in (1, 2, 3):
            with pytest.raises(RetryLaterError):
                sync([no(1, 6), yes(2)], of_run="gives up", number=number, outage_patience=0.1)
        regal_sandbox.set_faults([])
        assert run([NOBODY]).owed_sent == 1
        assert told(regal_sandbox) == [("u1", "sms", True), (None, "sms", False)]
        assert owed(ledger) == []

    @pytest.mark.slow
    def test_by_a_worker_that_was_killed(self, run, regal_sandbox, ledger_path, ledger):
        given = [sys.executable, "-c", KILLED, regal_sandbox.url, regal_sandbox.api_key, str(ledger_path)]
        assert subprocess.run(given, cwd=PROJECT, check=False).returncode == -signal.SIGKILL
        left = len(owed(ledger))
        assert left >= 1_000
        hours_pass(ledger_path)
        assert run([NOBODY]).owed_sent == left
        assert len(told(regal_sandbox)) == left

    def test_goes_with_an_event_of_a_sync_as_well(self, failed, sync, regal_sandbox):
        failed([contact(1, False, 5)], OUTAGE)
        report = sync([yes(2)], sync={"as_event": "SMS Consent Given"}, max_event_age=None)
        assert report.owed_sent == 1
        assert told(regal_sandbox) == [(None, "sms", False), ("u2", "sms", "SMS Consent Given")]

    def test_does_not_go_with_events(self, failed, run, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        report = run([NOBODY], call="track")
        assert (report.owed_sent, report.opt_outs_owed) == (0, 1)
        assert owed(ledger) == [(phone(1), "sms")]

    def test_is_sent_by_a_retry_where_the_first_try_left_it(self, run, failed, regal_sandbox, ledger):
        failed([contact(number, False, 5) for number in range(3)], OUTAGE)
        failed(
            [NOBODY], [{"on": {"from": regal_sandbox.stats()["requests"] + 2}, **{"do": OUTAGE[0]["do"]}}], of_run="r"
        )
        report = run([NOBODY], of_run="r", number=2)
        assert (report.owed_sent, report.acknowledged, report.opt_outs_owed) == (3, 1, 0)
        assert len(told(regal_sandbox)) == 3

    def test_goes_however_contacts_are_told_apart(self, run, failed, regal_sandbox):
        failed([contact(1, False, 5)], OUTAGE)
        assert run([NOBODY], only_changed=True).owed_sent == 1
        assert run([NOBODY], only_changed=True).skips == {"unchanged": 1}


class TestWhatIsNotSent:
    def test_what_a_row_of_the_delivery_says_goes_with_that_row(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5), contact(2, False, 5)], OUTAGE)
        report = run([contact(1, False, 5, plan="gold")])
        assert (report.acknowledged, report.owed_sent) == (1, 1)
        own = [body for body in bodies(regal_sandbox) if phone(1) in body["traits"]["phones"]]
        assert [body["traits"]["plan"] for body in own] == ["gold"]
        assert owed(ledger) == []

    def test_so_it_is_with_a_sync(self, sync, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        assert sync([no(1, 5)]).owed_sent == 0
        assert told(regal_sandbox) == [("u1", "sms", False)]
        assert owed(ledger) == []

    def test_a_newer_opt_in_of_the_delivery_takes_its_place(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        assert run([contact(1, True, 8)]).owed_sent == 0
        assert told(regal_sandbox) == [("u1", "sms", True)]
        assert run([NOBODY]).owed_sent == 0

    def test_so_does_one_of_a_sync(self, sync, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        assert sync([yes(1, 8)]).owed_sent == 0
        assert told(regal_sandbox) == [("u1", "sms", True)]

    def test_where_that_is_refused_it_is_still_owed(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        failed([contact(1, True, 8)], REFUSED)
        assert owed(ledger) == [(phone(1), "sms")]
        assert run([NOBODY]).owed_sent == 1

    def test_an_older_one_does_not(self, run, failed, regal_sandbox):
        failed([contact(1, False, 5)], OUTAGE)
        assert run([contact(1, True, 4)]).opt_ins_withheld == 1
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_what_a_newer_opt_in_has_overtaken_is_owed_no_more(self, run, failed, ledger, regal_sandbox):
        failed([contact(1, False, 5), contact(1, True, 8)], OUTAGE)
        with ledger.account() as account:
            claim = Claim(OPT_IN, phone(1), "sms", True, to_ledger_time(NOW))
            account.database.write(lambda connection: account.settle(connection, acknowledged=[claim]))
        assert owed(ledger) == []

    def test_what_a_delivery_that_runs_has_read_is_left_to_it(self, run, ledger, regal_sandbox):
        def barred_first():
            for number in range(1_000):
                yield contact(number, False, 5)
            report = run([NOBODY], of_run="beside", now=NOW)
            assert (report.owed_sent, report.opt_outs_owed) == (0, 0)
            assert len(owed(ledger)) == 1_000

        assert run(barred_first, of_run="long", now=NOW).acknowledged == 1_000
        assert owed(ledger) == []
        assert regal_sandbox.stats()["requests"] == 1_001

    def test_of_another_account(self, run, failed, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        ledger.change("UPDATE regal_consents SET account = 'other'")
        report = run([NOBODY])
        assert (report.owed_sent, report.opt_outs_owed) == (0, 0)

    def test_by_a_dry_run_but_it_is_counted(self, run, failed, ledger, regal_sandbox):
        failed([contact(1, False, 5)], OUTAGE)
        report = run([NOBODY], dry_run=True)
        assert (report.opt_outs_owed, report.read) == (1, 1)
        assert owed(ledger) == [(phone(1), "sms")]

    def test_where_the_ledger_holds_hashes_it_is_counted_and_bars(self, run, failed, ledger_path, regal_sandbox):
        failed([contact(1, False, 5)], OUTAGE, secret=b"pepper")
        report = run([contact(1, True, 4)], secret=b"pepper")
        assert (report.owed_sent, report.opt_outs_owed, report.opt_ins_withheld) == (0, 1, 1)
        assert run([contact(1, False, 5)], secret=b"pepper").opt_outs_owed == 0

    def test_a_baseline_is_known_to_regal(self, sync, ledger, regal_sandbox):
        report = sync([no(1), no(2, 4), yes(2, 6), yes(3)], initial="baseline")
        assert report.opt_outs_owed == 0
        assert regal_sandbox.stats()["requests"] == 0

    def test_an_opt_out_of_a_user_id_has_no_phone_to_go_to(self, run, sync, ledger, regal_sandbox):
        with pytest.raises(TooManyFailedRowsError, match=r"1 (rejected|unknown) with an opt-out"):
            sync([no(1, 6, phone=None)], sync={"as_event": "SMS Consent Given"}, max_event_age=None, max_rejected=1)
        assert owed(ledger) == []


class TestRefusedForSomethingElse:
    def test_it_is_tried_alone_at_once(self, run, regal_sandbox, ledger):
        regal_sandbox.set_faults([{"on": {"times": 1}, "do": {"status": 400}}])
        with pytest.raises(TooManyFailedRowsError) as raised:
            run([contact(1, False, 5, channel="voice", plan="gold") | contact(1, True, 5)], of_run="r")
        assert (raised.value.report.rejected, raised.value.report.opt_outs_owed) == (1, 0)
        assert told(regal_sandbox) == [(None, "voice", False)]
        (line,) = ledger.outcomes("r")
        assert (line.status, line.reason, line.attempts) == ("rejected", "HTTP 400", 2)
        assert line.message.endswith("; its opt-out, sent alone: acknowledged")
        (letter,) = ledger.dead_letters("r")
        assert letter.payload["traits"]["plan"] == "gold", "the row is kept as it was"
        assert ledger.consents()[phone(1), "voice"][0] == 0
        assert ledger.consents().get((phone(1), "sms")) is None

    def test_of_an_event_it_goes_by_identify(self, run, regal_sandbox, ledger):
        regal_sandbox.set_faults([{"on": {"name": "Lesson Booked"}, "do": {"status": 400}}])
        assert run([contact(1, False, 5, message_id="m1")], call="track", max_rejected=1).opt_outs_owed == 0
        (body,) = bodies(regal_sandbox)
        assert "name" not in body
        assert ledger.messages() == {}

    def test_where_it_is_refused_alone_it_stays_owed(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5, plan="gold")], REFUSED, of_run="r")
        (line,) = ledger.outcomes("r")
        assert line.message.endswith("; its opt-out, sent alone: HTTP 400")
        assert owed(ledger) == [(phone(1), "sms")]
        first = [{"on": {"from": 1, "times": 1}, "do": {"status": 400}}]
        failed([NOBODY], first, of_run="again", max_connections=1)
        assert [line.status for line in ledger.outcomes("again")] == ["acknowledged", "rejected"]
        assert run([NOBODY]).owed_sent == 1

    def test_where_nobody_knows_what_became_of_it_it_stays_owed(self, run, failed, regal_sandbox, ledger):
        faults = [{"on": {"requests": [1]}, "do": {"status": 400}}, {"on": {"requests": [2]}, "do": LOST[0]["do"]}]
        failed([contact(1, False, 5, plan="gold")], faults, of_run="r", guarantee="at_most_once")
        (line,) = ledger.outcomes("r")
        assert (line.status, line.message.endswith("sent alone: unknown, HTTP 500")) == ("rejected", True)
        assert owed(ledger) == [(phone(1), "sms")]

    def test_an_innocent_delivery_does_not_fail_for_one_that_regal_refuses(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 5)], OUTAGE)
        number = regal_sandbox.stats()["requests"] + 1
        regal_sandbox.set_faults([{"on": {"requests": [number]}, "do": {"status": 400}}])
        report = run([NOBODY])
        assert (report.status, report.acknowledged, report.rejected, report.opt_outs_owed) == ("finished", 1, 0, 1)


class TestTooFewRows:
    def test_the_opt_outs_among_them_are_sent_and_the_task_fails(self, run, regal_sandbox, ledger):
        with pytest.raises(FixSourceError, match=r"fewer than min_rows=10.*Only opt-outs were sent \(1\)"):
            run([contact(1, False, 5, plan="gold"), contact(2, True, 5), NOBODY], min_rows=10, of_run="few")
        (body,) = bodies(regal_sandbox)
        assert body["traits"] == {
            "phones": {phone(1): {"smsOptIn": {"subscribed": False, "timestamp": "2026-11-23 02:05:00 +00:00"}}}
        }
        assert ledger.delivery("few").state == "failed"
        assert owed(ledger) == []
        assert run([contact(1, True, 4)]).opt_ins_withheld == 1

    def test_where_the_ledger_holds_hashes_as_well(self, run, regal_sandbox):
        with pytest.raises(FixSourceError, match="fewer than min_rows"):
            run([contact(1, False, 5)], min_rows=10, secret=b"pepper")
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_a_retry_after_an_outage_fails_for_the_same_reason(self, run, failed, regal_sandbox):
        failed([contact(1, False, 5)], OUTAGE, min_rows=10, of_run="r")
        with pytest.raises(FixSourceError, match=r"Only opt-outs were sent \(1\)"):
            run([contact(1, False, 5)], min_rows=10, of_run="r", number=2)
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_without_an_opt_out_nothing_is_sent(self, run, regal_sandbox):
        with pytest.raises(FixSourceError, match=r"fewer than min_rows=10\. Check .* Nothing was sent\."):
            run([NOBODY], min_rows=10)
        assert regal_sandbox.stats()["requests"] == 0


class TestWhereTheSourceOptsInAgain:
    """The row with the newer opt-in comes first; the opt-out goes after it, unless Regal has that opt-in by then."""

    def test_an_opt_in_that_is_sent_settles_it(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 3)], OUTAGE)
        report = run([contact(1, True, 5)])
        assert told(regal_sandbox) == [("u1", "sms", True)]
        assert (report.acknowledged, report.skipped, report.owed_sent, report.opt_outs_owed) == (1, 0, 0, 0)
        assert owed(ledger) == []

    @pytest.mark.parametrize("wrong", [{"email": "nobody"}, {"address_city": 5}, {"timestamp": "2026-13-01"}], ids=str)
    def test_a_row_that_is_rejected_does_not(self, run, failed, regal_sandbox, ledger, wrong):
        failed([contact(1, False, 3)], OUTAGE)
        report = run([contact(1, True, 5, **wrong)], max_rejected=1)
        assert report.rejected == 1
        assert told(regal_sandbox) == [(None, "sms", False)]
        assert owed(ledger) == []

    def test_an_opt_in_that_regal_refuses_does_not(self, run, failed, regal_sandbox, ledger):
        failed([contact(1, False, 3)], OUTAGE)
        regal_sandbox.set_faults([{"on": {"times": 1}, "do": {"status": 400}}])
        report = run([contact(1, True, 5)], max_rejected=1, max_refused=None)
        assert report.rejected == 1
        assert told(regal_sandbox) == [(None, "sms", False)]
        assert owed(ledger) == []

    def test_an_opt_in_of_somebody_who_is_suppressed_does_not(self, run, failed, regal_sandbox, ledger, ledger_path):
        failed([contact(1, False, 3)], OUTAGE)
        with closing(open_database(ledger_path)) as database:
            suppress_people(Account(database, account=ACCOUNT), [phone(1)])
        report = run([contact(1, True, 5)])
        assert report.skips == {"suppressed": 1}
        assert told(regal_sandbox) == [(None, "sms", False)]
        assert owed(ledger) == []


@on(EVERY)
def test_on_every_database(database_url, run, failed, regal_sandbox):
    view = LedgerView(database_url)
    failed([contact(number, False, 5) for number in range(1_100)], OUTAGE, path=database_url, lease_s=0)
    assert len(owed(view)) == 1_100
    report = run([NOBODY], path=database_url, now=NOW + timedelta(hours=1))
    assert (report.owed_sent, report.opt_outs_owed) == (1_100, 0)
    assert len(told(regal_sandbox)) == len({*bodies_of_phones(regal_sandbox)}) == 1_100
    assert owed(view) == []


def bodies_of_phones(regal):
    return [number for body in bodies(regal) for number in body.get("traits", {}).get("phones", {})]


def test_two_deliveries_at_once_send_it_once(run, failed, regal_sandbox, ledger_path, ledger):
    """The second asks while the first sends, waits for it, and leaves it out then."""
    failed([contact(1, False, 5)], OUTAGE)
    hours_pass(ledger_path)
    claim = Claim(OPT_IN, phone(1), "sms", False, to_ledger_time(NOW - timedelta(days=1) + 5 * MINUTE), owed=True)
    with closing(open_database(ledger_path)) as database:
        other = DeliveryAccount(database, "another", account=ACCOUNT, now=lambda: NOW + MINUTE)
        other.claim([claim])

        def rows():
            yield NOBODY
            other.settle(acknowledged=[claim])

        report = run(rows, now=NOW + MINUTE)
    assert (report.owed_sent, report.opt_outs_owed) == (0, 0)
    assert told(regal_sandbox) == []


def test_an_owed_opt_out_closes_its_own_channel_only_whatever_the_delivery_that_sends_it_says(
    run, failed, regal_sandbox
):
    """``opt_out_scope`` is about the rows of the delivery: for another channel nothing would be recorded."""
    run([contact(1, True, 1, channel="voice")])
    failed([contact(1, False, 5)], OUTAGE)

    run([NOBODY], opt_out_scope="person")

    assert channels_of(regal_sandbox, 1) == {"sms": "Unsubscribed", "voice": "Subscribed"}


def channels_of(regal, number):
    told = regal.contact(phone=phone(number))["phones"][phone(number)]
    return {channel: told[channel]["status"] for channel in ("sms", "voice")}


def test_an_opt_out_in_doubt_is_sent_although_a_row_of_the_delivery_has_an_older_one(run, failed, regal_sandbox):
    """The row's own is older than what may be at Regal, so it is withheld: it can't stand for the newer."""
    failed([contact(1, False, 9)], LOST, guarantee="at_most_once")

    report = run([contact(1, False, 5)])

    sent = bodies(regal_sandbox)[0]["traits"]["phones"][phone(1)]["smsOptIn"]
    assert sent["timestamp"] == "2026-11-23 02:09:00 +00:00"
    assert report.opt_outs_owed == 0


def test_of_a_source_with_too_few_rows_an_owed_opt_out_is_sent_beside_an_older_one(run, failed, regal_sandbox):
    failed([contact(1, False, 9)], LOST, guarantee="at_most_once")
    with pytest.raises(FixSourceError, match="min_rows"):
        run([contact(1, False, 5)], min_rows=2)
    sent = [body["traits"]["phones"][phone(1)]["smsOptIn"]["timestamp"][:16] for body in bodies(regal_sandbox)]
    assert "2026-11-23 02:09" in sent
