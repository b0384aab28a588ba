"""Which rows of a source the ledger knows as they are, by their hashes: nine bytes of memory each, found at once.

A hash is cut to 60 bits here, and the number of consents in its row is put beside it. That a row which did change is
taken for one that did not has odds of one in a million million for each row, at a million rows known.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

#: Characters of a hash that count here.
KNOWN_BY: Final = 15
_HASH_LENGTH: Final = 32
_COUNT_BITS: Final = 3
_MOST_CONSENTS: Final = (1 << _COUNT_BITS) - 1
_BUCKETS: Final = 256
_SEEN: Final = tuple(b"\1" * consents for consents in range(_MOST_CONSENTS + 1))
_TO_BUCKET: Final = 4 * KNOWN_BY + _COUNT_BITS - 8


class KnownRows:
    """The hashes of the ledger, sorted.

    :param hashes: of each consent, that of its row as the ledger has it: with the number of its consents at the end.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        buckets = [array("Q") for _ in range(_BUCKETS)]
        for one in hashes:
            value = int(one[:KNOWN_BY], 16) << _COUNT_BITS | int(one[_HASH_LENGTH:]) & _MOST_CONSENTS
            buckets[value >> _TO_BUCKET].append(value)
        self._buckets = [array("Q", sorted(bucket)) for bucket in buckets]
        self._seen = [bytearray(len(bucket)) for bucket in buckets]

    def see(self, hashes: Sequence[str]) -> list[int]:
        """Say of rows how many consents each has if the ledger knows all of them as they are, else 0.

        It is noted that the source has those rows.
        """
        buckets, seen, found = self._buckets, self._seen, []
        for one in hashes:
            least = int(one[:KNOWN_BY], 16) << _COUNT_BITS
            bucket = buckets[least >> _TO_BUCKET]
            place = bisect_left(bucket, least)
            consents = 0
            if place < len(bucket) and (value := bucket[place]) - least <= _MOST_CONSENTS:
                end = place + (value & _MOST_CONSENTS)  # all of them must be there, and no more
                if end <= len(bucket) and bucket[end - 1] == value and (end == len(bucket) or bucket[end] != value):
                    consents = end - place
                    seen[least >> _TO_BUCKET][place:end] = _SEEN[consents]
            found.append(consents)
        return found

    @property
    def seen(self) -> int:
        """Count the consents of the rows that the source has."""
        return sum(bucket.count(1) for bucket in self._seen)

    def unseen(self) -> Iterator[str]:
        """Give the beginnings of the hashes that the source does not have."""
        for bucket, seen in zip(self._buckets, self._seen, strict=True):
            for value, was_seen in zip(bucket, seen, strict=True):
                if not was_seen:
                    yield f"{value >> _COUNT_BITS:0{KNOWN_BY}x}"
