"""A bucket that takes 200 ms for every answer does not slow the sending."""

from __future__ import annotations

import pytest

from tests.services.s3 import time_of

pytestmark = pytest.mark.services
ROWS = 900
RATE = 300
DELAY_S = 0.2


def seconds_of_sending(regal):
    """Measure from the first to the last request, by Regal's clock."""
    times = [time_of(event) for event in regal.events()]
    return max(times) - min(times)


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_latency_of_the_bucket_does_not_slow_the_sending(in_bucket, s3, regal_sandbox, record_property, guarantee):
    rows, sending, total = [{"user_id": f"u{number}"} for number in range(ROWS)], [], []
    for delay_s in (0.0, DELAY_S):
        regal_sandbox.reset()
        s3.delay_s = delay_s
        in_bucket.folder = ("dag", f"delay {delay_s:g}", "task", "-1")
        report = in_bucket.delivery(rows, guarantee=guarantee, rate=RATE).run()
        assert report.acknowledged == ROWS
        sending.append(seconds_of_sending(regal_sandbox))
        total.append(report.seconds)
    record_property("slower", f"{sending[1] / sending[0]:.3f}")
    record_property("sending", f"{sending[0]:.2f} s, {sending[1]:.2f} s")
    record_property("with opening", f"{total[0]:.2f} s, {total[1]:.2f} s")
    assert sending[1] < 1.1 * sending[0]
