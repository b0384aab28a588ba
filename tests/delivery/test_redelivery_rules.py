"""Dead letters and the rules: nothing older follows something newer, and what may have arrived is tracked."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest

from airflow_provider_regal.errors import FixSourceError, TooManyFailedRowsError
from tests.delivery.consents import IP, NOW, at, no, phone, told, yes

REFUSE = {"status": 400}
LOSE = {"status": 500}


def contact(number, plan, opt_in=None, minute=5):
    row = {"user_id": f"u{number}", "phone": phone(number), "plan": plan}
    if opt_in is not None:
        row |= {"sms_opt_in": opt_in, "sms_opt_in_at": minute and at(minute), "sms_opt_in_ip": IP}
    return row


def failing(deliver, regal, rows, fault=REFUSE, now=NOW, **options):
    regal.set_faults([{"on": {"from": 1}, "do": fault}])
    with suppress(TooManyFailedRowsError):
        deliver(rows, now=now, **{"max_unknown": 1.0, **options})
    regal.set_faults([])


def later(days):
    return NOW + timedelta(days=days)


def test_consent_that_is_older_by_now_is_withheld_and_the_rest_goes(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, [contact(1, "gold", True, 5)], call="identify")
    deliver([contact(1, "gold", False, 9)], call="identify", of_run="newer", now=later(1))

    report = redeliver(now=later(2))

    assert (report.acknowledged, report.opt_ins_withheld) == (1, 1)
    assert told(regal_sandbox) == [("u1", "sms", False)]


def test_an_opt_out_without_a_time_counts_as_given_when_it_was_first_read(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, [contact(1, "gold", False, None)], call="identify")
    newer = {**contact(1, "gold", True), "sms_opt_in_at": later(1).isoformat()}
    deliver([newer], call="identify", of_run="newer", now=later(1))

    redeliver(now=later(2))

    assert told(regal_sandbox) == [("u1", "sms", True)]


def test_a_contact_that_was_sent_anew_since_is_skipped_but_its_opt_out_is_not(deliver, redeliver, regal_sandbox):
    options = {"call": "identify", "only_changed": True, "key": "id", "mapping": {"id": "user_id"}}

    def row(number, plan, **more):
        told = {"id": f"u{number}", "phone": phone(number), "plan": plan}
        return {**told, **more}

    no_more = {"sms_opt_in": False, "sms_opt_in_at": at(3), "sms_opt_in_ip": IP}
    failing(deliver, regal_sandbox, [row(1, "old"), row(2, "old", **no_more), row(3, "old")], **options)
    deliver([row(1, "new"), row(2, "new")], of_run="newer", now=later(1), **options)

    report = redeliver(now=later(2))

    assert (report.acknowledged, report.skips) == (2, {"older": 1})
    plans = {contact["user_id"]: contact["traits"]["plan"] for contact in regal_sandbox.contacts()}
    assert plans == {"u1": "new", "u2": "new", "u3": "old"}
    assert [word[1:] for word in told(regal_sandbox)] == [("sms", False)] * 2, "first by the delivery that owed it"


@pytest.mark.parametrize("status", ["unknown", "rejected"])
def test_an_event_that_may_have_arrived_is_sent_only_when_unknown_is_named(deliver, redeliver, regal_sandbox, status):
    rows = [{"user_id": "u1", "message_id": "m1"}]
    failing(deliver, regal_sandbox, rows, LOSE)
    if status == "rejected":  # another run couldn't send it, either
        failing(deliver, regal_sandbox, [{**rows[0], "timestamp": "x"}], of_run="other")
        report = redeliver("other", fix=lambda row: {**row, "timestamp": None}, event="Lesson Booked")
        assert (report.acknowledged, report.skips) == (0, {"duplicate": 1})
    else:
        report = redeliver(status="unknown")
        assert report.acknowledged == 1, report.as_dict()
        failing(deliver, regal_sandbox, rows, of_run="other")
        assert regal_sandbox.stats()["stored"] == 1


def test_an_event_that_arrived_by_another_run_is_not_sent_even_if_unknown_is_named(deliver, redeliver, regal_sandbox):
    row = {"user_id": "u1", "message_id": "m1"}
    failing(deliver, regal_sandbox, [{**row, "timestamp": "x"}], of_run="copy")
    failing(deliver, regal_sandbox, [row], LOSE)
    assert redeliver(status="unknown").acknowledged == 1
    report = redeliver(
        "copy", of_run="third", status=("rejected", "unknown"), fix=lambda row: {**row, "timestamp": None}, event="E"
    )
    assert report.skips == {"duplicate": 1}
    assert regal_sandbox.stats()["stored"] == 1


def test_opt_ins_of_a_sync_in_doubt_are_sent_when_named(sync, redeliver, ledger, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": LOSE}])
    sync([yes(1), yes(2)], sync={"as_event": "Opted In"}, of_run="first", max_unknown=1.0)
    regal_sandbox.set_faults([])
    sync([yes(1), no(2, 9)], sync={"as_event": "Opted In"}, of_run="second")  # in doubt; the person has opted out since
    assert told(regal_sandbox) == [("u2", "sms", False)]

    with pytest.raises(FixSourceError):
        redeliver("first", now=NOW)
    report = redeliver("first", of_run="third", status="unknown", now=NOW, fix=lambda row: {})
    assert (report.acknowledged, report.skips) == (1, {"older": 1})
    assert told(regal_sandbox)[1:] == [("u1", "sms", "Opted In")]
    of_phones = [entry for (key, _), entry in ledger.consents().items() if not key.startswith("user:")]
    assert {entry[3] for entry in of_phones} == {"acknowledged"}


def test_rows_of_a_sync_stay_and_are_told_to_run_it_again(sync, redeliver, ledger, regal_sandbox, caplog):
    with suppress(TooManyFailedRowsError):
        sync([yes(1, ip=None)], of_run="first")
    assert [letter.form for letter in ledger.dead_letters("first")] == ["consent"]
    assert redeliver("first").read == 0
    assert "run the sync again, it tries what was rejected" in caplog.text
    assert [letter.taken_by for letter in ledger.dead_letters("first")] == [None]
    assert sync([yes(1)], of_run="second").acknowledged == 1


def test_what_regal_refuses_again_fails_the_redelivery_though_it_was_rejected_before(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, [contact(1, "gold")], call="identify")
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": REFUSE}])
    with pytest.raises(TooManyFailedRowsError):
        redeliver()


def test_a_redelivery_counts_every_letter(deliver, redeliver, regal_sandbox):
    rows = [contact(number, "gold", bool(number % 2)) for number in range(100, 110)]
    failing(deliver, regal_sandbox, rows, call="identify")
    report = redeliver()
    assert Counter(report.as_dict())["read"] == report.acknowledged == 10


def test_consent_read_by_a_redelivery_bars_like_any_other(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, [contact(1, "gold", True, 5)], call="identify")
    redeliver(now=later(1), fix=lambda row: said_no(row, 9))
    assert told(regal_sandbox) == [("u1", "sms", False)]
    report = deliver([contact(1, "gold", True, 7)], call="identify", of_run="third", now=later(2))
    assert report.opt_ins_withheld == 1
    assert [line.status for line in ledger.consent_log("again")] == ["acknowledged"]


def said_no(row, minute):
    (opt_in,) = row["traits"]["phones"].values()
    opt_in["smsOptIn"] |= {"subscribed": False, "timestamp": at(minute)}
    return row


def test_a_letter_without_evidence_is_sent_without_its_opt_in(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, [contact(1, "gold", True)], call="identify", require_ip=False)
    row = {**contact(2, "gold", True), "phone": "no phone", "sms_opt_in_ip": None}
    failing(deliver, regal_sandbox, [row], call="identify", of_run="other", require_ip=False)
    report = redeliver("other", fix=lambda row: {**row, "phone": phone(2)}, now=later(1))
    assert (report.acknowledged, report.opt_ins_withheld) == (1, 1)
    assert told(regal_sandbox) == []
