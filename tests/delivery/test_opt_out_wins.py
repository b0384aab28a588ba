"""Ways in which an older opt-in could follow an opt-out, or an opt-out get lost: none of them does."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import RegalError, RetryLaterError, TooManyFailedRowsError
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.delivery.consents import IP, NOW, at, no, phone, told, yes
from tests.delivery.sync.syncing import run_sync
from tests.ledger.accounts import DeliveryAccount
from tests.ledger.view import ACCOUNT, open_database

OUTAGE = [{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def other(ledger_path):
    """Another delivery on the same ledger, at the time of the tests."""
    with closing(open_database(ledger_path)) as database:
        yield DeliveryAccount(database, "another", account=ACCOUNT, now=lambda: NOW)


@pytest.fixture
def run(deliver):
    runs = iter(range(1_000))

    def run(rows, *, call="identify", of_run=None, now=NOW, **options):
        return deliver(rows, call=call, of_run=of_run or f"run-{next(runs)}", now=now, **options)

    return run


def contact(number, subscribed, when, channel="sms", **more):
    """A contact with an opt-in or opt-out of a minute, a moment, or no time."""
    when = at(when) if isinstance(when, int) else when and when.isoformat()
    said = {f"{channel}_opt_in": subscribed, f"{channel}_opt_in_at": when, f"{channel}_opt_in_ip": IP}
    return {"user_id": f"u{number}", "phone": phone(number), **said, **more}


def out(number, moment):
    return Claim(OPT_IN, phone(number), "sms", False, to_ledger_time(moment))


class TestWithoutATime:
    def test_an_opt_out_read_again_wins_over_an_opt_in_given_since_it_was_first_read(self, run, sync, regal_sandbox):
        """It can't be known whether it is the old one or a new one: it counts as given when it was read."""
        run([contact(1, False, None)], now=NOW - 60 * MINUTE)
        meanwhile = contact(1, True, NOW - 30 * MINUTE)
        report = run([contact(1, False, None), meanwhile])
        assert report.opt_ins_withheld == 1
        assert sync([yes(1, timestamp=(NOW - 30 * MINUTE).isoformat())], now=NOW + MINUTE).skips == {"older": 1}
        assert told(regal_sandbox) == [("u1", "sms", False)] * 2

    def test_of_a_sync_one_that_is_read_while_another_run_is_about_to_claim_an_opt_in_bars_it(
        self, sync, run, other, regal_sandbox
    ):
        sync([no(1, 5)])

        def while_another_run_reads_the_opt_out():
            yield yes(1, 6)
            sync([no(1, None, source="another table")])

        assert sync(while_another_run_reads_the_opt_out).skips == {"older": 1}
        assert told(regal_sandbox) == [("u1", "sms", False)]

    def test_of_a_long_read_it_counts_from_its_own_row_on(self, regal_sandbox, tmp_path, ledger_path):
        """Not from the beginning of the read: an opt-in given while it was read would win."""
        moments = iter(NOW + second * timedelta(seconds=1) for second in range(10_000))
        begun = NOW + timedelta(seconds=1)

        def rows():
            for _ in range(100):
                next(moments)
            yield yes(1, timestamp=(begun + timedelta(seconds=20)).isoformat())
            yield no(1, None)

        def of_time(clock_path=ledger_path):
            return run_sync(
                rows, regal_sandbox, "run", clock_path, initial="send",
                clock=Clock(now=lambda: next(moments), jitter=lambda: 0.0),
            )  # fmt: skip

        assert of_time().acknowledged == 1
        assert told(regal_sandbox) == [("u1", "sms", False)]

    @pytest.mark.parametrize("arrived", [True, False], ids=["acknowledged", "in doubt"])
    def test_of_a_contact_that_did_not_change_it_is_sent_against_a_yes_given_since(
        self, run, other, regal_sandbox, ledger, arrived
    ):
        """The row may have said yes in between, when no one read it: what it says now may be new."""
        contact_again = [contact(1, False, None, plan="gold")]
        run(contact_again, only_changed=True)
        given_since = replace(out(1, NOW + 10 * MINUTE), subscribed=True)
        other.settle(**{"acknowledged" if arrived else "unknown": [given_since]})
        assert run(contact_again, only_changed=True, now=NOW + 20 * MINUTE).acknowledged == 1
        assert told(regal_sandbox) == [("u1", "sms", False)] * 2
        assert run(contact_again, only_changed=True, now=NOW + 30 * MINUTE).skips == {"unchanged": 1}
        assert ledger.consents()[phone(1), "sms"][0] == 0


