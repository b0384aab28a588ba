"""Rate limiter: evenly spaced slots, and never more than the limit in any second.

::

    take: a slot, evenly spaced ─▶ a connection: at hand, or opened ─▶ go: room in the last second ─▶ first byte

A new connection takes a few round trips, while an open one is available at once. Requests with separate slots could
therefore reach Regal together, so they are counted when they go.

Pure: callers pass the time and receive the seconds to wait, so threads, a single task and tests can share it.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final, Protocol

# At 98 %, no measured second exceeded the limit (docs/performance.md); a real network bunches more than loopback.
MARGIN: Final = 0.97
# Timers fire late and rows take time to prepare: slots missed by this little are made up for, others are lost.
_MADE_UP_FOR_S: Final = 0.02
# Requests that leave within slightly more than a second may arrive within one.
_SECOND_S: Final = 1.03
_ASK_AGAIN_S: Final = 0.25
_RECOVERY: Final = 0.1


class Slots(Protocol):
    """What decides when a request may go: a pacer, or an object that also consults other processes."""

    def take(self, now: float) -> float:
        """Take the slot of one request, if there is one; else return the seconds until it is worth asking again."""

    def go(self, now: float) -> float:
        """Count a request that has its slot, if it may go; else return the seconds until it is worth asking again."""

    def pause(self, until: float) -> None:
        """Send nothing until then."""

    def pause_left(self, now: float) -> float:
        """Return the seconds until sending resumes."""


class Pacer:
    """Decides when the next request may go.

    :param limit: requests a second at most, whole; 0 for none until it is set.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._most = limit
        self._next = float("-inf")
        self._paused_until = float("-inf")
        self._cut_to, self._cut_at = 1.0, float("-inf")
        self._sent: deque[float] = deque()  # of the last second
        self._taken, self._asked_at, self._held_back_until = 0, float("-inf"), float("-inf")
        self._lock = Lock()

    @property
    def limit(self) -> int:
        """The maximum requests per second."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """Change the limit."""
        with self._lock:
            self._limit = self._most = limit

    def lower(self, limit: int, now: float) -> int:
        """Apply a lower limit from now on.

        :returns: the most requests in any second that is not over yet: the limit, or what was already sent.
        """
        with self._lock:
            self._limit = min(self._limit, limit)
            self._forget(now)
            self._most = max(self._limit, len(self._sent))
            return self._most

    def take_use(self, now: float) -> tuple[int, bool]:
        """Return how many requests went since the last call, and whether the limit held any back."""
        with self._lock:
            use = self._taken, self._held_back_until > self._asked_at
            self._taken, self._asked_at = 0, now
            return use

    def take(self, now: float) -> float:
        """Take the slot of one request, if there is one.

        :param now: monotonic seconds.
        :returns: 0.0 if the request may start now, else the seconds to wait before asking again.
        """
        with self._lock:
            earliest = max(self._next, self._room_at(now))
            if now < earliest:
                self._held_back_until = earliest
                return earliest - now
            made_up_for = now - earliest < _MADE_UP_FOR_S
            self._next = (earliest if made_up_for else now) + 1 / (self._limit * MARGIN * self._share(now))
            self._taken += 1
            return 0.0

    def go(self, now: float) -> float:
        """Count a request that has its slot and a connection, if the last second has room for it.

        :param now: monotonic seconds.
        :returns: 0.0 if its first byte may be written now, else the seconds to wait before asking again.
        """
        with self._lock:
            earliest = self._room_at(now)
            if now < earliest:
                return earliest - now
            self._sent.append(now)
            return 0.0

    def _room_at(self, now: float) -> float:
        """Return when a request may go, ignoring slots."""
        self._forget(now)
        if not self._limit:
            return max(self._paused_until, now + _ASK_AGAIN_S)
        if len(self._sent) >= self._most:
            return max(self._paused_until, self._sent[-self._most] + _SECOND_S)
        return self._paused_until

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0] <= now - _SECOND_S:
            self._sent.popleft()

    def pause(self, until: float) -> None:
        """Stop all sends until ``until`` (monotonic seconds): Regal answered 429."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)

    def slow_down(self, now: float) -> None:
        """Halve the rate, at most once a second; it recovers by a tenth of the limit a second."""
        with self._lock:
            share = self._share(now)
            if now - self._cut_at >= 1.0:
                self._cut_to = share / 2  # never below a tenth of the limit, which is recovered between two cuts
                self._cut_at = now

    def _share(self, now: float) -> float:
        return min(1.0, self._cut_to + _RECOVERY * max(now - self._cut_at, 0.0))

    def pause_left(self, now: float) -> float:
        """Return for how many more seconds all sends are paused, regardless of the rate."""
        return max(self._paused_until - now, 0.0)
