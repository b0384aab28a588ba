"""Rows against a contract: violating rows are rejected and kept, the rest is sent; opt-outs are always sent."""

from __future__ import annotations

from datetime import date

import pytest

from airflow_provider_regal.errors import RetryLaterError, TooManyFailedRowsError
from airflow_provider_regal.events import Identify, Page, Track
from airflow_provider_regal.sources.marks import CALL_MARK, EVENT_MARK, ROW_MARK, Marked
from tests.delivery.consents import IP, NOW, at, no, phone, told, yes

PLAN = {"required": ["plan"], "properties": {"plan": {"type": "string"}}, "additionalProperties": False}
CONTACTS = {"traits": PLAN}
LESSONS = {
    "events": {
        "Lesson Booked": {
            "required": ["lesson_id"],
            "properties": {"lesson_id": {"type": "integer"}, "on": {"type": "string", "format": "date"}},
            "additionalProperties": False,
        },
        "pageview": {"required": ["url"]},
    }
}


@pytest.fixture
def run(deliver):
    runs = iter(range(1_000))

    def run(rows, *, of_run=None, contract=LESSONS, **options):
        of_run = of_run or f"run-{next(runs)}"
        return deliver(rows, of_run=of_run, contract=contract, max_rejected=1.0, **options)

    return run


def rejected(ledger):
    """What is kept of rejected rows: number, field and message."""
    return [
        tuple(row) for row in ledger.query("SELECT position, field, message FROM regal_outcomes WHERE reason='invalid'")
    ]


def sent_ids(regal):
    return [event["body"].get("userId") for event in regal.events()]


def test_a_row_that_does_not_meet_it_is_rejected_with_all_that_is_wrong(run, regal_sandbox, ledger):
    rows = [
        {"user_id": "u1", "lesson_id": 1, "on": date(2026, 3, 2)},
        {"user_id": "u2", "lessonId": "Jane Doe"},
        {"user_id": "u3", "lesson_id": "3"},
    ]
    report = run(rows)
    assert (report.acknowledged, report.rejected) == (1, 2)
    assert sent_ids(regal_sandbox) == ["u1"]
    assert rejected(ledger) == [
        (
            2,
            "properties.lesson_id",
            "properties.lesson_id: required by the contract, missing; "
            "properties.lessonId: is not in the contract (did you mean 'lesson_id'?)",
        ),
        (3, "properties.lesson_id", "properties.lesson_id: is text, but the contract requires a whole number"),
    ]


def test_what_is_checked_is_what_regal_would_get(run):
    rows = [{"user_id": "u1", "id": "7", "day": "20260302"}]
    options = {"types": {"id": int, "day": date}, "mapping": {"id": "properties.lesson_id", "day": "properties.on"}}
    assert run(rows, **options).acknowledged == 1
    assert run(rows).rejected == 1


def test_a_null_is_missing_unless_it_is_sent(run):
    rows = [{"user_id": "u1", "lesson_id": None}]
    assert "lesson_id: required by the contract, missing" in str(run(rows).reasons)
    assert "lesson_id: is null, but the contract requires a whole number" in str(run(rows, send_nulls=True).reasons)


def test_an_event_of_another_name_is_rejected(run):
    rows = [{"user_id": "u1", "event": "Lesson booked", "lesson_id": 1}, {"user_id": "u2", "event": "Lesson Booked"}]
    assert set(run(rows, event=None).reasons) == {
        "event: is not in the contract (did you mean 'Lesson Booked'?)",
        "properties.lesson_id: required by the contract, missing",
    }


@pytest.mark.parametrize("more", [{}, {"sms_opt_in": None}], ids=["quick", "with consent"])
def test_contacts_are_checked_by_their_traits(run, more):
    rows = [{"user_id": "u1", "phone": phone(1), "plan": "gold", **more}, {"user_id": "u2", "plan": 5, **more}]
    report = run(rows, call="identify", contract=CONTACTS)
    assert (report.acknowledged, set(report.reasons)) == (
        1,
        {"traits.plan: is a number, but the contract requires text"},
    )


def test_pages_are_checked_by_regals_name(run):
    rows = [{"user_id": "u1", "url": "/"}, {"user_id": "u2", "name": "Pricing"}]
    report = run(rows, call="page")
    assert (report.acknowledged, report.rejected) == (1, 1)


def test_events_that_are_written_already_are_checked_each_by_its_own_schema(run):
    rows = [
        Track(event="Lesson Booked", user_id="a", properties={"lesson_id": 1}),
        Track(event="Lesson Booked", user_id="b", properties={"lesson": 1}),
        Page(user_id="c", properties={"url": "/"}),
        Page(user_id="d"),
        Identify(user_id="e", traits={"plan": "gold"}),
        Identify(user_id="f", traits={"tariff": "gold"}),
    ]
    report = run(rows, event=None, contract=CONTACTS | LESSONS)
    assert (report.acknowledged, report.rejected) == (3, 3)


