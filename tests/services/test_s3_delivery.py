"""A delivery whose run folder is in a bucket: whole, cleared, restarted, invalid rows and all."""

from __future__ import annotations

import json

import pytest

from airflow_provider_regal.errors import DecideRestartError, ReadDeadLettersError, RetryLaterError
from tests.services.s3 import writes_of

pytestmark = pytest.mark.services


def people(number, start=0):
    return [{"user_id": f"u{at}", "amount": at} for at in range(start, start + number)]


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_every_row_arrives_once_and_the_rows_are_removed(in_bucket, tmp_path, guarantee):
    report = in_bucket.delivery(people(500), guarantee=guarantee, max_rejected=1).run()

    assert (report.status, report.acknowledged) == ("finished", 500)
    assert report.run_folder == "s3://bucket@journal/prefix/dag/run/task/-1"
    assert set(in_bucket.arrivals().values()) == {1}
    keys = in_bucket.objects()
    assert sorted(key.partition("/")[0] for key in keys) == ["dead_letters.jsonl", "log", "log", "report.json"]
    assert json.loads(in_bucket.read("report.json"))["acknowledged"] == 500
    assert list(tmp_path.iterdir()) == [], "nothing personal is left on this machine"


def test_the_rows_are_in_the_bucket_before_the_first_is_sent(in_bucket):
    delivery, seen = in_bucket.delivery(people(12_000), rate=100), []

    def look():
        seen.extend(in_bucket.objects())
        delivery.stop()

    thread = in_bucket.then(look, 1)
    with pytest.raises(RetryLaterError):
        delivery.run()
    thread.join()
    # The others are small enough to be in a segment.
    assert [key[-17:] for key in seen if key.startswith("files/")] == ["rows-000000.jsonl"]


def test_a_clear_of_a_finished_delivery_sends_nothing(in_bucket):
    in_bucket.delivery(people(20)).run()
    assert in_bucket.delivery(people(20), epoch=1, number=2).run().status == "nothing_to_do"
    assert in_bucket.requests() == 20


def test_restart_sends_all_again_once(in_bucket):
    in_bucket.delivery(people(20)).run()
    in_bucket.delivery(people(25), epoch=1, number=2, restart=True).run()
    assert in_bucket.requests() == 45
    assert in_bucket.delivery(people(25), epoch=1, number=3, restart=True).run().status == "nothing_to_do"


def test_rejected_rows_are_dead_letters_in_the_bucket_and_tried_again_when_cleared(in_bucket):
    rows = [*people(10), {"user_id": "u10", "phone": "not a phone"}]
    with pytest.raises(ReadDeadLettersError, match=r"s3://bucket@journal/prefix/dag/run/task/-1/dead_letters\.jsonl"):
        in_bucket.delivery(rows).run()
    (letter,) = map(json.loads, in_bucket.read("dead_letters.jsonl").splitlines())
    assert (letter["position"], letter["run"]) == (10, "s3://bucket@journal/prefix/dag/run/task/-1")

    report = in_bucket.delivery(rows, epoch=1, number=2, mapping={"phone": None}).run()
    assert (report.acknowledged, report.rejected, in_bucket.requests()) == (11, 0, 11)
    assert in_bucket.read("dead_letters.jsonl") == b""


def test_a_source_that_changed_after_rows_were_sent_is_refused(in_bucket):
    with pytest.raises(ReadDeadLettersError):
        in_bucket.delivery([*people(3), {}]).run()
    cleared = in_bucket.delivery(people(3), epoch=1, number=2)
    cleared._fingerprint = "another"
    with pytest.raises(DecideRestartError, match="The source"):
        cleared.run()


def test_an_outage_of_regal_is_resumed_by_the_next_try(in_bucket, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 100}, "do": {"status": 503, "retry_after": 1}}])
    with pytest.raises(RetryLaterError, match="outage_patience"):
        in_bucket.delivery(people(300), outage_patience=1.0).run()
    regal_sandbox.set_faults([])
    report = in_bucket.delivery(people(0), number=2).run()
    assert (report.read, report.acknowledged, report.unknown) == (300, 300, 0)
    assert set(in_bucket.arrivals().values()) == {1}


def test_a_damaged_folder_is_left_to_somebody_to_decide(in_bucket, s3):
    with pytest.raises(ReadDeadLettersError):
        in_bucket.delivery([*people(3), {}]).run()
    for key in in_bucket.objects():
        if key.startswith("log/"):
            s3.direct.put_object(Bucket="journal", Key=f"prefix/dag/run/task/-1/{key}", Body=b"what is this?\n")
    with pytest.raises(DecideRestartError, match="nobody can tell which rows were sent"):
        in_bucket.delivery(people(3), number=2, timeout_s=0.1).run()
    report = in_bucket.delivery(people(3), number=3, restart=True, timeout_s=0.1).run()
    assert report.acknowledged == 3


def test_what_one_event_costs(in_bucket, s3, record_property):
    in_bucket.delivery(people(1)).run()
    record_property("requests", len(s3.requests))
    record_property("writes", len(writes_of(s3)))
    assert len(s3.requests) <= 25
