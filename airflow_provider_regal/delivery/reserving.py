"""How many rows are reserved before they are sent. Pure.

On a local disk a reservation takes milliseconds, so few are needed. On object storage it takes as long as the bucket
answers, and costs a request: so many rows are reserved that one reservation lasts for about two checkpoint intervals.
"""

from __future__ import annotations

from typing import Final

LOCALLY: Final = 32
_FIRST: Final = 128
_MOST: Final = 1_000


class Reserving:
    """Says how many rows to keep reserved.

    :param rate: requests a second.
    :param span_s: for how long they should last; None for a local folder.
    """

    def __init__(self, rate: float, span_s: float | None) -> None:
        self._span_s = span_s
        self.most = LOCALLY if span_s is None else max(LOCALLY, min(_MOST, int(rate * span_s)))
        self._rows = min(_FIRST, self.most)
        self._last: float | None = None
        self._seen = False

    def rows(self, limit: int, *, probing: bool) -> int:
        """Say how many rows should be reserved.

        :param limit: requests that may be under way.
        """
        if probing:
            return 1
        return min(self._rows, limit) if self._span_s is None else self._rows

    @property
    def in_bulk(self) -> bool:
        """Whether to wait until so many rows are ready."""
        return self._span_s is not None

    def missing(self, ahead: int, reserved: int, *, now: float) -> int:
        """Say how many to reserve now: none while half of them are left.

        :param now: monotonic seconds; how soon they were used up says how many there should be.
        """
        if reserved > ahead // 2:
            self._seen = False
            return 0
        if self._span_s is not None and not self._seen:
            if self._last is not None:
                self._adapt(now - self._last, self._span_s)
            self._seen, self._last = True, now
        return ahead - reserved

    def _adapt(self, used_in_s: float, span_s: float) -> None:
        if used_in_s < span_s / 2:
            self._rows = min(self._rows * 2, self.most)
        elif used_in_s > span_s:
            self._rows = max(self._rows // 2, LOCALLY)
