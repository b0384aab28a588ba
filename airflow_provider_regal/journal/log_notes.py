"""The log of a run folder on object storage, as one sees it who does not send from the folder, but notes something."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.run_folder import FolderInUseError
from airflow_provider_regal.journal.segment import Kind, Part, Rank, Segment
from airflow_provider_regal.journal.segment_log import LOG, SegmentLog

_NOBODY: Final = Rank(-1, 0)
# By two clocks, which S3 lets differ by a quarter of an hour.
DEAD_AFTER_S: Final = 1_800.0


class NotingLog(SegmentLog):
    """The log of a folder that others send from.

    A note is the next number as well: it is made only where nobody has added anything since the log was read.
    """

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        super().__init__(bucket, rank=_NOBODY, quiet_s=0.0, clock=clock)

    def look(self) -> list[Segment]:
        """Read it anew; nothing is written.

        :raises DamagedError: it has a hole.
        """
        self._found, self._last = {}, 0
        self._read()
        return self._segments()

    @property
    def last_rank(self) -> Rank:
        """The highest rank of who held the folder, or asked for it."""
        return max((segment.rank for segment in self._found.values()), default=_NOBODY)

    def check_nobody_holds_it(self) -> None:
        """Let nobody be disturbed.

        :raises FolderInUseError: somebody holds the folder, or waits for it, and was heard of not long ago.
        """
        if self._last and not self._found[self._last].kind.is_idle:
            stored = self._bucket.list(LOG).get(f"{LOG}/{self._last:09d}")
            if stored is None or self._clock.now().timestamp() - stored.modified < DEAD_AFTER_S:
                raise self._in_use()

    def note(self, part: Part) -> bool:
        """Add to a file of the folder, if the log is still as it was read.

        :returns: whether it was.
        """
        segment = replace(self._blank, kind=Kind.NOTE, parts=(part,))
        if not self._create(segment):
            return False
        self._found[self._last] = segment
        self._check_it_is_exclusive()
        return True

    def catch_up(self) -> list[Segment]:
        """Read the log anew, after somebody else has added to it.

        :raises FolderInUseError: it was more than a note: what was read of the folder before may hold no longer.
        """
        before = self._last
        segments = self.look()
        if any(self._found[number].kind is not Kind.NOTE for number in self._found if number > before):
            raise FolderInUseError(f"a task has worked in {self._bucket} meanwhile")
        return segments
