"""The log of a run folder on object storage: numbered segments, each made only if nobody else made its number.

So it is the lease as well. Who appends the next number holds the folder; who finds it taken by another does not, and
can note nothing more: not one reservation, hence not one row under ``at_most_once``. No clock is needed for that.

::

    try 1   take ── write ── write ──────── close
                               │            ▲   │  (or nothing more, for ``quiet_s``: it died)
    try 2                    claim ── wait ─┘   └─ take ── write ── ...

A clock is needed only to wait until nothing of a dead try is under way any more: that of the storage, and only its
differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import uuid4

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import FixConnectionError
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.run_folder import FolderInUseError, FolderReplacedError
from airflow_provider_regal.journal.segment import DamagedError, Kind, Part, Rank, Segment, decode

LOG: Final = "log"
_NAME: Final = re.compile(rf"{LOG}/(\d{{9}})")
_POLL_S: Final = 0.5
_LISTED_AGAIN: Final = 5


class FolderTakenError(FolderReplacedError):
    """Another try holds the folder."""


class SegmentLog:
    """The log of one run folder, as one try sees it.

    :param rank: which try it is.
    :param quiet_s: after how many seconds without a segment nothing of this try is under way.
    :param stopped: whether the task was told to stop while it waits.
    """

    def __init__(
        self, bucket: Bucket, *, rank: Rank, quiet_s: float, clock: Clock, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._bucket = bucket
        self._clock = clock
        self._stopped = stopped
        self.writer = uuid4().hex
        self._blank = Segment(Kind.WRITE, self.writer, rank, quiet_s)
        self._found: dict[int, Segment] = {}
        self._fences: set[int] = set()
        self._last = 0
        self._asked_to_leave = False
        self._lost = False

    def superfluous(self) -> list[str]:
        """Name the objects of the log that nobody needs once there is a whole segment.

        Not those by which somebody took the folder, asked for it or noted something: each stands where whoever was
        before it would go on. If that one wakes up, however late, it must find its next number taken.
        """
        return [_name(number) for number in self._numbers() if number not in self._fences]

    def take(self) -> list[Segment]:
        """Take the folder, once nobody sends from it any more.

        :returns: the segments that count, none in a new folder.
        :raises FolderInUseError: a try that is not below this one sends from it, or another was faster.
        :raises DamagedError: the log has a hole; the folder is taken all the same.
        """
        damage: DamagedError | None = None
        try:
            self._read()
        except DamagedError as error:
            damage = error
        if (holder := self._holder()) is not None:
            self._wait_for(holder)
        taken = self._create(take := replace(self._blank, kind=Kind.TAKE))
        while not taken and self._hears_it_is_done(asked=False):  # somebody has noted something meanwhile
            taken = self._create(take)
        if not taken or max(self._numbers()) > self._last:
            # The latter: we slept for so long that the number was used, and removed as superfluous.
            raise FolderInUseError(f"another try has taken {self._bucket} meanwhile")
        self._check_it_is_exclusive()
        if damage is not None:
            raise damage
        return self._segments()

    def _segments(self) -> list[Segment]:
        return [self._found[number] for number in sorted(self._found)]

    def _check_it_is_exclusive(self) -> None:
        if not self._bucket.is_exclusive(_name(self._last), b"nobody\n"):
            raise FixConnectionError(
                f"{self._bucket}: this storage lets two writers make the same object (it ignores If-None-Match), so "
                "two tries could send at once. Use S3, or a storage that knows conditional writes."
            )

    def append(
        self, *, kind: Kind = Kind.WRITE, parts: tuple[Part, ...] = (), gone: tuple[str, ...] = (), whole: bool = False
    ) -> None:
        """Add a segment, which says at the same time that the folder is still held.

        :param gone: is needed even if it is whole: after a claim only something may be added.
        :raises FolderTakenError: it is not: another try asks for it, or has it.
        :raises StorageError: nobody can tell.
        """
        added = replace(self._blank, kind=kind, parts=parts, gone=gone, whole=whole)
        while not self._lost and (kind is Kind.CLOSE or not self._asked_to_leave):
            if self._create(replace(added, whole=whole and not self._asked_to_leave)):
                return
            content = self._bucket.get(_name(self._last + 1))
            if content is not None and decode(content).kind is Kind.CLAIM:  # there is time for a last word
                self._asked_to_leave = True
                self._last += 1
            else:
                self._lost = True
        raise FolderTakenError(f"another try has taken over {self._bucket}")

    @property
    def leaves(self) -> bool:
        """Whether another try has asked for the folder."""
        return self._asked_to_leave

    def _create(self, segment: Segment) -> bool:
        made = self._bucket.create(_name(self._last + 1), segment.encode(self._last + 1))
        self._last += made
        if made:
            self._note(self._last, segment)
        return made

    def _note(self, number: int, segment: Segment) -> None:
        if segment.kind in (Kind.TAKE, Kind.CLAIM, Kind.NOTE):
            self._fences.add(number)

    def _read(self) -> None:
        """Read everything from the last whole segment on.

        :raises DamagedError: something of it is missing.
        """
        for _ in range(_LISTED_AGAIN):
            numbers = self._numbers()
            if not numbers:
                return
            self._last = max(numbers)
            contents = self._bucket.get_many(map(_name, numbers))
            found = {_number(key): decode(content) for key, content in contents.items() if content is not None}
            for number, segment in found.items():
                self._note(number, segment)
            first = max((number for number, segment in found.items() if segment.whole), default=1)
            self._found = {number: segment for number, segment in found.items() if number >= first}
            if len(self._found) == self._last - first + 1:
                return
            # Its holder may be putting it together just now: then listing again finds all.
        raise DamagedError(f"the log of {self._bucket} has a hole")

    def _numbers(self) -> list[int]:
        return [number for key in self._bucket.list(LOG) if (number := _number(key))]

    def _holder(self) -> Segment | None:
        """Find who may send from the folder."""
        spoken = self._last_word()
        return self._found[spoken] if spoken and not self._found[spoken].kind.is_idle else None

    def _last_word(self) -> int:
        """Find the last segment that is no claim."""
        return max((number for number, segment in self._found.items() if segment.kind is not Kind.CLAIM), default=0)

    def _wait_for(self, holder: Segment) -> None:
        """Wait until the holder is done, or nothing of it can be under way any more."""
        asked, silent_s = holder.rank < self._blank.rank, 0.0
        if asked:
            while not self._create(claim := replace(self._blank, kind=Kind.CLAIM)):
                if self._hears_it_is_done(asked=asked):
                    return
            self._found[self._last] = claim
            silent_s = self._silent_s()
        started = self._clock.monotonic() - silent_s
        while self._clock.monotonic() - started < holder.quiet_s:
            if self._hears_it_is_done(asked=asked):
                return
            if self._stopped():
                raise self._in_use()
            self._clock.sleep(_POLL_S)

    def _silent_s(self) -> float:
        """Say for how long the holder had been silent when we made our claim, by the storage's clock."""
        listed = self._bucket.list(LOG)
        ours, its = listed.get(_name(self._last)), listed.get(_name(self._last_word()))
        return max(ours.modified - its.modified, 0.0) if ours and its else 0.0

    def _hears_it_is_done(self, *, asked: bool) -> bool:
        """Read the next segment, if there is one.

        :raises FolderInUseError: it shows that the folder is not going to be ours.
        """
        content = self._bucket.get(_name(self._last + 1))
        if content is None:
            return False
        self._last += 1
        word = self._found[self._last] = decode(content)
        self._note(self._last, word)
        if word.kind.is_idle:
            return True
        if not asked or word.kind is not Kind.WRITE:
            raise self._in_use()
        return False

    def _in_use(self) -> FolderInUseError:
        return FolderInUseError(f"another try still sends from {self._bucket}")


def _name(number: int) -> str:
    return f"{LOG}/{number:09d}"


def _number(key: str) -> int:
    found = _NAME.fullmatch(key)
    return int(found.group(1)) if found else 0