class TestTimesThatWereInTheFuture:
    """A table in another time zone than is thought says hours to come, which have come when it is tried again."""

    @pytest.mark.parametrize("turned", [True, False])
    def test_an_opt_in_that_was_withheld_for_it_is_not_sent_by_a_later_try(self, run, regal_sandbox, turned):
        rows = [contact(1, False, NOW + 40 * MINUTE), contact(1, True, NOW + 30 * MINUTE)]
        options = {"of_run": "r"}
        given = rows[::-1] if turned else rows
        regal_sandbox.set_faults(OUTAGE)
        with pytest.raises(RetryLaterError):
            run(given, outage_patience=0.1, **options)
        regal_sandbox.set_faults([])
        report = run(given, number=2, now=NOW + 90 * MINUTE, **options)
        assert told(regal_sandbox) == [("u1", "sms", False)]
        assert (report.acknowledged, report.opt_ins_withheld) == (2, 1)

    def test_nor_after_the_opt_out_that_followed_it_went_without_its_time(self, run, regal_sandbox):
        rows = [contact(1, False, NOW + 40 * MINUTE), contact(1, True, NOW + 30 * MINUTE, user_id="u2")]
        regal_sandbox.set_faults([{"on": {"from": 2}, "do": OUTAGE[0]["do"]}])
        with pytest.raises(RetryLaterError):
            run(rows, of_run="r", outage_patience=0.1)
        regal_sandbox.set_faults([])
        run(rows, of_run="r", number=2, now=NOW + 90 * MINUTE)
        assert told(regal_sandbox) == [("u1", "sms", False)]


class TestRetriedUnderOtherOptions:
    """The rows were compared under the options of the first try."""

    def stopped(self, run, regal, rows, **options):
        regal.set_faults(OUTAGE)
        with pytest.raises(RetryLaterError):
            run(rows, of_run="r", outage_patience=0.1, **options)
        regal.set_faults([])

    def test_an_opt_in_that_may_be_sent_by_now_is_and_one_that_is_older_is_not(self, run, regal_sandbox):
        rows = [contact(1, True, 6), contact(1, True, 5, channel="voice"), contact(1, False, 4, channel="voice")]
        rows[1]["voice_opt_in_ip"] = None
        self.stopped(run, regal_sandbox, rows)
        assert run(rows, of_run="r", number=2, require_ip=False).acknowledged == 3
        assert told(regal_sandbox) == [("u1", "sms", True), ("u1", "voice", True)]

    def test_the_opt_outs_of_a_stopped_delivery_bar_whatever_becomes_of_it(self, run, sync, regal_sandbox):
        rows = [contact(number, False, 6) for number in range(300)]
        self.stopped(run, regal_sandbox, rows)
        assert sync([yes(number, 5) for number in range(300)]).skips == {"older": 300}


def test_an_opt_out_of_a_day_bars_all_of_that_day_across_runs(run, sync, regal_sandbox):
    day = NOW - timedelta(days=3)
    sync([no(1, timestamp=f"{day:%Y-%m-%d}")])
    assert run([contact(1, True, day.replace(hour=23, minute=59))]).opt_ins_withheld == 1
    assert sync([no(1, timestamp=f"{day:%Y-%m-%d}")]).skips == {"unchanged": 1}
    assert run([contact(1, True, day + timedelta(days=1))]).opt_ins_withheld == 0


def test_an_opt_out_of_today_bars_every_opt_in_until_its_day_has_ended(run, sync, regal_sandbox):
    sync([no(1, timestamp=f"{NOW:%Y-%m-%d}")])
    assert run([contact(1, True, NOW - MINUTE)]).opt_ins_withheld == 1
    assert run([contact(1, True, NOW + MINUTE)], now=NOW + 2 * MINUTE).opt_ins_withheld == 1
    tomorrow = NOW.replace(hour=0, minute=0) + timedelta(days=1)
    assert run([contact(1, True, tomorrow)], now=tomorrow + MINUTE).opt_ins_withheld == 0


