"""Bad phone, good email: the valid part is sent, and no decision is lost."""

from __future__ import annotations

import pytest

from airflow_provider_regal.errors import TooManyFailedRowsError

MAIL, PHONE = "ines@example.com", "+12125550100"
DROP = {"call": "identify", "on_invalid_phone": "drop", "on_invalid_email": "drop"}


def test_by_default_an_invalid_phone_rejects_the_row(deliver):
    with pytest.raises(TooManyFailedRowsError):
        deliver([{"phone": "12", "email": MAIL}], call="identify")


@pytest.mark.parametrize(
    ("row", "option", "kept"),
    [
        ({"phone": "12", "email": MAIL}, "on_invalid_phone", {"email": MAIL}),
        ({"phone": PHONE, "email": "no mail"}, "on_invalid_email", {"phone": PHONE}),
        ({"user_id": "u", "phones.work": "12", "phone": PHONE}, "on_invalid_phone", {"phone": PHONE}),
    ],
)
def test_a_dropped_one_is_counted_and_listed_and_the_rest_is_sent(deliver, ledger, regal_sandbox, row, option, kept):
    report = deliver([row], call="identify", **{option: "drop"})
    assert (report.acknowledged, report.rejected) == (1, 0)
    assert sum(count for note, count in report.notes.items() if "left out, since it is not" in note) == 1
    (outcome,) = ledger.query("SELECT status, reason, field, message FROM regal_outcomes")
    assert outcome[:2] == ("acknowledged", "dropped")
    assert outcome[2].startswith(option.removeprefix("on_invalid_"))
    assert "not a" in outcome[3]
    assert regal_sandbox.contact(**kept)


def test_only_the_kind_that_is_asked_for_is_dropped(deliver):
    with pytest.raises(TooManyFailedRowsError):
        deliver([{"phone": "12", "email": MAIL}], call="identify", on_invalid_email="drop")


def test_a_row_of_which_nothing_is_left_is_rejected_with_both_reasons(deliver):
    report = deliver([{"phone": "12"}], max_rejected=1, **DROP)
    assert report.rejected == 1
    assert "phone: not a" in next(iter(report.reasons))


def test_an_opt_in_of_a_dropped_phone_is_withheld_and_moved_to_no_other(deliver, regal_sandbox):
    yes = {"sms_opt_in": True, "sms_opt_in_at": "2026-03-02", "sms_opt_in_ip": "203.0.113.9"}
    report = deliver([{"phone": "12", "email": MAIL, "phones.work": PHONE, **yes}], **DROP)
    assert (report.acknowledged, report.opt_ins_withheld) == (1, 1)
    assert regal_sandbox.contact(email=MAIL)["phones"][PHONE]["sms"]["status"] != "Subscribed"


def test_an_opt_out_of_a_dropped_phone_fails_the_task_whatever_the_threshold(deliver):
    row = {"user_id": "u", "phone": "12", "email": MAIL, "sms_opt_in": False}
    with pytest.raises(TooManyFailedRowsError) as failed:
        deliver([row], max_rejected=1.0, **DROP)
    assert (failed.value.report.rejected, failed.value.report.opt_outs_rejected) == (1, 1)


def test_an_opt_out_of_a_dropped_phone_goes_to_the_phones_on_record_of_the_user_id(deliver, regal_sandbox):
    deliver([{"user_id": "u", "phone": PHONE}], call="identify", of_run="first")
    report = deliver([{"user_id": "u", "phone": "12", "email": MAIL, "sms_opt_in": False}], of_run="second", **DROP)
    assert (report.acknowledged, report.rejected) == (1, 0)
    assert regal_sandbox.contact(user_id="u")["phones"][PHONE]["sms"]["status"] == "Unsubscribed"


def test_a_decision_of_a_dropped_phone_that_cannot_be_read_rejects_the_row(deliver):
    row = {"user_id": "u", "phone": "12", "sms_opt_in": "perhaps"}
    with pytest.raises(TooManyFailedRowsError) as failed:
        deliver([row], max_rejected=1.0, **DROP)
    assert failed.value.report.opt_outs_rejected == 1
