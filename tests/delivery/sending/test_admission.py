"""Admission: nothing older, repeated or unchanged is sent; and what is on record after a crash."""

from __future__ import annotations

from collections import Counter
from contextlib import closing, suppress

import pytest

from airflow_provider_regal.errors import LedgerError, RetryLaterError, TooManyFailedRowsError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.states import RowState
from tests.delivery.consents import IP, NOW, at, known, no, phone, told, yes
from tests.delivery.sync.syncing import dying, hours_pass, run_sync
from tests.ledger.view import ACCOUNT, open_database


@pytest.fixture
def run(deliver):
    runs = iter(range(1_000))

    def run(rows, *, call="identify", of_run=None, **options):
        return deliver(rows, call=call, of_run=of_run or f"run-{next(runs)}", now=NOW, **options)

    return run


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": phone(number), **more}


def opted(number, subscribed, minute, **more):
    when = {} if minute is None else {"sms_opt_in_at": at(minute)}
    return contact(number, sms_opt_in=subscribed, sms_opt_in_ip=IP, **when, **more)


class TestOnlyTheNewestConsent:
    @pytest.mark.parametrize("turned", [True, False])
    def test_an_older_row_never_follows_a_newer_one_whatever_their_order(self, run, regal_sandbox, turned):
        rows = [opted(1, True, 5), opted(1, False, 6), opted(1, True, 4), opted(2, False, 5), opted(2, True, 5)]
        report = run(rows[::-1] if turned else rows)
        assert sorted(told(regal_sandbox)) == [("u1", "sms", False), ("u2", "sms", False)]
        assert (report.acknowledged, report.opt_ins_withheld) == (5, 3)

    def test_an_opt_out_without_a_time_counts_as_given_when_it_was_read(self, run, regal_sandbox):
        run(
            [opted(1, None, None), opted(1, False, None), opted(1, True, 9)],
        )
        assert told(regal_sandbox) == [("u1", "sms", False)]

    def test_an_opt_out_bars_from_when_it_was_read_whatever_becomes_of_its_own_send(self, run, sync, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900}}])
        with pytest.raises(RetryLaterError):
            run([opted(number, False, 6) for number in range(300)], outage_patience=0.1)
        regal_sandbox.set_faults([])
        assert sync([yes(number, 5) for number in range(300)]).skips == {"older": 300}
        assert run([opted(number, True, 5) for number in range(300)]).opt_ins_withheld == 300
        assert told(regal_sandbox) == [(None, "sms", False)] * 300, "the sync has sent what was owed"

    def test_the_opt_outs_of_a_sync_bar_likewise(self, run, sync, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900}}])
        with pytest.raises(RetryLaterError):
            sync([no(number, 6) for number in range(300)], outage_patience=0.1)
        regal_sandbox.set_faults([])
        assert run([opted(number, True, 5) for number in range(300)]).opt_ins_withheld == 300

    def test_the_opt_outs_of_a_sync_bar_those_who_are_rejected_with_it(self, sync, run, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])
        with pytest.raises(TooManyFailedRowsError):
            sync([no(1, 6)])
        regal_sandbox.set_faults([])
        report = run([opted(1, True, 6)])
        assert (report.opt_ins_withheld, report.owed_sent) == (1, 1)
        assert sync([no(1, 6)]).skips == {"unchanged": 1}