class TestRedelivered:
    def refused(self, run, regal, rows, **options):
        regal.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])
        with suppress(RegalError):
            run(rows, of_run="run", **options)
        regal.set_faults([])

    def test_an_opt_out_that_followed_an_opt_in_within_the_second_is_not_lost(
        self, run, sync, redeliver, regal_sandbox
    ):
        second = NOW - 10 * MINUTE
        sync([yes(1, timestamp=second.replace(microsecond=400_000).isoformat())])
        self.refused(run, regal_sandbox, [contact(1, False, second.replace(microsecond=600_000))])
        redeliver(now=NOW + MINUTE)
        assert told(regal_sandbox) == [("u1", "sms", True), ("u1", "sms", False)]

    def test_consents_that_fix_writes_in_segments_form_are_compared_like_any_others(
        self, run, redeliver, regal_sandbox
    ):
        self.refused(run, regal_sandbox, [contact(1, None, None, plan=plan) for plan in "abc"])
        said = {
            "a": {"channel": "sms", "subscribed": False, "timestamp": at(6)},
            "b": {"channel": "sms", "subscribed": True, "timestamp": at(5), "ip": IP},
            "c": {"channel": "voice", "subscribed": True, "timestamp": at(5), "ip": IP},
        }

        def fix(body):
            return {"userId": body["userId"], "phone": phone(1), "optIn": [said[body["traits"]["plan"]]]}

        report = redeliver(now=NOW + MINUTE, fix=fix)
        assert (report.acknowledged, report.opt_ins_withheld) == (3, 1)
        assert told(regal_sandbox) == [("u1", "sms", False), ("u1", "voice", True)]

    def test_a_contact_of_which_only_the_opt_out_goes_since_it_was_overtaken_keeps_its_newer_mark(
        self, run, redeliver, regal_sandbox
    ):
        gold, silver = contact(1, False, 5, plan="gold"), contact(1, False, 5, plan="silver")
        self.refused(run, regal_sandbox, [gold], only_changed=True)
        run([silver], only_changed=True, now=NOW + MINUTE)
        redeliver(now=NOW + 2 * MINUTE, call="identify")
        run([gold], only_changed=True, now=NOW + 3 * MINUTE)
        assert regal_sandbox.contact(phone=phone(1))["traits"]["plan"] == "gold"


class TestWhatMayHaveArrived:
    def test_an_opt_in_in_doubt_does_not_hold_back_the_opt_out_beside_it(self, run, other, regal_sandbox):
        doubtful = Claim(OPT_IN, phone(1), "sms", True, to_ledger_time(datetime.fromisoformat(at(5))))
        other.settle(unknown=[doubtful])
        row = contact(1, True, 5) | contact(1, False, 6, channel="voice")
        report = run([row], guarantee="at_most_once")
        assert (report.acknowledged, report.opt_ins_withheld) == (1, 1)
        assert told(regal_sandbox) == [("u1", "voice", False)]

    def test_an_opt_out_in_doubt_is_sent_again_whatever_the_guarantee(self, run, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"requests": [1]}, "do": {"status": 500, "store": False}}])
        with pytest.raises(TooManyFailedRowsError, match=r"1 (rejected|unknown) with an opt-out"):
            run([contact(1, False, 5)], guarantee="at_most_once", max_unknown=1.0)
        assert run([contact(1, False, 5)], guarantee="at_most_once").acknowledged == 1
        assert told(regal_sandbox) == [("u1", "sms", False)]


