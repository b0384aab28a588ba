"""Compute small charts as coordinates, for the SVG in the templates. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, log10
from typing import Final

from airflow_provider_regal.ledger.admin.monitoring import Day

WIDTH: Final = 560.0
HEIGHT: Final = 120.0
_GAP: Final = 0.28
_LEAST_PX: Final = 2.0
_SHORTEST_S: Final = 4.0
_STEP_S: Final = 2.0
_MOST_STEPS: Final = 40


@dataclass(frozen=True)
class Part:
    """A piece of a bar, from its top."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True)
class Bar:
    """A bar of a chart.

    :param label: the text below it.
    :param told: its numbers in words, for tooltips and screen readers.
    :param parts: from bottom to top.
    """

    x: float
    width: float
    label: str
    told: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Chart:
    """A bar chart.

    :param top: the value at the upper edge.
    :param line: the height of a horizontal line, such as a limit; None for no line.
    """

    bars: tuple[Bar, ...]
    top: float
    line: float | None = None


def nice_top(value: float) -> float:
    """Return a round number that is not below a value: 1, 1.2, 2 or 5 times a power of ten."""
    if value <= 1:
        return 1.0
    size = 10.0 ** int(log10(value))
    return next(size * step for step in (1, 1.2, 2, 5, 10) if size * step >= value)


def per_day(days: Sequence[Day], *, last: date, most: int) -> Chart:
    """Chart acknowledged and undelivered rows by day; days without a delivery are empty.

    :param last: the rightmost day.
    :param most: maximum number of days.
    """
    found = {day.day: day for day in days}
    shown = [(last - timedelta(days=back)).isoformat() for back in range(most - 1, -1, -1)]
    rows = [found.get(day, Day(day, 0, 0, 0)) for day in shown]
    values = [
        (
            f"{day.day[8:].lstrip('0')} {_MONTHS[int(day.day[5:7]) - 1]}",
            f"{day.day}: {day.acknowledged:,} acknowledged, {day.rejected:,} rejected, {day.unknown:,} unknown",
            (("good", day.acknowledged), ("warn", day.unknown), ("bad", day.rejected)),
        )
        for day in rows
    ]
    return bars(values)


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def bars(values: Sequence[tuple[str, str, Sequence[tuple[str, float]]]], *, line: float | None = None) -> Chart:
    """Chart stacked bars.

    :param values: for each bar its label, its numbers in words, and its parts as kind and value, from the bottom.
    :param line: a value at which to draw a line, such as a limit.
    """
    highest = max((sum(value for _, value in parts) for _, _, parts in values), default=0.0)
    top = nice_top(max(highest, line or 0.0))
    step = WIDTH / max(len(values), 1)
    drawn = []
    for number, (label, told, parts) in enumerate(values):
        y, pieces = HEIGHT, []
        for kind, value in parts:
            if value > 0:
                height = max(value / top * HEIGHT, _LEAST_PX)  # so that one row in a million is still visible
                y -= height
                pieces.append(Part(kind, round(y, 1), round(height, 1)))
        x, width = number * step + step * _GAP / 2, step * (1 - _GAP)
        drawn.append(Bar(round(x, 1), round(width, 1), label, told, tuple(pieces)))
    return Chart(tuple(drawn), top, None if line is None else round(HEIGHT - line / top * HEIGHT, 1))


def pace(tries: Sequence[Sequence[tuple[float, int]]], *, limit: float | None) -> Chart | None:
    """Chart the acknowledged rows per second, over all tries; the time between tries is left out.

    :param tries: for each try its seconds of sending, and the rows acknowledged until then.
    :param limit: of the account.
    :returns: None if the tries were too short to chart.
    """
    ends = [points[-1][0] if points else 0.0 for points in tries]
    if sum(ends) < _SHORTEST_S:
        return None
    step_s = max(_STEP_S, ceil(sum(ends) / _MOST_STEPS))
    values, shift_s = [], 0.0
    for number, (points, end_s) in enumerate(zip(tries, ends, strict=True), 1):
        steps = max(round(end_s / step_s), 1) if end_s else 0
        for step in range(steps):
            begin_s, until_s = end_s * step / steps, end_s * (step + 1) / steps
            speed = (_rows_until(points, until_s) - _rows_until(points, begin_s)) / (until_s - begin_s)
            label = _minutes(shift_s + begin_s)
            told = f"{label} to {_minutes(shift_s + until_s)}: {speed:,.0f} acknowledged a second"
            values.append((label, f"Try {number}, {told}" if len(tries) > 1 else told, (("busy", speed),)))
        shift_s += end_s
    return bars(values, line=limit)


def _rows_until(points: Sequence[tuple[float, int]], seconds: float) -> float:
    """Return how many rows were acknowledged at a time, interpolated between two points."""
    before_s, before = 0.0, 0
    for at_s, rows in points:
        if at_s >= seconds:
            return before + (rows - before) * (seconds - before_s) / (at_s - before_s) if at_s > before_s else rows
        before_s, before = at_s, rows
    return before


def _minutes(seconds: float) -> str:
    """Format the time since the start: ``0:05``, ``12:30``, ``1:02:30``."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def every(count: int, most: int = 7) -> int:
    """Return which labels of many bars to write: every second, third, ..."""
    return max(ceil(count / most), 1)