class TestOnRecordAfterACrash:
    def test_opt_outs_of_a_repeated_message_that_died_do_not_count_as_the_message(self, run, ledger, regal_sandbox):
        """Only the opt-out of the second row may have been sent: the message is the first row's, which was not."""
        rows = [
            {"phone": phone(1), "message_id": "m"},
            {"phone": phone(2), "message_id": "m", "sms_opt_in": False, "sms_opt_in_at": at(5)},
        ]
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900}}])
        with pytest.raises(RetryLaterError):
            run(rows, call="track", of_run="r", outage_patience=0.1)
        regal_sandbox.set_faults([])
        ledger.change("UPDATE regal_row_chunks SET states = :states", states=bytes([RowState.OPEN, RowState.RESERVED]))
        with pytest.raises(TooManyFailedRowsError, match=r"1 (rejected|unknown) with an opt-out") as error:
            run(rows, call="track", of_run="r", number=2)
        assert (error.value.report.acknowledged, error.value.report.unknown) == (1, 1)
        assert [event["name"] for event in regal_sandbox.events(stored=True)] == ["Lesson Booked"]

    def test_what_was_acknowledged_before_a_crash_is_not_sent_again_but_for_what_the_last_commit_did_not_have(
        self, regal_sandbox, tmp_path
    ):
        path, rows = tmp_path / "ledger.db", [yes(number) for number in range(8)] + [no(9)]
        options = {"initial": "send", "outage_patience": 0.1}
        with pytest.raises(LedgerError, match="The ledger could not be used"):
            run_sync(rows, regal_sandbox, "r", path, engine=dying(path, 16), **options)
        sent_before = regal_sandbox.stats()["requests"]
        hours_pass(path)
        report = run_sync(rows, regal_sandbox, "r", path, number=2, **options)
        assert (report.acknowledged, report.read) == (9, 9)
        assert regal_sandbox.stats()["requests"] <= sent_before + 9
        assert {rest[3] for rest in known(path).values()} == {"acknowledged"}
        assert run_sync(rows, regal_sandbox, "later", path).skips == {"unchanged": 9}

    @pytest.mark.parametrize(
        "after", [3, 9, 15, 21, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 7, 11, 13, 17, 19, 23))]
    )
    def test_a_ledger_that_dies_at_any_moment_loses_nothing_and_costs_at_most_a_repeat(
        self, regal_sandbox, tmp_path, after
    ):
        path = tmp_path / "ledger.db"
        rows = [opted(number, number % 2, 5, plan=number) for number in range(40)]
        options = {"sync": False, "only_changed": True, "outage_patience": 0.1}
        with suppress(LedgerError):
            run_sync(rows, regal_sandbox, "r", path, engine=dying(path, after), **options)
        hours_pass(path)
        report = run_sync(rows, regal_sandbox, "r", path, number=2, **options)
        assert (report.acknowledged, report.read) == (40, 40)
        assert run_sync(rows, regal_sandbox, "later", path, **options).skips == {"unchanged": 40}
        assert {rest[3] for rest in known(path).values()} == {"acknowledged"}
        arrived = Counter(event["body"]["userId"] for event in regal_sandbox.events(stored=True))
        assert max(arrived.values()) <= 2