def test_messages_of_segment_are_checked(run):
    message = {"user_id": "a", "traits": {"plan": 5}}
    report = run([Marked({EVENT_MARK: "identify", ROW_MARK: message})], event=None, contract=CONTACTS | LESSONS)
    assert report.rejected == 1


SAYS_NO = {"user_id": "u1", "phone": phone(1), "sms_opt_in": False}


class TestOptOuts:
    def test_the_opt_out_of_a_row_that_does_not_meet_it_is_sent(self, run, regal_sandbox):
        report = run([SAYS_NO, {"user_id": "u2", "plan": "gold"}], call="identify", contract=CONTACTS)
        assert (report.acknowledged, report.rejected) == (1, 1)
        assert told(regal_sandbox) == [(None, "sms", False)]
        assert regal_sandbox.contact(phone=phone(1))["phones"][phone(1)]["sms"]["status"] == "Unsubscribed"

    def test_one_that_also_says_yes_sends_the_no_alone(self, run, regal_sandbox):
        row = {**SAYS_NO, "voice_opt_in": True, "voice_opt_in_at": at(1), "voice_opt_in_ip": IP}
        run([row], call="identify", contract=CONTACTS)
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_it_bars_an_older_yes_in_a_row_that_meets_it(self, run, regal_sandbox):
        says_yes = {"sms_opt_in": True, "sms_opt_in_at": at(1), "sms_opt_in_ip": IP}
        run([SAYS_NO, {**SAYS_NO, **says_yes, "plan": "gold"}], call="identify", contract=CONTACTS)
        assert [one for one in told(regal_sandbox) if one[2]] == []

    def test_one_in_a_named_event_is_sent_likewise(self, run, regal_sandbox):
        run([SAYS_NO])
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_one_that_is_owed_is_sent_though_it_has_no_traits(self, run, sync, regal_sandbox):
        regal_sandbox.set_faults([{"do": {"status": 503, "retry_after": 900}}])
        with pytest.raises(RetryLaterError):
            sync([no(1)], outage_patience=0.1)
        regal_sandbox.set_faults([])
        report = run([{"user_id": "u2", "plan": "gold"}], call="identify", contract=CONTACTS)
        assert (report.acknowledged, report.rejected) == (1, 0)
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_an_event_that_stands_for_an_opt_in_is_not_checked_when_it_is_redelivered(
        self, sync, redeliver, regal_sandbox
    ):
        regal_sandbox.set_faults([{"do": {"status": 400}}])
        with pytest.raises(TooManyFailedRowsError):
            sync([yes(1)], of_run="run", sync={"as_event": "Opted In"}, max_refused=None)
        regal_sandbox.set_faults([])
        assert redeliver(contract=CONTACTS | LESSONS, now=NOW).acknowledged == 1


def test_a_cleared_task_tries_the_rejected_rows_again_under_the_corrected_contract(run, deliver, regal_sandbox):
    rows = [{"user_id": "u1", "lesson_id": 1}, {"user_id": "u2", "lesson_id": 2, "room": 5}]
    with pytest.raises(TooManyFailedRowsError, match=r"properties\.room: is not in the contract"):
        deliver(rows, contract=LESSONS)
    looser = {"events": {"Lesson Booked": {"required": ["lesson_id"]}}}
    deliver(rows, contract=looser, epoch=1, number=2)
    assert sent_ids(regal_sandbox) == ["u1", "u2"]


def test_dead_letters_are_checked_again(run, redeliver, regal_sandbox):
    run([{"user_id": "u1", "lesson": 1}], of_run="run")
    added = {"fix": lambda row: {**row, "lesson_id": row["lesson"]}, "event": "Lesson Booked"}
    with pytest.raises(TooManyFailedRowsError, match=r"properties\.lesson: is not in the contract"):
        redeliver(contract=LESSONS, **added)
    rename = {"fix": lambda row: {"user_id": row["user_id"], "lesson_id": row["lesson"]}, "event": "Lesson Booked"}
    assert redeliver("again", of_run="more", contract=LESSONS, **rename).acknowledged == 1


def test_a_letter_of_another_call_is_checked_by_its_own_schema(run):
    rows = [Marked({CALL_MARK: "identify", ROW_MARK: {"user_id": "a", "plan": 5}})]
    assert run(rows, contract=CONTACTS | LESSONS).rejected == 1


def test_a_contact_that_has_not_changed_is_not_checked_again(run):
    rows = [{"user_id": "u1", "plan": "gold"}]
    run(rows, call="identify", contract=None, only_changed=True)
    stricter = {"traits": {"properties": {"plan": {"enum": ["silver"]}}}}
    assert run(rows, call="identify", contract=stricter, only_changed=True).skips == {"unchanged": 1}


def test_a_rejected_row_takes_no_message_id(run, regal_sandbox):
    rows = [{"user_id": "u1", "message_id": "m1"}, {"user_id": "u1", "message_id": "m1", "lesson_id": 1}]
    assert run(rows).acknowledged == 1
