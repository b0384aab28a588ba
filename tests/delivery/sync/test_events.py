"""An event that represents an opt-in needs a phone Regal has or gets, and is sent once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_regal.delivery.settings import SyncSettings
from airflow_provider_regal.errors import RetryLaterError, TooManyFailedRowsError
from tests.delivery.consents import NOW, at, kinds, no, phone, told, yes

EVENT = "SMS Consent Given"


@pytest.fixture
def sync(sync):
    def run(rows, **options):
        more = options.pop("sync", {})
        return sync(rows, sync={"as_event": EVENT, **more}, max_event_age=None, **options)

    return run


@pytest.fixture
def identify(deliver):
    runs = iter(range(100))

    def run(rows, **options):
        return deliver(rows, call="identify", of_run=f"identify-{next(runs)}", now=NOW, **options)

    return run


def by_id(number, minute=5, **more):
    """An opt-in without the phone."""
    return yes(number, minute, phone=None, **more)


def test_opt_ins_go_as_the_event_with_their_evidence_and_opt_outs_by_identify(sync, regal_sandbox):
    report = sync([yes(1, text="I agree"), no(2)])
    assert (report.acknowledged, kinds(report)) == (2, {"sent": 2, "opt_outs": 1, "opt_ins": 1})
    assert told(regal_sandbox) == [("u2", "sms", False), ("u1", "sms", EVENT)]
    body = regal_sandbox.events()[1]["body"]
    assert body["properties"] == {"channel": "sms", "ip": "203.0.113.77", "text": "I agree"}
    assert list(body["traits"]["phones"]) == [phone(1)]
    assert body["originalTimestamp"].startswith(at(5)[:10])
    assert kinds(sync([yes(1, text="I agree"), no(2)])) == {"unchanged": 2}


def test_without_a_phone_in_the_row_one_that_regal_acknowledged_for_the_contact_will_do(sync, identify, regal_sandbox):
    identify([{"user_id": "u1", "phone": phone(1)}])
    report = sync([by_id(1), by_id(2)], max_rejected=1, of_run="r")
    assert (report.acknowledged, report.rejected) == (1, 1)
    assert told(regal_sandbox) == [("u1", "sms", EVENT)]
    assert "phones" not in regal_sandbox.events()[1]["body"].get("traits", {})


def test_without_any_phone_the_row_is_rejected_with_that_reason(sync, regal_sandbox, ledger):
    with pytest.raises(TooManyFailedRowsError, match="phone: is missing, and no phone of this contact is on record"):
        sync([by_id(1)], of_run="r")
    (line,) = ledger.outcomes("r")
    assert (line.field, line.form) == ("phone", "consent")
    assert regal_sandbox.stats()["requests"] == 0
    assert sync([by_id(1)], max_rejected=1).known == 1, "an earlier run had said so"
    with pytest.raises(TooManyFailedRowsError):
        sync([by_id(1)])  # and it fails again until the data is fixed


def test_what_is_in_doubt_is_not_sent_again(sync, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"name": EVENT}, "do": {"status": 500, "store": True}}])
    first = sync([yes(1), no(2)], max_unknown=1)
    assert (first.unknown, first.acknowledged) == (1, 1)
    regal_sandbox.set_faults([])
    second = sync([yes(1), no(2)])
    assert kinds(second) == {"unchanged": 2}
    assert second.skips == {"unchanged": 2}
    assert [said for _, _, said in told(regal_sandbox)] == [False, EVENT]
    assert sync([yes(1, 6)]).acknowledged == 1, "a newer yes is another matter"


def test_an_opt_out_in_doubt_is_sent_again(sync, regal_sandbox):
    sync([yes(1)])
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 500, "store": False}}])
    with pytest.raises(RetryLaterError):
        sync([no(1, 6)], outage_patience=0.2)
    regal_sandbox.set_faults([])
    report = sync([no(1, 6)])
    assert (report.acknowledged, kinds(report)["sent"]) == (1, 1)


def test_an_older_yes_without_the_phone_does_not_follow_a_no_with_it(sync, regal_sandbox, identify):
    identify([{"user_id": "u1", "phone": phone(1)}])
    sync([no(1, 6)])
    report = sync([by_id(1, 5)], of_run="late")
    assert report.skips == {"older": 1}
    assert report.opt_ins_withheld == 1
    assert sync([by_id(1, 7)]).acknowledged == 1


def test_an_older_yes_without_the_phone_in_the_same_rows_is_withheld(sync, identify):
    identify([{"user_id": "u1", "phone": phone(1)}])
    report = sync([by_id(1, 5), no(1, 6)], of_run="r")
    assert (report.acknowledged, report.skips, report.opt_ins_withheld) == (1, {"older": 1}, 1)


def test_somebody_known_only_by_user_id_who_vanished_cannot_be_opted_out_and_that_is_said(sync, identify):
    identify([{"user_id": "u1", "phone": phone(1)}])
    sync([by_id(1), yes(2)])
    with pytest.raises(TooManyFailedRowsError, match="opted in without one and is no longer in the source"):
        sync([yes(2)], sync={"on_removed": "opt_out"})
    assert sync([yes(2)], sync={"on_removed": "opt_out"}, max_rejected=1).known == 1


def test_email_cannot_be_told_by_an_event(sync):
    report = sync([yes(1, channel="email", email="a@example.com")], max_rejected=1)
    assert report.rejected == 1


def test_a_consent_older_than_max_event_age_is_rejected(deliver, ledger):
    report = deliver(
        [yes(1)], call="track", event=EVENT, now=NOW + timedelta(days=30), max_rejected=1,
        sync=SyncSettings(initial="send", as_event=EVENT),
    )  # fmt: skip
    assert report.rejected == 1
    assert "max_event_age" in str(report.reasons)
    assert ledger.consents() == {}


@pytest.mark.parametrize("with_id", [True, False], ids=["of_the_contact", "of_the_phone_alone"])
def test_an_opt_in_without_the_phone_does_not_follow_an_opt_out_of_that_phone(with_id, sync, identify, regal_sandbox):
    identify([{"user_id": "u1", "phone": phone(1)}])
    sync([no(1, 9) if with_id else no(1, 9, user_id=None)])
    stale = sync([by_id(1, 5)])
    assert (stale.acknowledged, stale.skipped) == (0, 1)
    newer = sync([by_id(1, 12)])
    assert newer.acknowledged == 1
    assert [sent for *_, sent in told(regal_sandbox)] == [False, EVENT]


def test_an_opt_in_by_event_is_known_of_the_phone_from_then_on(sync, identify, regal_sandbox):
    identify([{"user_id": "u1", "phone": phone(1)}])
    sync([by_id(1, 12)])
    assert sync([no(1, 9)]).acknowledged == 0, "an opt-out from before"
    assert sync([no(1, 15)]).acknowledged == 1


OUTAGE = {"status": 503, "retry_after": 900, "store": False}


def test_an_event_that_regal_did_not_take_before_an_outage_is_sent_by_the_next_try(sync, regal_sandbox):
    """429 says that it was not taken, so it is not in doubt, however often it was tried."""
    rejections = [{"on": {"requests": [1, 2]}, "do": {"status": 429}}, {"on": {"from": 3}, "do": OUTAGE}]
    regal_sandbox.set_faults(rejections)
    with pytest.raises(RetryLaterError):
        sync([yes(1)], of_run="r", outage_patience=5)
    regal_sandbox.set_faults([])

    assert sync([yes(1)], of_run="r", number=2).acknowledged == 1
    assert told(regal_sandbox) == [("u1", "sms", EVENT)]


def test_an_event_that_another_run_has_sent_meanwhile_is_not_sent_by_a_run_that_resumes(sync, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": OUTAGE}])
    with pytest.raises(RetryLaterError):
        sync([yes(1)], of_run="r")
    regal_sandbox.set_faults([])
    sync([yes(1)])

    report = sync([yes(1)], of_run="r", number=2)

    assert told(regal_sandbox) == [("u1", "sms", EVENT)]
    assert (report.acknowledged, report.skips) == (0, {"unchanged": 1})


def test_with_full_resync_an_event_is_sent_again(sync, regal_sandbox):
    sync([yes(1)])
    assert sync([yes(1)], sync={"full_resync": True}).acknowledged == 1
    assert told(regal_sandbox) == [("u1", "sms", EVENT)] * 2
