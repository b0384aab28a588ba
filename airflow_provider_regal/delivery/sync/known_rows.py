"""Look up which rows of a source the ledger already has unchanged, by their hashes: nine bytes of memory each.

Hashes are cut to 60 bits here, with the number of consents of the row appended. At a million known rows, the odds of
mistaking a changed row for an unchanged one are one in a trillion per row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

#: Number of characters of a hash that are compared.
KNOWN_BY: Final = 15
#: Where the number of consents starts in a stored hash.
COUNT_AT: Final = 32
_COUNT_BITS: Final = 4
_MOST_CONSENTS: Final = (1 << _COUNT_BITS) - 1
# Sorted in parts, since sorting takes forty bytes a hash. A lookup leaves about fifteen of a million to compare.
_TO_PART: Final = 64 - 8
_TO_STEP: Final = 64 - 16
_STEPS: Final = 1 << 16
_LAST: Final = (1 << 64) - 1


class KnownRows:
    """The hashes in the ledger, sorted.

    :param hashes: for each consent, the start of its row's hash as stored in the ledger, and the number of the row's
        consents as one hexadecimal digit.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        parts: list[array[int]] = [array("Q") for _ in range(1 << 8)]
        for one in hashes:
            value = int(one, 16)
            parts[value >> _TO_PART].append(value)
        counts, self._values = array("L", bytes(8 * (_STEPS + 1))), array("Q")
        for number, part in enumerate(parts):
            for value in (in_order := sorted(part)):
                counts[(value >> _TO_STEP) + 1] += 1
            self._values.extend(in_order)
            parts[number] = array("Q")
        self._begin = array("L", accumulate(counts))
        self._seen = bytearray(len(self._values))
        self._values.append(_LAST)  # a sentinel, so that there is always a next one
        self._values.append(_LAST)

    def see(self, hashes: Sequence[str]) -> list[int]:
        """Return the number of consents of each row if the ledger has all of them unchanged, else 0.

        Also records that the source has those rows.
        """
        values, begin, seen, found = self._values, self._begin, self._seen, []
        for one in hashes:
            least = int(one[:KNOWN_BY], 16) << _COUNT_BITS
            step = least >> _TO_STEP
            place = bisect_left(values, least, begin[step], begin[step + 1])
            if values[place] == least + 1 != values[place + 1]:  # the common case, and faster
                seen[place] = 1
                found.append(1)
            else:
                found.append(self._see_several(place, values[place] - least))
        return found

    def _see_several(self, place: int, consents: int) -> int:
        """Mark a row's consents as seen, if the ledger has exactly these."""
        if not 1 < consents <= _MOST_CONSENTS:
            return 0
        values, end = self._values, place + consents
        if end > len(self._seen) or not values[place] == values[end - 1] != values[end]:
            return 0
        self._seen[place:end] = b"\1" * consents
        return consents

    @property
    def seen(self) -> int:
        """Count the consents of the rows that the source has."""
        return self._seen.count(1)

    def unseen(self) -> Iterator[str]:
        """Return the starts of the hashes that the source does not have."""
        for place, was_seen in enumerate(self._seen):
            if not was_seen:
                yield f"{self._values[place] >> _COUNT_BITS:0{KNOWN_BY}x}"
