"""A clock that moves when code sleeps, and fixed randomness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_regal.client.clock import Clock

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


class FakeClock:
    """A clock for tests.

    :param jitter: the random number, 0 to 1.
    """

    def __init__(self, *, jitter: float = 1.0, start: float = 1_000.0) -> None:
        self.time = self.start = start
        self.slept: list[float] = []
        self.jitter = jitter

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def passed(self) -> float:
        return self.time - self.start

    @property
    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: self.time,
            sleep=self.sleep,
            now=lambda: START + timedelta(seconds=self.passed),
            jitter=lambda: self.jitter,
        )
