"""A run folder on object storage: a working folder on this machine, mirrored after every checkpoint.

What a row needs before it is sent is in the bucket first: the rows of the source, the marker, and under
``at_most_once`` its reservation. Reservations are made ahead, so that the bucket's latency slows nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.bucket import Bucket, StorageError
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.mirror import Mirror
from airflow_provider_regal.journal.rows import ROWS_PER_CHUNK
from airflow_provider_regal.journal.run_folder import RunFolder
from airflow_provider_regal.journal.segment import DamagedError, Rank
from airflow_provider_regal.journal.segment_log import FolderTakenError, SegmentLog
from airflow_provider_regal.journal.working_folder import WorkingFolder

_log = logging.getLogger(__name__)
_LEAST_SPAN_S: Final = 2.0
# The storage's times are whole seconds, and a request has to leave after it was decided.
_SLACK_S: Final = 2.0
_ASK_AGAIN_S: Final = 0.05


class MirroredFolder(RunFolder):
    """The files of one run folder on object storage; at most one try holds it.

    :param rank: which try this is; a later one asks an earlier one to leave, and waits for it.
    :param checkpoint_interval_s: seconds between two checkpoints. Nothing is sent once two have been missed.
    :param timeout_s: how long a request may be under way.
    :param stopped: whether the task was told to stop while it waits.
    :param parent: where the working folder is made.
    :raises FolderInUseError: another try sends from it.
    :raises StorageError: object storage cannot be reached.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        rank: Rank,
        checkpoint_interval_s: float,
        timeout_s: float,
        clock: Clock,
        stopped: Callable[[], bool] = lambda: False,
        parent: Path | None = None,
    ) -> None:
        self.bucket = bucket
        self._clock = clock
        self._span_s = max(2 * checkpoint_interval_s, _LEAST_SPAN_S)
        quiet_s = self._span_s + timeout_s + _SLACK_S
        log = SegmentLog(bucket, rank=rank, quiet_s=quiet_s, clock=clock, stopped=stopped)
        self._working = WorkingFolder(parent)
        self._mirror = Mirror(self._working.path, bucket, log)
        self._broken: StorageError | FolderTakenError | None = None
        self._mirrored_at = clock.monotonic()
        try:
            damage = self._pull()
            super().__init__(self._working.path)
        except BaseException:
            self._let_go()
            raise
        self.name = str(bucket)
        self.reserves_for_s = 2 * checkpoint_interval_s
        if damage is not None:
            self._pretend_it_is_corrupt(rank, damage)

    def _pull(self) -> DamagedError | None:
        try:
            self._mirror.pull()
        except DamagedError as error:
            return error
        finally:
            self._mirrored_at = self._clock.monotonic()
        return None

    def _pretend_it_is_corrupt(self, rank: Rank, damage: DamagedError) -> None:
        """Leave what a torn local folder would: nobody can tell what was sent, so somebody has to decide."""
        _log.warning("%s: %s", self.name, damage)
        for file in self.path.iterdir():
            if file.name != "lock":
                file.unlink()
        (self.path / "progress.log").write_text("damaged\n")
        self.marker = Marker("", rank.epoch, rank.number - 1)

    def sync(self) -> None:
        """Force to disk and into the bucket what became of the rows; may run in another thread.

        :raises FolderTakenError: another try asks for the folder.
        :raises StorageError: the bucket does not take it.
        """
        super().sync()
        self._push()

    def wait_s(self, now: float) -> float:
        """Say whether something may be sent: not while the bucket is so late that two checkpoints were missed."""
        return _ASK_AGAIN_S if now - self._mirrored_at > self._span_s else 0.0

    def start_over(self) -> None:
        """Forget everything but the marker and the lock."""
        super().start_over()
        self._mirror.forget_files()

    def take_snapshot(
        self, rows: Iterable[Mapping[str, Any]], *, weight_of: Callable[[Mapping[str, Any]], int] = lambda row: 1
    ) -> None:
        """Read the whole source into the folder, and upload what is complete of it meanwhile."""
        super().take_snapshot(self._uploading(rows), weight_of=weight_of)

    def close(self) -> None:
        """Mirror the last, remove the working folder, and let the next try in."""
        try:
            super().close_files()
            self._close_mirror()
        finally:
            try:
                super().close()
            finally:
                self._let_go()

    def _close_mirror(self) -> None:
        broken = self._broken
        try:
            if broken is None:
                self._mirror.copy_for_people()
            self._mirror.push(last=True)
        except (StorageError, FolderTakenError) as error:
            if broken is None:
                raise
            _log.warning("What this try knew last is not kept: %s", error)

    def _push(self) -> None:
        if self._broken is not None:  # patience has ended once: sending stops
            raise self._broken
        began = self._clock.monotonic()
        try:
            self._mirror.push()
        except (StorageError, FolderTakenError) as error:
            self._broken = error
            raise
        self._mirrored_at = began

    def _uploading(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for number, row in enumerate(rows):
            if number % ROWS_PER_CHUNK == 0:
                for chunk in sorted(self.path.glob("rows-*.jsonl"))[:-1]:  # the last may be half written
                    self._mirror.upload_ahead(chunk.name)
            yield row

    def _let_go(self) -> None:
        self._mirror.close()
        self._working.close()
