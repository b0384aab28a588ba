"""Rows of different user ids that share a phone or email: counted, named by position, or rejected."""

from __future__ import annotations

import pytest

from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.events import Identify

PLACEHOLDER, MAIL = "+12125550100", "ines@example.com"
REJECT = {"call": "identify", "on_shared": "reject"}


def shared(report):
    return sum(count for note, count in report.notes.items() if "is shared with another user id" in note)


def test_by_default_they_are_sent_counted_and_named_by_position(deliver, caplog):
    rows = [{"user_id": f"u{n}", "phone": "(212) 555-0100" if n % 2 else PLACEHOLDER} for n in range(4)]
    report = deliver([*rows, {"user_id": "other", "phone": "2125550177"}], call="identify")
    assert (report.acknowledged, shared(report)) == (5, 4)
    assert "4 rows share a phone or email" in caplog.text
    assert "row 1: rows 1, 2, 3, 4 of the source, of different user ids, share it" in caplog.text
    assert PLACEHOLDER not in caplog.text


@pytest.mark.parametrize(
    "rows",
    [
        [{"user_id": "a", "email": MAIL}, {"user_id": "b", "email": MAIL.upper()}],
        [{"user_id": "a", "phones.work": PLACEHOLDER}, {"user_id": "b", "phone": PLACEHOLDER}],
        [Identify(user_id="a", phone=PLACEHOLDER), Identify(user_id="b", traits={"phone": "2125550100"})],
    ],
    ids=["email", "label", "events"],
)
def test_none_of_them_is_sent_where_they_are_rejected(deliver, regal_sandbox, rows):
    report = deliver([*rows, {"user_id": "c", "plan": 1}], max_rejected=2, **REJECT)
    assert (report.rejected, report.acknowledged) == (2, 1)
    assert regal_sandbox.stats()["requests"] == 1


@pytest.mark.parametrize(
    "rows",
    [
        [{"user_id": "a", "phone": PLACEHOLDER}, {"user_id": "a", "phone": PLACEHOLDER}],
        [{"user_id": "a", "phone": PLACEHOLDER}, {"user_id": None, "phone": PLACEHOLDER}],
        [{"user_id": 42, "phone": PLACEHOLDER}, {"user_id": 42.0, "phone": PLACEHOLDER}],
    ],
    ids=["same", "none", "types"],
)
def test_one_person_in_several_rows_shares_with_no_one(deliver, rows):
    report = deliver(rows, **REJECT)
    assert (report.rejected, shared(report)) == (0, 0)


def test_a_phone_that_another_user_id_has_on_record_is_shared_across_runs(deliver):
    deliver([{"user_id": "a", "phone": PLACEHOLDER}], call="identify", of_run="first")
    assert shared(deliver([{"user_id": "a", "phone": PLACEHOLDER}], call="identify", of_run="again")) == 0
    with pytest.raises(TooManyFailedRowsError) as failed:
        deliver([{"user_id": "b", "phone": PLACEHOLDER}], of_run="second", **REJECT)
    assert "another user id on record has it" in next(iter(failed.value.report.reasons))


def test_the_phone_of_an_unchanged_row_is_on_record(deliver):
    rows = [{"user_id": "a", "phone": PLACEHOLDER}]
    deliver(rows, call="identify", only_changed=True, of_run="first")
    report = deliver(
        [*rows, {"user_id": "b", "phone": PLACEHOLDER}], only_changed=True, of_run="second", max_rejected=1, **REJECT
    )
    assert (report.skipped, report.rejected) == (1, 1)


def test_an_opt_out_of_a_rejected_row_is_sent(deliver, regal_sandbox):
    rows = [{"user_id": "a", "phone": PLACEHOLDER, "sms_opt_in": False}, {"user_id": "b", "phone": PLACEHOLDER}]
    deliver([{**row, "sms_opt_in": row.get("sms_opt_in")} for row in rows], max_rejected=2, **REJECT)
    assert regal_sandbox.contact(phone=PLACEHOLDER)["phones"][PLACEHOLDER]["sms"]["status"] == "Unsubscribed"
