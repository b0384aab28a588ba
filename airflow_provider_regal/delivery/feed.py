"""From the rows that are prepared to those that wait for their turn: never more than enough, and phase after phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airflow_provider_regal.delivery.prepared import Ready
from airflow_provider_regal.delivery.waiting import WaitingRows

#: Rows prepared before the loop looks at the network again.
SLICE: Final = 32


class Feed:
    """Takes prepared rows in.

    :param rows: what is to be sent, in order; None where it is time to look at the network.
    :param waiting: gets them.
    """

    def __init__(self, rows: Iterator[Ready | None], waiting: WaitingRows) -> None:
        self._rows = rows
        self._waiting = waiting
        self._held_back: Ready | None = None
        self._phase = 0
        self.has_rows = True

    def take_in(self) -> None:
        """Take rows in until enough wait for their turn; those of a later phase wait for the earlier ones to settle."""
        for _ in range(SLICE):
            if not self.has_rows or not self._waiting.wants_more:
                return
            try:
                row = self._held_back or next(self._rows)
            except StopIteration:
                self.has_rows = False
                return
            self._held_back = None
            if row is None:
                return
            if row.phase > self._phase and len(self._waiting):
                self._held_back = row
                return
            self._phase = row.phase
            self._waiting.admit(row)

    @property
    def may_take_in(self) -> bool:
        """Whether there is more to be taken in now."""
        return self.has_rows and self._held_back is None and self._waiting.wants_more