class TestOfSomebodyWithoutAPhone:
    EVENT = "SMS Consent Given"

    def as_event(self, sync, rows, **options):
        return sync(rows, sync={"as_event": self.EVENT}, max_event_age=None, max_rejected=5, **options)

    def test_an_opt_out_that_cannot_be_sent_bars_the_event_that_means_an_older_opt_in(self, run, sync, regal_sandbox):
        with pytest.raises(TooManyFailedRowsError, match=r"1 (rejected|unknown) with an opt-out") as error:
            self.as_event(sync, [no(1, 6, phone=None)])
        assert error.value.report.rejected == 1
        run([{"user_id": "u1", "phone": phone(1)}])
        assert self.as_event(sync, [yes(1, 5, phone=None)]).skips == {"older": 1}
        assert told(regal_sandbox) == []
        assert self.as_event(sync, [yes(1, 7, phone=None)]).acknowledged == 1

    @pytest.mark.parametrize("as_event", [True, False])
    def test_an_opt_out_of_a_user_id_is_sent_to_the_phone_on_record(self, run, sync, regal_sandbox, as_event):
        run([{"user_id": "u1", "phone": phone(1)}])
        rows = [no(1, 6, phone=None), yes(1, 5)]
        report = self.as_event(sync, rows) if as_event else sync(rows)
        assert (report.acknowledged, report.skips) == (1, {"older": 1})
        (event,) = [event["body"] for event in regal_sandbox.events()][1:]
        assert event["traits"]["phones"][phone(1)]["smsOptIn"]["subscribed"] is False

    def test_an_opt_out_of_a_phone_that_regal_does_not_have_yet_bars_it_as_well(self, run, sync, regal_sandbox):
        run([{"user_id": "u1", "phone": phone(1)}])
        report = self.as_event(sync, [no(1, 6, phone=phone(7)), yes(1, 5, phone=None)])
        assert (report.acknowledged, report.skips) == (1, {"older": 1})
        assert told(regal_sandbox) == [("u1", "sms", False)]
        assert self.as_event(sync, [no(1, 6, phone=phone(7)), yes(1, 7, phone=None)]).acknowledged == 1


def test_somebody_who_vanished_is_not_barred_since_nobody_has_said_no(sync, regal_sandbox, ledger):
    sync([yes(1, 5), yes(2, 5)])
    regal_sandbox.set_faults(OUTAGE)
    with pytest.raises(RetryLaterError):
        sync([yes(2, 5)], sync={"on_removed": "opt_out"}, outage_patience=0.1)
    regal_sandbox.set_faults([])
    assert ledger.consents()[phone(1), "sms"][2] is None
    assert sync([yes(1, 6)]).acknowledged == 1


def test_of_a_reading_that_was_cut_off_an_opt_out_without_a_time_counts_as_given_when_it_was_read_again(
    run, sync, regal_sandbox
):
    """It may have been given since. What was read before the source broke off is sent as well."""

    def cut_off():
        yield contact(2, False, None)
        raise ConnectionError("the warehouse is away")

    with pytest.raises(ConnectionError):
        run(cut_off(), of_run="r")
    run([contact(1, False, None)], of_run="r", number=2, now=NOW + 10 * MINUTE, max_connections=1)
    assert sync([yes(1, timestamp=(NOW + 5 * MINUTE).isoformat())], now=NOW + 20 * MINUTE).skips == {"older": 1}
    assert told(regal_sandbox) == [(None, "sms", False), ("u1", "sms", False)]


def test_a_yes_of_a_message_that_is_not_sent_since_it_repeats_another_takes_the_place_of_no_opt_out(run, regal_sandbox):
    rows = [
        {"user_id": "u1", "phone": phone(1), "sms_opt_in": False, "sms_opt_in_at": at(1)},
        {"user_id": "u2", "message_id": "m", "plan": "gold"},
        {"user_id": "u1", "phone": phone(1), "message_id": "m", "sms_opt_in": True, "sms_opt_in_at": at(5)},
    ]
    run([{"sms_opt_in_ip": IP, **row} for row in rows])
    assert regal_sandbox.contact(phone=phone(1))["phones"][phone(1)]["sms"]["status"] == "Unsubscribed"


def test_an_opt_out_in_doubt_holds_back_neither_the_same_one_beside_a_named_event_nor_the_event(run, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 500, "store": False}}])
    with suppress(RegalError):
        run([contact(1, False, 5)], guarantee="at_most_once", max_unknown=1)
    regal_sandbox.set_faults([])

    no = {"channel": "sms", "subscribed": False, "timestamp": at(5)}
    report = run([{"user_id": "u1", "phone": phone(1), "opt_in": [no]}], call="track", event="Lesson Booked")

    assert report.acknowledged == 1
    (sent,) = regal_sandbox.events(stored=True)
    assert sent["name"] == "Lesson Booked"
    assert sent["body"]["traits"]["phones"][phone(1)]["smsOptIn"]["subscribed"] is False
