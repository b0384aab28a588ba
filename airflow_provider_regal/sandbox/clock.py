"""The sandbox's clock, which tests can replace."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The sandbox's two clocks: one for durations, one for dates."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    def wall(self) -> float:
        """Seconds since 1970, UTC."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()


class ManualClock:
    """A clock that moves only when told to.

    :param start: initial time, in seconds since 1970.
    """

    def __init__(self, start: float = 1_770_000_000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970, UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._now += seconds


def iso(wall: float) -> str:
    """Format a wall-clock time: ``2026-03-02 14:05:09.120 +00:00``."""
    moment = datetime.fromtimestamp(wall, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} +00:00"
