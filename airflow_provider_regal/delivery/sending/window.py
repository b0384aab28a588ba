"""The send window holds rows that are admitted and not settled, in the order in which they may be sent.

::

    admitted rows ─▶ in order per person ─▶ whose turn it is ─▶ reserved ─▶ sent ─▶ settled
                          ▲                       ▲                           │
                          └ waits for another     └────── repeats, when due ◀─┘

Pure bookkeeping: it does no I/O, and callers pass the time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Final

from airflow_provider_regal.delivery.reading.prepared import Ready
from airflow_provider_regal.delivery.sending.order import Order

#: Rows admitted before control returns to the event loop.
SLICE: Final = 32
#: Minimum number of rows reserved ahead.
LEAST_AHEAD: Final = 32
_AHEAD_S: Final = 0.25
_MEASURED_S: Final = 1.0
# Maximum number of rows in the window.
MOST_ROWS: Final = 4_000
MOST_BYTES: Final = 32 * 1024 * 1024


class SendWindow:
    """Hands out rows when they may be sent, and tracks them until they are settled. Bounds memory.

    :param rows: the rows to send, in order; None whenever the caller should return to the event loop.
    """

    def __init__(self, rows: Iterator[Ready | None]) -> None:
        self._rows = rows
        self._order = Order()
        self._bytes = 0
        self._held: dict[int, Ready] = {}
        self._turn: deque[Ready] = deque()
        self._repeats: list[tuple[float, int, Ready]] = []
        self._next_phase: Ready | None = None
        self._phase = 0
        self._enough = 2 * LEAST_AHEAD
        self._started, self._since, self._rate = 0, float("-inf"), 0.0
        self.has_rows = True

    def __len__(self) -> int:
        return len(self._order)

    @property
    def turn(self) -> int:
        """The number of rows that may be sent now."""
        return len(self._turn)

    @property
    def may_take_in(self) -> bool:
        """Whether more rows can be taken in now."""
        return self.has_rows and self._next_phase is None and self._wants_more

    @property
    def _wants_more(self) -> bool:
        return len(self._turn) < self._enough and len(self._order) < MOST_ROWS and self._bytes < MOST_BYTES

    def take_in(self) -> None:
        """Take rows in until enough may be sent; rows of a later phase wait until the earlier ones settle."""
        for _ in range(SLICE):
            if not self.has_rows or not self._wants_more:
                return
            try:
                row = self._next_phase or next(self._rows)
            except StopIteration:
                self.has_rows = False
                return
            self._next_phase = None
            if row is None:
                return
            if row.phase > self._phase and len(self):
                self._next_phase = row
                return
            self._phase = row.phase
            self._admit(row)

    def _admit(self, row: Ready) -> None:
        self._bytes += len(row.body)
        if self._order.admit(row.position, row.identifiers):
            self._turn.append(row)
        else:
            self._held[row.position] = row

    def ahead(self, *, probing: bool) -> int:
        """Return how many rows to keep reserved: a quarter of a second at the current rate."""
        if probing:
            return 1
        ahead = max(LEAST_AHEAD, int(self._rate * _AHEAD_S))
        self._enough = 2 * ahead
        return ahead

    def started(self, now: float) -> None:
        """Count a request that starts, to measure the current rate.

        :param now: monotonic seconds.
        """
        self._started += 1
        if now - self._since >= _MEASURED_S:
            self._rate = self._started / min(now - self._since, 10.0) if self._since > float("-inf") else 0.0
            self._started, self._since = 0, now

    def take(self, most: int) -> list[Ready]:
        """Hand out rows that may be sent."""
        return [self._turn.popleft() for _ in range(min(most, len(self._turn)))]

    def give_back(self, row: Ready) -> None:
        """Take back a row that was handed out; it comes next."""
        self._turn.appendleft(row)

    def repeat(self, row: Ready, at: float) -> None:
        """Take back a row, to be handed out again at a given time (monotonic seconds)."""
        heapq.heappush(self._repeats, (at, row.position, row))

    def until_repeat_s(self, now: float) -> float:
        """Make due retries available.

        :returns: seconds until the next one is due.
        """
        while self._repeats and self._repeats[0][0] <= now:
            self._turn.appendleft(heapq.heappop(self._repeats)[2])
        return self._repeats[0][0] - now if self._repeats else float("inf")

    def settle(self, row: Ready) -> None:
        """Remove a settled row; rows that waited only for it may be sent now."""
        self._bytes -= len(row.body)
        for position in self._order.settle(row.position):
            self._turn.append(self._held.pop(position))

    def touched(self) -> Iterator[Ready]:
        """Return the rows in the window that were sent or claimed before."""
        waiting = (*self._turn, *(entry[2] for entry in self._repeats))
        return (row for row in waiting if row.tries or row.claims)
