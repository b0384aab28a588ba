"""Progress lines: their content, and which of them are logged."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_provider_regal.delivery.sending.progress import Progress
from airflow_provider_regal.ledger.deliveries import Counts


def progress(counts, *, every_s=10.0, patience_s=300.0):
    return Progress(counts, began=100.0, every_s=every_s, patience_s=patience_s)


def test_a_line_says_how_far_it_is_how_fast_and_when_it_ends():
    counts = Counts(read=50_000)
    line = progress(counts)
    counts.acknowledged, counts.rejected = 2_977, 3
    assert line.line(110.0) == "2,980/50,000 5 % · 298/s · 3 rejected · ETA 2m37s"


def test_what_an_earlier_try_did_is_not_the_speed_of_this_one():
    counts = Counts(read=1_000, acknowledged=500)
    line = progress(counts)
    counts.acknowledged += 100
    assert line.line(110.0) == "600/1,000 60 % · 10/s · 0 rejected · ETA 0m40s"


def test_unknown_rows_are_told_and_make_it_look_no_faster():
    counts = Counts(read=1_000)
    line = progress(counts)
    counts.acknowledged, counts.unknown = 100, 400
    assert line.line(110.0) == "500/1,000 50 % · 10/s · 0 rejected · 400 unknown · ETA 0m50s"


def test_an_outage_is_told_while_it_lasts_with_its_end():
    counts = Counts(read=1_000, acknowledged=100)
    counts.outage_since, counts.outage_reason = "2026-11-29T02:58:10.000000Z", "HTTP 503"
    line = progress(counts)
    told = "100/1,000 10 % · OUTAGE since 02:58 UTC (HTTP 503), gives up at 03:03 UTC · 0 rejected"
    assert line.line(110.0) == told
    counts.outage_since = None
    assert "OUTAGE" not in line.line(120.0)


def test_nothing_read_is_no_division_by_zero():
    assert progress(Counts()).line(100.0) == "0/0 - · 0/s · 0 rejected · ETA -"


@pytest.mark.parametrize(("every_s", "in_ten_minutes"), [(10.0, 6 + 9), (60.0, 10), (0.5, 1_200)])
def test_after_the_first_minute_one_line_a_minute_is_in_the_log(every_s, in_ten_minutes):
    line, logged = progress(Counts(), every_s=every_s), Counter[bool]()
    for tick in range(1, int(600 / every_s) + 1):
        logged[line.is_due(100.0 + tick * every_s)] += 1
    assert logged[True] == in_ten_minutes
