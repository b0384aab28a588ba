"""Count arrivals in any one second, by the server's clock."""

from __future__ import annotations

from collections import deque


class SlidingWindow:
    """Counts arrivals in the last second, and remembers the busiest second.

    An arrival exactly one second after another is outside its window.

    :param span_s: length of the window.
    """

    def __init__(self, span_s: float = 1.0) -> None:
        self._span_s = span_s
        self._arrivals: deque[float] = deque()
        self.worst = 0

    def count(self, now: float) -> int:
        """Return the number of arrivals in the window that ends at ``now``."""
        while self._arrivals and now - self._arrivals[0] >= self._span_s:
            self._arrivals.popleft()
        return len(self._arrivals)

    def add(self, now: float) -> None:
        """Record one arrival."""
        self._arrivals.append(now)
        self.worst = max(self.worst, self.count(now))
