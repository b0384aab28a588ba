"""Order: rows that share a user id, a phone or an email go out one after the other, in the source's order.

Pure bookkeeping: every identifier has a queue, and a row may go when it stands first in all of its queues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Order:
    """Says which of the admitted rows may be sent now."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[int]] = {}
        self._identifiers: dict[int, tuple[str, ...]] = {}
        self._waits_for: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._identifiers)

    def admit(self, position: int, identifiers: Iterable[str]) -> bool:
        """Take a row in; positions come in ascending order.

        :returns: whether it may be sent at once.
        """
        distinct = tuple(dict.fromkeys(identifiers))
        ahead = 0
        for identifier in distinct:
            queue = self._queues.setdefault(identifier, deque())
            ahead += bool(queue)
            queue.append(position)
        self._identifiers[position] = distinct
        if ahead:
            self._waits_for[position] = ahead
        return not ahead

    def settle(self, position: int) -> list[int]:
        """Let a row go that stood first everywhere.

        :returns: the rows that may be sent now because of it.
        """
        freed: list[int] = []
        for identifier in self._identifiers.pop(position):
            queue = self._queues[identifier]
            queue.popleft()
            if not queue:
                del self._queues[identifier]
                continue
            follower = queue[0]
            self._waits_for[follower] -= 1
            if not self._waits_for[follower]:
                del self._waits_for[follower]
                freed.append(follower)
        return freed
