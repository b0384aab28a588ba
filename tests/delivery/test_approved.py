"""Exactly what was approved is sent, once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_regal.delivery.settings import SyncSettings
from airflow_provider_regal.errors import (
    PlanError,
    ResumeError,
    RetryLaterError,
    TooManyFailedRowsError,
)
from airflow_provider_regal.events import Identify, Track
from airflow_provider_regal.ledger.admin.forgetting import Forgetting
from airflow_provider_regal.ledger.admin.retention import KeptFor, prune
from airflow_provider_regal.ledger.deliveries import Deliveries
from airflow_provider_regal.ledger.people.suppressions import suppress
from tests.databases import EVERY, on
from tests.delivery.consents import IP, NOW, adds_up, at, kinds, no, phone, told, yes

OUTAGE = [{"on": {"every": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}]
YES = {"sms_opt_in": True, "sms_opt_in_at": at(5), "sms_opt_in_ip": IP}
NO = {"sms_opt_in": False, "sms_opt_in_at": at(6)}


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": phone(number), "plan": "gold", **more}


def events(count, first=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(first, first + count)]


def arrived(regal):
    """Who was sent, in order."""
    return [event["body"].get("userId") for event in regal.events() if event["stored"]]


class TestWhatWasApproved:
    def test_is_sent_and_nothing_is_before_that(self, plan, send, ledger, regal_sandbox):
        report = plan([*events(5), {"amount": 1}], max_rejected=1)
        assert (report.status, report.read, report.left, report.rejected, report.requests) == ("planned", 6, 5, 1, 0)
        assert regal_sandbox.stats()["requests"] == 0
        assert ledger.delivery("plan-0").state == "planned"
        assert ledger.delivery("plan-0").holder is None
        assert ledger.query("SELECT * FROM regal_types") == [], "a type counts once it was sent"

        sent = send(report)

        assert (sent.status, sent.delivery, sent.acknowledged, sent.rejected) == ("finished", report.delivery, 5, 1)
        assert adds_up(sent)
        assert sorted(arrived(regal_sandbox)) == [f"u{number}" for number in range(5)]
        assert ledger.states("plan-0") == []
        assert ledger.query("SELECT * FROM regal_types") != []

    def test_is_sent_with_the_options_it_was_made_with(self, plan, send, regal_sandbox):
        options = {
            "mapping": {"a": "properties.amount", "b": None, "when": "timestamp"}, "types": {"a": str, "c": "json"},
            "timezone": "America/New_York", "send_nulls": True, "max_event_age": timedelta(hours=3),
        }  # fmt: skip
        row = {"user_id": "u", "a": 7, "b": "secret", "c": '{"d": 1}', "e": None, "when": "2026-11-23 20:30:00"}
        planned = plan([row], now=NOW, **options)
        assert planned.left == 1

        assert send(planned, now=NOW).acknowledged == 1

        (event,) = regal_sandbox.events()
        assert event["body"]["properties"] == {"amount": "7", "c": {"d": 1}, "e": None}
        assert event["body"]["originalTimestamp"].startswith("2026-11-24")

    def test_is_sent_as_contacts_likewise(self, plan, send, ledger, regal_sandbox):
        rows = [contact(1, **YES), contact(2, **{**YES, "sms_opt_in_ip": None}), {"phone": "12"}]
        planned = plan(rows, call="identify", require_ip=False, max_rejected=0.4, now=NOW)
        assert (planned.left, planned.rejected, planned.withheld) == (2, 1, {})
        sent = send(planned, now=NOW)
        assert (sent.acknowledged, sent.rejected, sent.opt_ins_withheld) == (2, 1, 0)
        assert [subscribed for _, _, subscribed in told(regal_sandbox)] == [True, True]

    def test_of_contacts_is_remembered_for_only_changed(self, plan, send, deliver):
        rows = [contact(number) for number in range(4)]
        deliver(rows[:2], call="identify", only_changed=True, of_run="before")
        planned = plan(rows, call="identify", only_changed=True)
        assert (planned.left, planned.skips) == (2, {"unchanged": 2})
        assert send(planned).acknowledged == 2
        again = plan(rows, call="identify", only_changed=True)
        assert (again.left, again.skips) == (0, {"unchanged": 4})
        assert send(again).requests == 0

    def test_of_events_of_each_kind(self, plan, send, regal_sandbox):
        planned = plan(
            [Track(user_id="u1", event="Booked", timestamp=NOW), Identify(user_id="u2", email="a@b.co")], now=NOW
        )
        assert send(planned, now=NOW).acknowledged == 2
        assert {event["name"] for event in regal_sandbox.events()} == {"Booked", None}

    def test_of_a_sync(self, sync, send, ledger, regal_sandbox):
        sync([yes(1), yes(2)])
        planned = sync([no(1, 6), yes(2), yes(3), yes(4, 7)], plan=True, of_run="plan")
        assert kinds(planned) == {"sent": 3, "unchanged": 1, "opt_outs": 1, "opt_ins": 2}
        assert (planned.status, planned.acknowledged, planned.left) == ("planned", 1, 2)
        assert told(regal_sandbox)[2:] == [("u1", "sms", False)]

        sent = send(planned, now=NOW)

        assert (sent.status, sent.acknowledged, sent.requests) == ("finished", 3, 3)
        assert sorted(told(regal_sandbox)[3:]) == [("u3", "sms", True), ("u4", "sms", True)]
        assert sync([no(1, 6), yes(2), yes(3), yes(4, 7)], plan=True).left == 0

    def test_who_vanished_from_a_sync_is_opted_out_once_that_is_approved_and_may_come_back(
        self, sync, send, regal_sandbox
    ):
        removed = {"sync": {"on_removed": "opt_out"}}
        send(sync([yes(1), yes(2)], plan=True, **removed), now=NOW)
        gone = sync([yes(1)], plan=True, **removed)
        assert (gone.left, len(told(regal_sandbox))) == (1, 2)
        send(gone, now=NOW)
        assert told(regal_sandbox)[2:] == [(None, "sms", False)]
        back = sync([yes(1), yes(2)], plan=True, **removed)
        assert send(back, now=NOW).acknowledged == 1
        assert told(regal_sandbox)[3:] == [("u2", "sms", True)]

    def test_a_baseline_is_recorded_by_the_plan_which_leaves_nothing(self, sync, send, regal_sandbox):
        planned = sync([yes(1), no(2)], initial="baseline", plan=True)
        assert (planned.left, planned.skips) == (0, {"recorded": 2})
        assert send(planned, now=NOW).requests == 0
        assert regal_sandbox.stats()["requests"] == 0

    def test_the_options_of_sending_are_those_of_the_sender(self, plan, send, regal_sandbox):
        planned = plan(events(3))
        regal_sandbox.set_faults([{"on": {"every": 1}, "do": {"status": 400, "store": False}}])
        assert send(planned, max_rejected=1.0, max_refused=None, max_connections=1).rejected == 3

    def test_or_those_of_the_plan(self, plan, send, regal_sandbox):
        planned = plan(events(3), max_rejected=1.0)
        regal_sandbox.set_faults([{"on": {"every": 1}, "do": {"status": 400, "store": False}}])
        assert send(planned).rejected == 3


@on(EVERY)
def test_on_every_database(database_url, plan, send):
    rows = [contact(1, **NO), contact(2, **YES), {"user_id": "u", "plan": b"x"}]
    planned = plan(rows, call="identify", of_run="run", max_rejected=1, now=NOW, path=database_url)
    assert (planned.status, planned.left, planned.requests) == ("planned", 2, 1)
    sent = send(planned, now=NOW, path=database_url)
    assert (sent.status, sent.acknowledged, sent.rejected, sent.requests) == ("finished", 2, 1, 3)
    assert send(planned, number=2, now=NOW, path=database_url).status == "nothing_to_do"
    with pytest.raises(PlanError, match="is sent by another task"):
        send(planned, task="other", path=database_url)
    older = plan(rows, call="identify", of_run="run", epoch=1, max_rejected=1, now=NOW, path=database_url)
    plan(rows, call="identify", of_run="run", epoch=2, max_rejected=1, now=NOW, path=database_url)
    with pytest.raises(PlanError, match="was replaced"):
        send(older, now=NOW, path=database_url)


class TestSince:
    """What became known between the plan and its sending counts, whatever was approved."""

    def test_a_newer_opt_out_withholds_the_older_yes(self, plan, send, sync, regal_sandbox):
        planned = plan([contact(1, **YES)], call="identify", now=NOW)
        sync([no(1, 7)])
        sent = send(planned, now=NOW)
        assert (sent.acknowledged, sent.opt_ins_withheld) == (1, 1)
        assert [subscribed for _, _, subscribed in told(regal_sandbox)] == [False]

    def test_a_person_who_is_suppressed_is_skipped(self, plan, send, ledger):
        planned = plan(events(3))
        with ledger.account() as account:
            suppress(account, ["user:u1"], by="test", source="test", note=None)
        sent = send(planned)
        assert (sent.acknowledged, sent.skips) == (2, {"suppressed": 1})

    def test_a_person_who_is_forgotten_is_in_the_plan_no_more(self, plan, send, ledger_path, ledger):
        planned = plan([contact(n) for n in range(3)], call="identify", now=NOW)
        with ledger.account(now=NOW) as account:
            person = Forgetting(account, [phone(1)])
            person.suppress()
            person.erase()
        assert phone(1) not in str(ledger.rows_of_all())
        sent = send(planned, now=NOW)
        assert (sent.acknowledged, sent.skips) == (2, {"suppressed": 1})

    def test_a_message_that_was_sent_meanwhile_is_a_duplicate(self, plan, send, deliver):
        planned = plan([{"user_id": "u", "message_id": "m1"}])
        deliver([{"user_id": "u", "message_id": "m1"}], of_run="another")
        sent = send(planned)
        assert (sent.acknowledged, sent.skips) == (0, {"duplicate": 1})

    def test_an_event_that_is_too_old_by_now_is_rejected(self, plan, send):
        planned = plan([{"user_id": "u", "timestamp": NOW - timedelta(days=6)}], now=NOW)
        with pytest.raises(TooManyFailedRowsError, match="max_event_age"):
            send(planned, now=NOW + timedelta(days=2))

    def test_a_dead_letter_of_the_plan_can_be_redelivered_before_it_is_sent(self, plan, send, redeliver, regal_sandbox):
        planned = plan([*events(1), {"amount": 5}], of_run="run", max_rejected=1)
        again = redeliver(fix=lambda row: {**row, "user_id": "fixed"})
        assert again.acknowledged == 1
        assert arrived(regal_sandbox) == ["fixed"]
        assert send(planned).acknowledged == 1


class TestASecondTime:
    def test_a_plan_that_was_sent_sends_nothing_by_the_same_task(self, plan, send, regal_sandbox):
        for options in ({}, {"call": "identify"}):
            planned = plan(events(2), **options)
            send(planned)
            before = regal_sandbox.stats()["requests"]
            for again in (send(planned, number=2), send(planned, epoch=1)):
                assert (again.status, again.acknowledged) == ("nothing_to_do", 2)
            assert regal_sandbox.stats()["requests"] == before

    def test_a_sender_that_stopped_resumes_by_a_retry_or_a_clear(self, plan, send, regal_sandbox):
        planned = plan(events(60))
        regal_sandbox.set_faults([{"on": {"from": 21}, "do": {"status": 503, "retry_after": 900, "store": False}}])
        with pytest.raises(RetryLaterError):
            send(planned, outage_patience=0.1, max_connections=1)
        regal_sandbox.set_faults([])
        sent = send(planned, epoch=1)
        assert sent.acknowledged == 60
        assert len(arrived(regal_sandbox)) == len(set(arrived(regal_sandbox))) == 60

    def test_a_sender_that_failed_on_a_threshold_is_judged_again_and_sends_nothing(self, plan, send, regal_sandbox):
        planned = plan(events(2))
        regal_sandbox.set_faults([{"on": {"every": 1}, "do": {"status": 400, "store": False}}])
        with pytest.raises(TooManyFailedRowsError):
            send(planned, max_refused=None)
        before = regal_sandbox.stats()["requests"]
        assert send(planned, epoch=1, max_rejected=2).status == "finished"
        assert regal_sandbox.stats()["requests"] == before

    def test_another_task_is_refused(self, plan, send):
        planned = plan(events(2))
        send(planned)
        with pytest.raises(PlanError, match=r"is sent by another task: dag\.send of run run"):
            send(planned, task="other")

    def test_of_two_tasks_at_once_one_is_refused(self, plan, send, ledger, monkeypatch):
        """Both have found that the plan waits; then one takes it."""
        planned = plan(events(2))
        sent = []
        takes = Deliveries.take

        def take(self, record, *args, **options):
            if not sent:
                sent.append(None)
                sent.append(send(planned, task="first"))
            return takes(self, record, *args, **options)

        monkeypatch.setattr(Deliveries, "take", take)
        with pytest.raises(PlanError, match=r"is sent by another task: dag\.first"):
            send(planned, task="second")
        assert sent[1].acknowledged == 2

    def test_a_clear_of_the_plan_of_events_that_were_sent_plans_nothing(self, plan, send, regal_sandbox):
        planned = plan(events(2), of_run="run")
        send(planned)
        again = plan(events(3), of_run="run", epoch=1)
        assert (again.status, again.delivery) == ("nothing_to_do", planned.delivery)
        assert plan(events(3), of_run="run", epoch=1, restart=True).left == 3

    def test_a_clear_of_the_plan_of_events_that_were_sent_in_part_fails(self, plan, deliver, send, regal_sandbox):
        planned = plan(events(60), of_run="run")
        regal_sandbox.set_faults([{"on": {"from": 21}, "do": {"status": 503, "retry_after": 900, "store": False}}])
        with pytest.raises(RetryLaterError):
            send(planned, outage_patience=0.1, max_connections=1)
        with pytest.raises(ResumeError, match="Clear the task that sends it"):
            plan(events(60), of_run="run", epoch=1)
        with pytest.raises(ResumeError, match="Clear the task that sends it"):
            deliver(events(60), of_run="run", epoch=2)  # whose DAG no longer sets plan
        regal_sandbox.set_faults([])
        assert send(planned, number=2).acknowledged == 60

    def test_a_clear_of_the_plan_of_contacts_reads_again(self, plan, send):
        planned = plan([contact(1)], call="identify", of_run="run")
        send(planned)
        again = plan([contact(1), contact(2)], call="identify", of_run="run", epoch=1)
        assert (again.delivery > planned.delivery, again.left) == (True, 2)

    def test_without_plan_a_cleared_task_sends_from_the_source_and_the_plan_is_replaced(
        self, plan, send, deliver, ledger, regal_sandbox
    ):
        planned = plan(events(2), of_run="run")
        assert deliver(events(3), of_run="run", epoch=1).acknowledged == 3
        with pytest.raises(PlanError, match="was replaced"):
            send(planned)

    def test_a_run_that_was_deleted_and_made_again_plans_anew(self, plan, send):
        send(plan(events(2), of_run="run"))
        assert plan(events(2), of_run="run").left == 2


class TestRefused:
    def test_a_plan_that_was_replaced(self, plan, send, ledger):
        planned = plan(events(2), of_run="run")
        newer = plan(events(3), of_run="run", epoch=1)
        assert len(ledger.rows_of_all()) == 3, "the rows of the older one are dropped"
        with pytest.raises(PlanError, match=r"was replaced: .* Nothing was sent\."):
            send(planned)
        assert send(newer).acknowledged == 3

    def test_a_delivery_that_is_no_plan(self, deliver, send):
        with pytest.raises(PlanError, match="is not a plan"):
            send(deliver(events(1)))

    def test_one_that_is_not_there_or_of_another_account(self, plan, send):
        planned = plan(events(1))
        with pytest.raises(PlanError, match="'acme' has no delivery 99"):
            send(99)
        with pytest.raises(PlanError, match=f"'other' has no delivery {planned.delivery}"):
            send(planned, account="other")

    def test_one_that_waited_too_long_before_and_after_it_is_pruned(self, plan, send, ledger):
        planned = plan(events(2), of_run="run", now=NOW)
        later = NOW + timedelta(days=7, hours=1)
        with pytest.raises(PlanError, match="was not sent within 7 days"):
            send(planned, now=later)
        with ledger.account() as account:
            prune(account.database, now=later)
        assert (ledger.delivery().state, ledger.rows()) == ("expired", [])
        with pytest.raises(PlanError, match=r"has expired\. Clear the task with plan=True"):
            send(planned, now=later)
        assert plan(events(2), of_run="run", epoch=1, now=later).left == 2

    def test_one_that_is_not_complete(self, plan, send, ledger, regal_sandbox):
        regal_sandbox.set_faults(OUTAGE)
        with pytest.raises(RetryLaterError):
            plan([contact(1, **NO)], call="identify", of_run="run", now=NOW, outage_patience=0.1)
        with pytest.raises(PlanError, match="is not a complete plan"):
            send(ledger.delivery().id)


def test_a_fresh_plan_is_kept_whatever_else_is_not(plan, send, ledger):
    planned = plan(events(2), of_run="run", now=NOW)
    with ledger.account() as account:
        prune(account.database, now=NOW + timedelta(days=6), kept_for=KeptFor(history_days=0, dead_letter_days=0))
    assert send(planned, now=NOW + timedelta(days=6)).acknowledged == 2


def test_a_plan_that_has_expired_goes_with_the_history(plan, ledger):
    plan([], of_run="run", now=NOW)
    with ledger.account() as account:
        prune(account.database, now=NOW + timedelta(days=8))
        assert ledger.delivery().state == "expired"
        prune(account.database, now=NOW + timedelta(days=30_000))  # holds use the database's clock
    assert ledger.deliveries() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dry_run": True}, "plan and dry_run"),
        ({"call": "identify", "sync": SyncSettings(known_to_regal=True)}, "known_to_regal"),
        ({"plan": "True"}, "plan must be True or False"),
    ],
)
def test_what_does_not_go_with_a_plan(plan, deliver, options, said):
    with pytest.raises(ValueError, match=said):
        deliver([], **{"plan": True, **options})
