"""Ordering: rows that share a user id, a phone or an email are sent one after the other, in source order.

Pure bookkeeping: a row waits for the previous row of each of its identifiers, and may go once they have settled.
"""

from __future__ import annotations

from collections.abc import Iterable


class Order:
    """Decides which of the admitted rows may be sent now."""

    def __init__(self) -> None:
        self._identifiers: dict[int, Iterable[str]] = {}
        self._last: dict[str, int] = {}  # identifier -> the last admitted row
        self._waits_for: dict[int, int] = {}  # row -> how many rows it waits for
        self._followers: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._identifiers)

    def admit(self, position: int, identifiers: Iterable[str]) -> bool:
        """Add a row; call with ascending positions.

        :returns: whether it may be sent at once.
        """
        self._identifiers[position] = identifiers
        ahead = {self._last[identifier] for identifier in identifiers if identifier in self._last}
        for identifier in identifiers:
            self._last[identifier] = position
        if not ahead:
            return True
        self._waits_for[position] = len(ahead)
        for other in ahead:
            self._followers.setdefault(other, []).append(position)
        return False

    def settle(self, position: int) -> list[int]:
        """Remove a settled row.

        :returns: the rows that may be sent now because of it.
        """
        for identifier in self._identifiers.pop(position):
            if self._last.get(identifier) == position:
                del self._last[identifier]
        freed = []
        for follower in self._followers.pop(position, ()):
            self._waits_for[follower] -= 1
            if not self._waits_for[follower]:
                del self._waits_for[follower]
                freed.append(follower)
        return freed
