"""A plan sends opt-outs, keeps the rest, and shows samples of what it keeps."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from airflow_provider_regal.errors import (
    FixSourceError,
    PlanError,
    RetryLaterError,
    TooManyFailedRowsError,
)
from airflow_provider_regal.events import Identify, Track
from tests.delivery.consents import NOW, at, phone, told, yes

OUTAGE = [{"on": {"every": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}]
NO = {"sms_opt_in": False, "sms_opt_in_at": at(6)}


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": phone(number), "plan": "gold", **more}


def events(count, first=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(first, first + count)]


def bodies(regal):
    return [event["body"] for event in regal.events() if event["stored"]]


class TestThePlan:
    def test_shows_masked_samples_and_counts_and_nothing_personal(self, plan, caplog):
        caplog.set_level("INFO", "airflow_provider_regal")
        rows = [contact(n, sms_opt_in=True, secret="hidden") for n in range(50)]
        report = plan([*rows, {"phone": "hidden"}], call="identify", max_rejected=1).as_dict()
        assert len(report["samples"]) == 3
        assert report["samples"][0].startswith("row 1: identify {")
        assert "plan" in report["samples"][0]
        assert sum(report["withheld"].values()) == report["opt_ins_withheld"] == 50
        assert sum(report["reasons"].values()) == 1
        assert (report["left"], report["status"]) == (50, "planned")
        assert len(json.dumps(report)) < 2_000
        for text in (json.dumps(report), caplog.text):
            assert "hidden" not in text
            assert "+1212" not in text
            assert "u0" not in text

    def test_counts_what_the_ledger_would_not_let_through(self, plan, send, deliver):
        deliver([{"user_id": "u", "message_id": "m1"}], of_run="before")
        planned = plan([{"user_id": "u", "message_id": f"m{number}"} for number in (1, 2)])
        assert (planned.left, planned.skips) == (1, {"duplicate": 1})
        assert send(planned).acknowledged == 1

    def test_counts_what_regal_will_do_that_the_sender_may_not_expect(self, plan, send):
        planned = plan([contact(1, phone="12")], call="identify", on_invalid_phone="drop")
        assert list(planned.notes.values()) == [1]
        assert send(planned).notes == planned.notes

    def test_fails_on_a_guard_and_keeps_nothing(self, plan, ledger, send):
        with pytest.raises(FixSourceError, match="min_rows=5"):
            plan(events(2), min_rows=5)
        assert (ledger.delivery("plan-0").state, ledger.rows("plan-0")) == ("failed", [])

    def test_fails_on_too_many_rejected_rows_and_keeps_no_row(self, plan, send, ledger, regal_sandbox):
        with pytest.raises(TooManyFailedRowsError, match="1 rejected, more than max_rejected=0"):
            plan([*events(2), {}], of_run="run")
        assert (ledger.delivery().state, ledger.rows()) == ("failed", [])
        with pytest.raises(PlanError, match="is not a complete plan"):
            send(ledger.delivery().id)
        planned = plan(events(2), of_run="run", epoch=1)
        assert planned.left == 2, "a clear plans again, for events, too"

    def test_a_retry_of_a_plan_that_is_complete_keeps_it(self, plan, send):
        planned = plan(events(2), of_run="run")
        again = plan(lambda: pytest.fail("it is read again"), of_run="run", number=2)
        assert (again.delivery, again.status, again.left) == (planned.delivery, "planned", 2)
        assert send(again).acknowledged == 2

    def test_without_any_row_to_send_can_be_sent(self, plan, send):
        assert send(plan([])).status == "finished"


class TestOptOuts:
    def test_are_sent_by_the_plan_alone_and_not_again(self, plan, send, ledger, regal_sandbox):
        planned = plan([contact(1, **NO), contact(2), {"phone": phone(3), **NO}], call="identify", now=NOW)

        assert (planned.acknowledged, planned.left) == (0, 3)
        assert regal_sandbox.stats()["requests"] == planned.requests == 2
        assert sorted(told(regal_sandbox)) == [(None, "sms", False)] * 2
        assert [body.keys() & {"userId", "plan"} for body in bodies(regal_sandbox)] == [set(), set()]
        assert [line.status for line in ledger.consent_log()] == ["acknowledged"] * 2

        sent = send(planned, now=NOW)

        assert (sent.acknowledged, sent.skipped, sent.requests) == (3, 0, 5)
        assert len(told(regal_sandbox)) == 2
        assert sorted(body["traits"].get("plan", "") for body in bodies(regal_sandbox)[2:]) == ["", "gold", "gold"]
        assert regal_sandbox.contact(user_id="u1")["phones"][phone(1)]["sms"]["status"] == "Unsubscribed"

    def test_are_sent_by_a_plan_of_events_too(self, plan, send, regal_sandbox):
        out = Identify(user_id="u1", phone=phone(1), optIn=[{"channel": "sms", "subscribed": False}])
        planned = plan([out, Track(user_id="u2", event="Booked")], now=NOW)
        assert (told(regal_sandbox), planned.left) == ([(None, "sms", False)], 2)
        assert send(planned, now=NOW).acknowledged == 2
        assert str(bodies(regal_sandbox)).count("smsOptIn") == 1

    def test_of_rejected_rows_and_owed_ones_are_sent_too(self, plan, deliver, regal_sandbox):
        regal_sandbox.set_faults(OUTAGE)
        with pytest.raises(RetryLaterError):
            deliver([contact(1, **NO)], call="identify", of_run="before", now=NOW, outage_patience=0.1)
        regal_sandbox.set_faults([])
        planned = plan([{"phone": phone(2), "email": "no mail", **NO}], call="identify", max_rejected=1, now=NOW)
        assert (planned.rejected, planned.left, planned.owed_sent, planned.opt_outs_owed) == (1, 0, 1, 0)
        assert len(told(regal_sandbox)) == 2

    def test_without_a_time_are_not_revived_by_the_send(self, plan, send, sync, regal_sandbox):
        """It counts as given when the plan was read; whoever says yes after that is not opted out again."""
        planned = plan([contact(1, sms_opt_in=False)], call="identify", now=NOW)
        later = NOW + timedelta(hours=1)
        sync([{**yes(1), "timestamp": (NOW + timedelta(minutes=5)).isoformat()}], now=later)
        send(planned, now=later)
        assert [subscribed for _, _, subscribed in told(regal_sandbox)] == [False, True]

    def test_that_regal_does_not_take_fail_the_plan(self, plan, regal_sandbox, ledger):
        regal_sandbox.set_faults([{"on": {"every": 1}, "do": {"status": 400, "store": False}}])
        with pytest.raises(TooManyFailedRowsError, match="with an opt-out"):
            plan([contact(1, **NO)], call="identify", max_rejected=1.0, max_refused=None, now=NOW)
        assert ledger.delivery("plan-0").state == "failed"

    def test_are_sent_once_by_a_plan_that_is_resumed(self, plan, send, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 2}, "do": {"status": 503, "retry_after": 900, "store": False}}])
        rows = [contact(1, **NO), contact(2, **NO), contact(3)]
        with pytest.raises(RetryLaterError):
            plan(rows, call="identify", of_run="run", now=NOW, outage_patience=0.1, max_connections=1)
        regal_sandbox.set_faults([])
        planned = plan(lambda: pytest.fail("it is read again"), call="identify", of_run="run", number=2, now=NOW)
        assert (planned.status, planned.left, len(told(regal_sandbox))) == ("planned", 3, 2)
        assert send(planned, now=NOW).acknowledged == 3
        assert len(told(regal_sandbox)) == 2
