"""An opt-in sync whose run folder is in a bucket: a retry on another machine goes on where the first try stopped."""

from __future__ import annotations

from contextlib import suppress

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import RetryLaterError
from tests.delivery.consents import known, no, phone, told, yes
from tests.delivery.syncing import dying, run_sync

pytestmark = pytest.mark.services
THEN = "2026-01-02T10:00:00Z"
ROWS = [*(yes(person, timestamp=THEN) for person in range(40)), *(no(n, timestamp=THEN) for n in range(100, 120))]
SAID = {(f"u{person}", "sms", person < 100) for person in (*range(40), *range(100, 120))}


def a_run(in_bucket, path, rows=ROWS, *, of="run", number=1, **options):
    in_bucket.folder = ("dag", of, "task", "-1")
    return run_sync(  # by the real clock, with which the bucket's is compared
        rows, in_bucket.regal, in_bucket.bucket(), path, number=number, initial="send", clock=Clock(), timeout_s=2.0,
        **options,
    )  # fmt: skip


def test_a_retry_goes_on_without_reading_again_and_later_runs_send_what_changed(in_bucket, tmp_path):
    path = tmp_path / "a database" / "ledger.db"
    in_bucket.regal.set_faults([{"on": {"from": 31}, "do": {"status": 503, "retry_after": 900, "store": False}}])
    with pytest.raises(RetryLaterError):
        a_run(in_bucket, path, outage_patience=0.2)
    in_bucket.regal.set_faults([])
    report = a_run(in_bucket, path, rows=[], number=2)
    assert (report.read, report.acknowledged, report.plan["new"]) == (60, 60, 60)
    arrived = told(in_bucket.regal, stored=True)
    assert [subscribed for *_, subscribed in arrived] == [False] * 20 + [True] * 40
    assert set(arrived) == SAID
    assert [file for file in tmp_path.iterdir() if file != path.parent] == [], "nothing personal is left here"

    again = a_run(in_bucket, path, rows=[*ROWS, no(1, timestamp=THEN)], of="later")
    assert (again.acknowledged, again.skips) == (1, {"unchanged": 59, "superseded": 1})


@pytest.mark.parametrize("after", range(3, 9))
def test_marks_that_a_crash_kept_from_the_ledger_are_made_by_the_retry(in_bucket, tmp_path, after):
    path = tmp_path / "ledger.db"
    with suppress(RetryLaterError):
        a_run(in_bucket, path, engine=dying(path, after))
    a_run(in_bucket, path, number=2)
    marks = known(path)
    assert {state for *_, state, _, _, _, _ in marks.values()} == {"acknowledged"}
    assert all(marks[phone(person), "sms"][0] == int(person < 100) for person in (*range(40), *range(100, 120)))
    assert a_run(in_bucket, path, of="later").skips == {"unchanged": 60}