class TestOnlyChanged:
    def test_unchanged_contacts_are_skipped(self, run, regal_sandbox):
        rows = [contact(number, plan="a") for number in range(5)]
        assert run(rows, only_changed=True).acknowledged == 5
        rows[3]["plan"] = "b"
        report = run(rows, only_changed=True)
        assert (report.acknowledged, report.skips) == (1, {"unchanged": 4})
        assert run(rows, only_changed=True).skips == {"unchanged": 5}

    def test_a_row_that_differs_only_in_what_is_not_sent_is_unchanged(self, run):
        run([contact(1, noise=1)], only_changed=True, mapping={"noise": None})
        assert run([contact(1, noise=2)], only_changed=True, mapping={"noise": None}).skips == {"unchanged": 1}

    def test_a_row_that_is_written_otherwise_and_sends_the_same_is_unchanged(self, run):
        run([contact(1)], only_changed=True)
        assert run([{"phone": "(212) 555-0001", "user_id": "u1"}], only_changed=True).skips == {"unchanged": 1}

    def test_with_other_options_it_is_another_row(self, run):
        run([contact(1, plan="5")], only_changed=True)
        assert run([contact(1, plan="5")], only_changed=True).skips == {"unchanged": 1}
        report = run([contact(1, plan="5")], only_changed=True, mapping={"plan": "traits.tier"})
        assert report.acknowledged == 1

    def test_what_regal_refused_is_tried_again(self, run, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"requests": [1]}, "do": {"status": 400}}])
        assert run([contact(1)], only_changed=True, max_rejected=1).rejected == 1
        assert run([contact(1)], only_changed=True).acknowledged == 1

    def test_a_contact_whose_opt_in_is_withheld_is_looked_at_again(self, run, regal_sandbox):
        row = opted(1, True, None)
        run([row], only_changed=True)
        assert run([row], only_changed=True).skips == {"unchanged": 1}
        assert run([{**row, "sms_opt_in_at": at(5)}], only_changed=True).acknowledged == 1
        assert told(regal_sandbox) == [("u1", "sms", True)]

    @pytest.mark.parametrize(
        ("rows", "options", "reason"),
        [
            ([contact(1), contact(2), contact(1, x=1)], {}, "the key: is in more than one row"),
            ([contact(2), {"phone": phone(1), "user_id": None}, contact(3, user_id="")], {}, "user_id: is empty"),
            ([contact(1, t=1), contact(2, t=2), contact(3, t=1)], {"key": "t"}, "the key: is in more than one row"),
        ],
        ids=["twice", "empty", "own key"],
    )
    def test_a_key_that_is_missing_or_stands_twice_is_rejected_in_every_row(
        self, run, regal_sandbox, rows, options, reason
    ):
        report = run(rows, only_changed=True, max_rejected=2, **options)
        assert (report.rejected, report.acknowledged) == (2, 1)
        assert reason in str(report.reasons)
        assert [event["body"]["userId"] for event in regal_sandbox.events()] == ["u2"]


class TestMessageIds:
    def test_within_one_delivery_the_first_row_is_sent(self, run, regal_sandbox):
        rows = [contact(1, message_id="m1"), contact(2, message_id="m2"), contact(3, message_id="m1"), contact(4)]
        report = run(rows, call="track")
        assert (report.acknowledged, report.skips) == (3, {"duplicate": 1})
        assert sorted(event["body"]["userId"] for event in regal_sandbox.events()) == ["u1", "u2", "u4"]

    def test_across_runs_it_is_sent_once(self, run, regal_sandbox):
        run([contact(1, message_id="m1")], call="track")
        report = run([contact(1, message_id="m1"), contact(1, message_id="m2")], call="track")
        assert (report.acknowledged, report.skips) == (1, {"duplicate": 1})

    def test_one_of_which_nobody_knows_blocks_later_runs_unless_repeats_are_allowed(self, run, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"requests": [1]}, "do": {"status": 500}}])
        assert run([contact(1, message_id="m1")], call="track").unknown == 1
        assert run([contact(1, message_id="m1")], call="track").skips == {"duplicate": 1}
        assert run([contact(1, message_id="m1")], call="track", guarantee="at_least_once").acknowledged == 1
        assert run([contact(1, message_id="m1")], call="track", guarantee="at_least_once").skips == {"duplicate": 1}

    def test_a_delivery_that_stops_gives_the_ids_back_that_it_did_not_send(self, run, regal_sandbox):
        rows = [contact(number, message_id=f"m{number}") for number in range(60)]
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 429, "retry_after": 900}}])
        with pytest.raises(RetryLaterError):
            run(rows, call="track", outage_patience=0.1)
        regal_sandbox.set_faults([])
        assert run(rows, call="track").acknowledged == 60


