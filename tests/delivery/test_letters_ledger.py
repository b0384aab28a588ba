"""Dead letters and the ledger: nothing older follows what is newer, and what may have arrived is known."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest

from airflow_provider_regal.errors import ReadDeadLettersError
from airflow_provider_regal.journal.folder_letters import claims_in_folder
from tests.delivery.consents import IP, NOW, at, known, no, phone, told, yes
from tests.delivery.redelivering import Redeliver

REFUSE = {"status": 400}
LOSE = {"status": 500}


@pytest.fixture
def redeliver(deliver, folder):
    return Redeliver(deliver, folder.parent)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def contact(number, plan, opt_in=None, minute=5):
    row = {"user_id": f"u{number}", "phone": phone(number), "plan": plan}
    if opt_in is not None:
        row |= {"sms_opt_in": opt_in, "sms_opt_in_at": minute and at(minute), "sms_opt_in_ip": IP}
    return row


def failing(deliver, regal, rows, fault=REFUSE, now=NOW, **options):
    regal.set_faults([{"on": {"from": 1}, "do": fault}])
    with suppress(ReadDeadLettersError):
        deliver(rows, now=now, **{"max_unknown": 1.0, **options})
    regal.set_faults([])


def later(days):
    return NOW + timedelta(days=days)


def test_consent_that_is_stale_by_now_is_withheld_and_the_rest_goes(deliver, redeliver, regal_sandbox, path):
    failing(deliver, regal_sandbox, [contact(1, "gold", True, 5)], call="identify", ledger=path)
    deliver([contact(1, "gold", False, 9)], call="identify", of_run="newer", ledger=path, now=later(1))

    report = redeliver(ledger=path, now=later(2))

    assert (report.acknowledged, report.opt_ins_withheld) == (1, 1)
    assert told(regal_sandbox) == [("u1", "sms", False)]


def test_an_opt_out_without_a_time_counts_as_given_when_it_was_first_read(deliver, redeliver, regal_sandbox, path):
    failing(deliver, regal_sandbox, [contact(1, "gold", False, None)], call="identify", ledger=path)
    newer = {**contact(1, "gold", True), "sms_opt_in_at": later(1).isoformat()}
    deliver([newer], call="identify", of_run="newer", ledger=path, now=later(1))

    redeliver(ledger=path, now=later(2))

    assert told(regal_sandbox) == [("u1", "sms", True)]


def test_a_contact_that_was_sent_anew_since_is_skipped_but_its_opt_out_is_not(deliver, redeliver, regal_sandbox, path):
    options = {"call": "identify", "ledger": path, "only_changed": True, "key": "id", "mapping": {"id": "user_id"}}

    def row(number, plan, **more):
        told = {"id": f"u{number}", "phone": phone(number), "plan": plan}
        return {**told, **more}

    no_more = {"sms_opt_in": False, "sms_opt_in_at": at(3), "sms_opt_in_ip": IP}
    failing(deliver, regal_sandbox, [row(1, "old"), row(2, "old", **no_more), row(3, "old")], **options)
    deliver([row(1, "new"), row(2, "new")], of_run="newer", now=later(1), **options)

    report = redeliver(ledger=path, now=later(2))

    assert (report.acknowledged, report.skips) == (2, {"overtaken": 1})
    plans = {contact["user_id"]: contact["traits"]["plan"] for contact in regal_sandbox.contacts()}
    assert plans == {"u1": "new", "u2": "new", "u3": "old"}
    assert [word[1:] for word in told(regal_sandbox)] == [("sms", False)]


@pytest.mark.parametrize("status", ["unknown", "rejected"])
def test_an_event_that_may_have_arrived_is_sent_only_when_unknown_is_named(
    deliver, redeliver, regal_sandbox, path, status
):
    rows = [{"user_id": "u1", "message_id": "m1"}]
    failing(deliver, regal_sandbox, rows, LOSE, ledger=path)
    if status == "rejected":  # another run could not send it either
        failing(deliver, regal_sandbox, [{**rows[0], "timestamp": "x"}], of_run="other", ledger=path)
        report = redeliver("other", ledger=path, fix=lambda row: {**row, "timestamp": None}, event="Lesson Booked")
        assert (report.acknowledged, report.skips) == (0, {"repeated": 1})
    else:
        report = redeliver(ledger=path, status="unknown")
        assert report.acknowledged == 1, report.as_dict()
        failing(deliver, regal_sandbox, rows, of_run="other", ledger=path)
        assert regal_sandbox.stats()["stored"] == 1


def test_an_event_that_arrived_by_another_run_is_not_sent_even_if_unknown_is_named(
    deliver, redeliver, regal_sandbox, path
):
    rows = [{"user_id": "u1", "message_id": "m1"}]
    failing(deliver, regal_sandbox, rows, LOSE, ledger=path)
    assert redeliver(ledger=path, status="unknown").acknowledged == 1
    failing(deliver, regal_sandbox, rows, LOSE, of_run="copy")  # knew of no ledger
    report = redeliver("copy", of_run="third", ledger=path, status="unknown")
    assert report.skips == {"repeated": 1}


def test_opt_ins_of_a_sync_in_doubt_are_sent_when_named_and_only_with_the_ledger(
    sync, deliver, redeliver, regal_sandbox, ledger_path, caplog
):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": LOSE}])
    with suppress(ReadDeadLettersError):
        sync([yes(1), yes(2)], sync={"as_event": "Opted In"}, of_run="first", max_unknown=1.0)
    regal_sandbox.set_faults([])
    sync([yes(1), no(2, 9)], sync={"as_event": "Opted In"}, of_run="second")  # in doubt; somebody has opted out since
    assert told(regal_sandbox) == [("u2", "sms", False)]

    assert redeliver("first", status="unknown", now=NOW).read == 0
    assert "opt-ins of a sync: only with its ledger" in caplog.text

    report = redeliver("first", of_run="third", status="unknown", ledger=ledger_path, now=NOW, fix=lambda row: {})
    assert (report.acknowledged, report.skips) == (1, {"stale": 1})
    assert told(regal_sandbox)[1:] == [("u1", "sms", "Opted In")]
    of_phones = [entry for (key, _), entry in known(ledger_path).items() if not key.startswith("user:")]
    assert {entry[3] for entry in of_phones} == {"acknowledged"}


def test_rows_of_a_sync_stay_and_are_told_to_run_it_again(sync, redeliver, regal_sandbox, folder, caplog):
    with suppress(ReadDeadLettersError):
        sync([yes(1, ip=None)], of_run="first")
    assert redeliver("first").read == 0
    assert "run the sync again, it tries what was rejected" in caplog.text
    assert claims_in_folder(folder.parent / "first") == {}


def test_what_regal_refuses_again_fails_the_redelivery_though_the_ledger_knows_it(
    deliver, redeliver, regal_sandbox, path
):
    failing(deliver, regal_sandbox, [contact(1, "gold")], call="identify", ledger=path)
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": REFUSE}])
    with pytest.raises(ReadDeadLettersError):
        redeliver(ledger=path)


def test_a_redelivery_through_a_ledger_counts_every_letter(deliver, redeliver, regal_sandbox, path):
    rows = [contact(number, "gold", bool(number % 2)) for number in range(100, 110)]
    failing(deliver, regal_sandbox, rows, call="identify", ledger=path)
    report = redeliver(ledger=path)
    assert Counter(report.as_dict())["read"] == report.acknowledged == 10
