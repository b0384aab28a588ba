"""Charts: heights are proportional, and one row in a million is still visible."""

from __future__ import annotations

from datetime import date

import pytest

from airflow_provider_regal.ledger.admin.monitoring import Day
from airflow_provider_regal.plugin.charts import HEIGHT, bars, nice_top, pace, per_day


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (3, 5), (10, 10), (11, 12), (13, 20), (49_000, 50_000), (0.5, 1)]
)
def test_the_upper_edge_is_a_round_number_not_below(value, top):
    assert nice_top(value) == top


def test_the_parts_of_a_bar_add_up_from_the_bottom():
    (bar,) = bars([("a", "told", (("good", 30), ("bad", 20)))]).bars
    good, bad = bar.parts
    assert (good.y, good.height) == (HEIGHT - 0.6 * HEIGHT, 0.6 * HEIGHT)
    assert (bad.y, bad.height) == (0, 0.4 * HEIGHT)


def test_few_rows_among_many_are_still_seen_and_none_are_not():
    (bar,) = bars([("a", "told", (("good", 1_000_000), ("bad", 1), ("warn", 0)))]).bars
    assert [(part.kind, part.height >= 2) for part in bar.parts] == [("good", True), ("bad", True)]


def test_a_limit_is_a_line_and_fits():
    chart = bars([("a", "told", (("busy", 50),))], line=100)
    assert (chart.top, chart.line) == (100, 0)


def test_days_without_a_delivery_are_there_and_empty():
    chart = per_day([Day("2026-11-27", 5, 1, 0)], last=date(2026, 11, 29), most=4)
    assert [bar.label for bar in chart.bars] == ["26 Nov", "27 Nov", "28 Nov", "29 Nov"]
    assert [len(bar.parts) for bar in chart.bars] == [0, 2, 0, 0]
    assert chart.bars[1].told == "2026-11-27: 5 acknowledged, 1 rejected, 0 unknown"


def test_the_pace_is_what_was_acknowledged_a_second_in_every_try():
    chart = pace([[(4.0, 400), (8.0, 400)], [(4.0, 200)]], limit=100)
    assert [bar.told for bar in chart.bars] == [
        "Try 1, 0:00 to 0:02: 100 acknowledged a second",
        "Try 1, 0:02 to 0:04: 100 acknowledged a second",
        "Try 1, 0:04 to 0:06: 0 acknowledged a second",
        "Try 1, 0:06 to 0:08: 0 acknowledged a second",
        "Try 2, 0:08 to 0:10: 50 acknowledged a second",
        "Try 2, 0:10 to 0:12: 50 acknowledged a second",
    ]
    assert (chart.top, chart.line) == (100, 0)


def test_a_pace_of_hours_has_few_bars_and_one_of_a_moment_is_not_drawn():
    hours = pace([[(seconds, 93 * seconds) for seconds in range(60, 7_201, 60)]], limit=None)
    assert len(hours.bars) == 40
    assert hours.bars[-1].told == "1:57:00 to 2:00:00: 93 acknowledged a second"
    assert pace([[(3.9, 10)]], limit=100) is None
    assert pace([[], []], limit=100) is None
    assert pace([], limit=100) is None
    assert pace([[(0.0, 3), (0.0, 4)], [], [(9.0, 9)]], limit=None).bars[0].told.startswith("Try 3, 0:00 to 0:02: 1 ")
