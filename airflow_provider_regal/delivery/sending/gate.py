"""Limit concurrency and detect outages.

::

    open ── ten failures in a row, or no answer for long ──▶ probing: one row at a time, with back-off
      ▲                                                          │                     │
      └────────────── any answer that is not a failure ──────────┘                     └─ patience ends: stop

Pure: callers pass the time and report what happened.
"""

from __future__ import annotations

from collections import deque
from typing import Final

FAILURES_OF_AN_OUTAGE: Final = 10
_SILENCE_S: Final = 2.0
_SILENCE_P99: Final = 5.0
_FIRST_LATENCY_S: Final = 0.1
# Latency is that of the slowest of this many quarter-seconds: a mean would lag behind sudden jumps.
_QUARTER_S: Final = 0.25
_QUARTERS: Final = 32
_REMEMBERED: Final = 200
_HEADROOM: Final = 1.3
_SPARE: Final = 4
_FIRST_PROBE_S: Final = 0.5
LONGEST_PROBE_S: Final = 30.0


class Gate:
    """Tracks requests in flight and whether Regal is up.

    :param max_connections: the hard cap.
    :param patience_s: seconds an outage may last.
    """

    def __init__(self, *, max_connections: int, patience_s: float) -> None:
        self._max_connections = max_connections
        self._patience_s = patience_s
        self._latency_s = _FIRST_LATENCY_S
        self._quarters: deque[float] = deque(maxlen=_QUARTERS)
        self._quarter_began, self._slowest_s = float("-inf"), 0.0
        self._sum_s, self._summed = 0.0, 0
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED)
        self._failures = 0
        self._first_failure = 0.0
        self._last_answer = float("-inf")
        self._started: dict[int, float] = {}
        self._outage_since: float | None = None
        self._next_probe = 0.0
        self._probe_gap_s = _FIRST_PROBE_S
        self._probe: int | None = None
        self._confirmed = False
        self.outages = 0

    @property
    def probing(self) -> bool:
        """Whether Regal seems to be down."""
        return self._outage_since is not None

    @property
    def in_outage(self) -> bool:
        """Whether Regal is confirmed to be down: failures in a row or a failed probe, not just silence."""
        return self.probing and self._confirmed

    def latencies(self) -> list[float]:
        """Return the latencies of the last answers, in seconds. Thread-safe."""
        return list(self._latencies)

    def outage_s(self, now: float) -> float:
        """Return for how many seconds Regal has been down; 0 unless that is confirmed."""
        return now - self._outage_since if self._outage_since is not None and self._confirmed else 0.0

    def limit(self, rate: float) -> int:
        """Return the maximum number of requests in flight: rate times latency, plus some headroom."""
        wanted = int(rate * self._latency_s * _HEADROOM) + _SPARE
        return max(1, min(self._max_connections, wanted))

    def wait_s(self, now: float, rate: float) -> float:
        """Return the seconds until it is worth asking again; 0 if one more request may start now."""
        if now - self._last_answer > _SILENCE_S:
            self._notice_silence(now)
        if self._outage_since is not None:
            return 0.05 if self._started else max(0.0, self._next_probe - now)
        return 0.0 if len(self._started) < self.limit(rate) else 0.05

    def patience_left_s(self, now: float) -> float:
        """Return the seconds an outage may still last; infinity without one.

        Fewer than ten failures without a success in between count, too: with few rows left, there won't be ten in a
        row.
        """
        if self._outage_since is not None:
            return self._outage_since + self._patience_s - now
        return self._first_failure + self._patience_s - now if self._failures else float("inf")

    def start(self, position: int, now: float) -> None:
        """Record that a request starts."""
        self._started[position] = now
        if self.probing:
            self._probe = position

    def take_back(self, position: int) -> None:
        """Record that a request was not made after all."""
        self._started.pop(position)

    def succeed(self, position: int, now: float) -> None:
        """Record an answer that is not a sign of an outage; it ends one."""
        latency_s = now - self._started.pop(position)
        self._latencies.append(latency_s)
        self._learn(latency_s, now)
        self._last_answer = now
        self._failures = 0
        self._outage_since = self._probe = None
        self._probe_gap_s = _FIRST_PROBE_S

    def _learn(self, latency_s: float, now: float) -> None:
        if now - self._quarter_began >= _QUARTER_S:
            if self._summed:
                self._quarters.append(self._sum_s / self._summed)
                self._slowest_s = max(self._quarters)
            self._quarter_began, self._sum_s, self._summed = now, 0.0, 0
        self._sum_s += latency_s
        self._summed += 1
        self._latency_s = max(self._sum_s / self._summed, self._slowest_s)

    def fail(self, position: int, now: float, *, answered: bool) -> None:
        """Record a transport error, a 5xx or a 429.

        :param answered: whether Regal answered at all.
        """
        self._started.pop(position)
        if answered:
            self._last_answer = now
        if not self._failures:
            self._first_failure = now
        self._failures += 1
        if self.probing:
            if position == self._probe:  # requests already in flight only confirm the outage
                self._probe = None
                self._confirm()
                self._probe_gap_s = min(LONGEST_PROBE_S, self._probe_gap_s * 2)
            self._next_probe = now + self._probe_gap_s
        elif self._failures >= FAILURES_OF_AN_OUTAGE:
            self._begin_outage(self._first_failure, now)
            self._confirm()

    def _notice_silence(self, now: float) -> None:
        if self.probing or not self._started:
            return
        oldest = next(iter(self._started.values()))
        silent_s = now - max(self._last_answer, oldest)
        if silent_s > _SILENCE_S and silent_s > _SILENCE_P99 * self._p99_s():
            self._begin_outage(now - silent_s, now)

    def _p99_s(self) -> float:
        ordered = sorted(self._latencies)
        return ordered[int(len(ordered) * 0.99)] if ordered else 0.0

    def _begin_outage(self, since: float, now: float) -> None:
        self._outage_since = since
        self._next_probe = now + self._probe_gap_s
        self._confirmed = False

    def _confirm(self) -> None:
        """Confirm an outage. Silence alone may be a few slow answers, so this requires failures together."""
        if not self._confirmed:
            self._confirmed = True
            self.outages += 1