class TestKnownRejections:
    def test_what_an_earlier_run_rejected_is_shown_and_fails_a_later_one_all_the_same(self, run, regal_sandbox):
        rows = [contact(1), contact(2, phone="555")]
        with pytest.raises(TooManyFailedRowsError) as first:
            run(rows, of_run="first")
        assert (first.value.report.rejected, first.value.report.known) == (1, 0)
        with pytest.raises(TooManyFailedRowsError, match="1 rejected, more than max_rejected=0") as second:
            run(rows)
        assert (second.value.report.rejected, second.value.report.known) == (1, 1)
        with pytest.raises(TooManyFailedRowsError, match="2 rejected, more than max_rejected=1") as third:
            run([*rows, contact(3, phone="556")], max_rejected=1)
        assert (third.value.report.rejected, third.value.report.known) == (2, 1)

    def test_a_clear_of_the_same_run_counts_it_again(self, run):
        for epoch in range(2):
            with pytest.raises(TooManyFailedRowsError):
                run([contact(2, phone="555")], of_run="same", epoch=epoch, number=epoch + 1)

    def test_what_regal_refuses_is_known_by_what_was_sent(self, run, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])
        with pytest.raises(TooManyFailedRowsError):
            run([contact(1)], call="track")
        assert run([contact(1)], call="track", max_rejected=1).known == 1
        assert run([contact(1, plan="new")], call="track", max_rejected=1).known == 0


class TestTypeDrift:
    def test_a_value_of_another_type_than_the_first_is_invalid(self, run, regal_sandbox):
        run([contact(1, plan=5, tags=["a"])])
        report = run([contact(1, plan="5"), contact(2, plan=6.5, tags=None), contact(3, tags="a")], max_rejected=2)
        assert (report.acknowledged, report.rejected) == (1, 2)
        assert (
            f"traits.plan: type_drift: is text, but was sent as a number since {NOW:%Y-%m-%d %H:%M} UTC, which Regal "
            "keeps. Cast it, or accept the new type: airflow regal contract accept traits.plan text"
        ) in report.reasons

    def test_it_is_noticed_within_one_delivery(self, run):
        report = run([contact(1, plan=5), contact(2, plan="5"), contact(3, plan=True)], max_rejected=2)
        assert report.rejected == 2
        assert "is text, but was sent as a number in earlier rows, which Regal keeps" in str(report.reasons)

    def test_an_accepted_type_is_the_right_one_from_then_on(self, run, ledger_path):
        run([contact(1, plan=5)])
        with closing(open_database(ledger_path)) as database:
            assert Account(database, account=ACCOUNT).accept_type("traits.plan", "text")
        assert run([contact(1, plan="5"), contact(2, plan=5)], max_rejected=1).rejected == 1

    def test_each_event_has_types_of_its_own(self, run):
        run([contact(1, amount=5)], call="track", event="A")
        assert run([contact(1, amount="5")], call="track", event="B").acknowledged == 1
        assert run([contact(1, amount="5")], call="track", event="A", max_rejected=1).rejected == 1

    @pytest.mark.parametrize("name", ["plan" * 60, "é" * 190, " plan "], ids=["long", "long in bytes", "spaces"])
    @pytest.mark.parametrize("call", ["identify", "track"])
    def test_a_name_that_the_ledger_keeps_as_a_hash_has_a_type_as_well(self, run, name, call):
        event = {"call": call} if call == "identify" else {"call": call, "event": "A"}
        run([contact(1, **{name: 5})], **event)
        assert run([contact(1, **{name: "5"})], max_rejected=1, **event).rejected == 1
        assert run([contact(1, **{name: 6})], **event).acknowledged == 1


def test_withheld_consents_are_logged_with_their_reason(run, ledger):
    run([opted(1, False, 6), opted(1, True, 5)], of_run="r")
    (line,) = [line for line in ledger.consent_log("r") if line.status == "withheld"]
    assert (line.identifier, line.channel, line.subscribed) == (phone(1), "sms", 1)
    assert "a newer decision of this person is on record" in line.reason


def test_the_ledger_is_closed_whatever_happens(run, tmp_path):
    run([contact(1)])
    assert not list(tmp_path.glob("ledger.db-*"))
