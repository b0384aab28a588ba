"""Rows taken in and not settled: they wait for a row of the same person, for their turn, or for a repeat."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Final

from airflow_provider_regal.delivery.order import Order
from airflow_provider_regal.delivery.prepared import Ready

# Taken in and not settled, at most.
_WINDOW: Final = 2_000
_WINDOW_BYTES: Final = 32 * 1024 * 1024


class WaitingRows:
    """Hands out rows whose turn it is; knows them until they are settled, so that memory stays bounded.

    :param enough: rows whose turn it is, beyond which no more are taken in.
    """

    def __init__(self, *, enough: int) -> None:
        self._enough = enough
        self._order = Order()
        self._bytes = 0
        self._held: dict[int, Ready] = {}
        self._turn: deque[Ready] = deque()
        self._repeats: list[tuple[float, int, Ready]] = []

    def __len__(self) -> int:
        return len(self._order)

    @property
    def wants_more(self) -> bool:
        """Whether more rows should be taken in."""
        return len(self._turn) < self._enough and len(self._order) < _WINDOW and self._bytes < _WINDOW_BYTES

    @property
    def turn(self) -> int:
        """How many rows may go now."""
        return len(self._turn)

    def admit(self, row: Ready) -> None:
        """Take a row in; positions come in ascending order."""
        self._bytes += len(row.body)
        if self._order.admit(row.position, row.identifiers):
            self._turn.append(row)
        else:
            self._held[row.position] = row

    def take(self, most: int) -> list[Ready]:
        """Hand out rows whose turn it is."""
        return [self._turn.popleft() for _ in range(min(most, len(self._turn)))]

    def give_back(self, row: Ready) -> None:
        """Take back a row that was handed out: it is the next."""
        self._turn.appendleft(row)

    def repeat(self, row: Ready, at: float) -> None:
        """Take back a row to be handed out again at a time (monotonic seconds)."""
        heapq.heappush(self._repeats, (at, row.position, row))

    def until_repeat_s(self, now: float) -> float:
        """Let the repeats that are due have their turn.

        :returns: seconds until the next one is.
        """
        while self._repeats and self._repeats[0][0] <= now:
            self._turn.appendleft(heapq.heappop(self._repeats)[2])
        return self._repeats[0][0] - now if self._repeats else float("inf")

    def settle(self, row: Ready) -> None:
        """Let a row go; who waited for it alone has its turn."""
        self._bytes -= len(row.body)
        for position in self._order.settle(row.position):
            self._turn.append(self._held.pop(position))

    def touched(self) -> Iterator[Ready]:
        """Give the rows that wait here and were sent or claimed before."""
        waiting = (*self._turn, *(entry[2] for entry in self._repeats))
        return (row for row in waiting if row.tries or row.claims)
