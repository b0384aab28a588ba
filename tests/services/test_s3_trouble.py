"""A bucket that is gone, read-only or throttled in the middle: everything unsettled is kept, and a retry finishes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from airflow_provider_regal.errors import RetryLaterError
from tests.client.raw_server import RawServer, answering, http, self_signed
from tests.services.conftest import InBucket

pytestmark = pytest.mark.services
ROWS = 1_000
RATE = 400
INTERVAL_S = 0.3
# What may be under way or unnoted when the bucket fails: two intervals or two seconds, whichever is longer.
UNSAVED = RATE * 2 + 64


def people():
    return [{"user_id": f"u{number}"} for number in range(ROWS)]


def shut(door):
    door.shut = True


def read_only(door):
    door.refuses = "AccessDenied"


def throttle(door):
    door.refuses = "SlowDown"


@pytest.mark.parametrize(
    ("fail", "call"), [(shut, "track"), (read_only, "track"), (read_only, "identify"), (throttle, "track")]
)
def test_the_delivery_stops_and_a_retry_finishes_it(in_bucket, s3, record_property, fail, call):
    thread = in_bucket.then(lambda: fail(s3), 300)
    first = in_bucket.delivery(people(), call=call, rate=RATE, checkpoint_interval=INTERVAL_S, patience_s=3.0)
    started = time.monotonic()
    with pytest.raises(RetryLaterError, match=r"s3://bucket@journal cannot be reached or written: .*is kept"):
        first.run()
    thread.join()
    record_property("stopped after", f"{time.monotonic() - started:.1f} s")
    sent = in_bucket.requests()
    record_property("sent", sent)
    assert 300 <= sent < 300 + UNSAVED < 2 * ROWS, "nothing is sent that nobody could note"
    assert first.report.status == "stopped"

    s3.open()
    report = in_bucket.delivery([], call=call, number=2, max_unknown=1.0).run()
    arrived = in_bucket.arrivals()
    record_property("unknown", report.unknown)
    record_property("repeats", sum(arrived.values()) - len(arrived))
    assert report.acknowledged + report.unknown == report.read == ROWS
    if call == "track":
        assert max(arrived.values()) == 1
        assert len(arrived) >= report.acknowledged
    else:
        assert len(arrived) == ROWS
        assert report.unknown == 0


def test_a_bucket_that_throttles_for_a_while_only_makes_it_wait(in_bucket, s3):
    def throttle_for_a_while():
        throttle(s3)
        time.sleep(1.5)
        s3.refuses = None

    thread = in_bucket.then(throttle_for_a_while, 100)
    report = in_bucket.delivery(people(), rate=RATE, checkpoint_interval=INTERVAL_S).run()
    thread.join()
    assert s3.refused > 0
    assert (report.acknowledged, report.unknown) == (ROWS, 0)
    assert set(in_bucket.arrivals().values()) == {1}


def test_a_connection_that_opened_too_late_is_not_used(s3, tmp_path, monkeypatch):
    context, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def lose_the_bucket_and_take_long(*_):
        s3.shut = True
        time.sleep(3.5)

    context.sni_callback = lose_the_bucket_and_take_long
    with RawServer(answering(http()), tls=context) as server:
        regal = SimpleNamespace(url=f"https://localhost:{server.port}", api_key="a-key")
        in_bucket = InBucket(s3, regal, tmp_path)
        begun = in_bucket.begin(20, checkpoint_interval=INTERVAL_S, timeout_s=30, patience_s=2.0)
        told = in_bucket.end(begun, s3_complains=True)
        assert "is kept" in told["says"]
        assert len(server.talks) > 0
        assert server.requests == []


def test_a_bucket_that_is_not_there_is_said_to_be(in_bucket):
    missing = in_bucket.delivery(people(), patience_s=0.1)
    missing._path.path = "no-such-bucket/prefix"
    with pytest.raises(RetryLaterError, match="s3://bucket@journal cannot be reached or written: NoSuchBucket"):
        missing.run()
    assert in_bucket.requests() == 0
