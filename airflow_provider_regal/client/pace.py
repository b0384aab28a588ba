"""The rate: evenly spaced slots, and never more than the limit in any second.

Pure: it is told the time and answers with seconds to wait, so that threads, one task and tests share it.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final

# At 98 % no measured second held too many (docs/performance.md); a real network bunches more than loopback does.
MARGIN: Final = 0.96
# A timer rings late, rows take their time to prepare: what is missed by so little is made up for, other slots are gone.
_MADE_UP_FOR_S: Final = 0.02
# What leaves within this much more than a second may arrive within one.
_BUNCHING_S: Final = 0.03
_LEAST_SHARE: Final = 0.05
_RECOVERY: Final = 0.1


class Pacer:
    """Says when the next request may go.

    :param limit: requests a second at most, whole.
    """

    def __init__(self, limit: int) -> None:
        self._gap_s = 1 / (limit * MARGIN)
        self._next = float("-inf")
        self._paused_until = float("-inf")
        self._cut_to, self._cut_at = 1.0, float("-inf")
        self._sent: deque[float] = deque(maxlen=limit)
        self._lock = Lock()

    def take(self, now: float) -> float:
        """Take the slot of one request, if there is one.

        :param now: monotonic seconds.
        :returns: 0.0 if the request may go now (and is counted), else the seconds to wait before asking again.
        """
        with self._lock:
            earliest = max(self._next, self._paused_until)
            if len(self._sent) == self._sent.maxlen:
                earliest = max(earliest, self._sent[0] + 1.0 + _BUNCHING_S)
            if now < earliest:
                return earliest - now
            made_up_for = now - earliest < _MADE_UP_FOR_S
            self._next = (earliest if made_up_for else now) + self._gap_s / self._share(now)
            self._sent.append(now)
            return 0.0

    def pause(self, until: float) -> None:
        """Stop all sends until ``until`` (monotonic seconds): Regal answered that we are too fast."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)

    def slow_down(self, now: float) -> None:
        """Halve the rate, at most once a second; it recovers by a tenth of the limit a second."""
        with self._lock:
            share = self._share(now)
            if now - self._cut_at >= 1.0:
                self._cut_to = max(share / 2, _LEAST_SHARE)
                self._cut_at = now

    def _share(self, now: float) -> float:
        return min(1.0, self._cut_to + _RECOVERY * max(now - self._cut_at, 0.0))

    def pause_left(self, now: float) -> float:
        """Return for how many more seconds all sends are stopped, whatever the rate."""
        return max(self._paused_until - now, 0.0)
