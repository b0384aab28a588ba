"""The run folder: one task instance's memory, on a file system that every try of it can see."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.journal.dead_letters import DeadLetters
from airflow_provider_regal.journal.files import rewrite
from airflow_provider_regal.journal.marker import MARKER, VERSION, Marker, marker_of
from airflow_provider_regal.journal.progress import Progress
from airflow_provider_regal.journal.rows import read_rows, storable, write_rows

_DEAD_LETTERS: Final = "dead_letters.jsonl"
_WEIGHTS: Final = "weights.bin"
_INDEX: Final = "index.db"
SYNC_FILE: Final = "sync.db"


class FolderInUseError(OSError):
    """Another try still holds the folder."""


class FolderReplacedError(OSError):
    """Somebody removed, emptied or replaced the folder while a try had it open."""


class RunFolder:
    """The files of one run folder; at most one try has it open.

    :param path: made, readable by its owner only, when missing.
    :raises FolderInUseError: another process sends from it.
    """

    reserves_for_s: float | None = None  # reserving costs next to nothing

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path, self.name = path, str(path)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise FolderInUseError(f"another try still sends from {path}") from error
        self._progress: Progress | None = None
        self._dead_letters: DeadLetters | None = None

    def wait_s(self, now: float) -> float:
        """Say whether something may be sent: 0 for yes, else the seconds until it is worth asking again."""
        return 0.0

    def sync(self) -> None:
        """Force to disk what became of the rows, the dead letters first; may run in another thread.

        :raises FolderReplacedError: it would go into files nobody will find.
        """
        self._check_it_is_still_there()
        self.progress.sync(lambda: self._dead_letters.sync() if self._dead_letters is not None else None)

    def _check_it_is_still_there(self) -> None:
        if not self._is_still_there():
            raise FolderReplacedError(f"{self.path} was removed, emptied or replaced while rows were sent from it")

    def _is_still_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock), (self.path / "lock").stat())
        except FileNotFoundError:
            return False

    @property
    def marker(self) -> Marker | None:
        """Read the marker; None in a new folder."""
        try:
            return marker_of((self.path / MARKER).read_bytes())
        except FileNotFoundError:
            return None

    @marker.setter
    def marker(self, marker: Marker) -> None:
        self._replace(MARKER, {"version": VERSION, **asdict(marker)})

    @property
    def row_count(self) -> int | None:
        """Say how many rows the snapshot holds; None if it is not complete."""
        text = self._read("rows.json")
        return int(text["count"]) if text else None

    @property
    def progress(self) -> Progress:
        """The log of reserved and settled rows.

        :raises CorruptProgress: it cannot be read.
        """
        if self._progress is None:
            self._progress = Progress(self.path / "progress.log")
            if (self.path / _WEIGHTS).exists():
                self._progress.weights = array("I", (self.path / _WEIGHTS).read_bytes())
        return self._progress

    @property
    def dead_letters(self) -> DeadLetters:
        """The rejected and unknown rows."""
        if self._dead_letters is None:
            self._dead_letters = DeadLetters(self.path / _DEAD_LETTERS)
        return self._dead_letters

    def start_over(self) -> None:
        """Forget everything but the marker and the lock."""
        self.close_files()
        for file in self.path.iterdir():
            # A folder in it holds other deliveries of the same task.
            if file.name not in ("lock", "marker.json") and not file.is_dir():
                file.unlink()

    def take_snapshot(
        self, rows: Iterable[Mapping[str, Any]], *, weight_of: Callable[[Mapping[str, Any]], int] = lambda row: 1
    ) -> None:
        """Read the whole source into the folder.

        :param weight_of: for how many rows of the source a row stands.
        """
        self._drop_snapshot()
        weights = array("I")
        with _private_files():
            count = write_rows(self.path, _weighed(rows, weight_of, weights))
            if any(weight != 1 for weight in weights):
                (self.path / _WEIGHTS).write_bytes(weights.tobytes())
                self.progress.weights = weights
        self._replace("rows.json", {"count": count})

    @property
    def source_rows(self) -> int:
        """Say how many rows the source gave, as far as the folder knows."""
        weights = self.progress.weights
        return (self.row_count or self.progress.length) if weights is None else sum(weights)

    @property
    def index_path(self) -> Path:
        """Say where the index over the rows lies."""
        return self.path / _INDEX

    def rows(self, *, without: Callable[[int], bool] = lambda position: False) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read the snapshot back.

        :param without: whether the row of a position is not needed.
        :raises OSError: it is not the one that was taken.
        """
        return read_rows(self.path, self.row_count or 0, without=without)

    def drop_rows(self) -> None:
        """Remove the rows; dead letters keep what is still needed."""
        self._drop_snapshot()
        for file in (*self.path.glob(f"{_INDEX}*"), self.path / SYNC_FILE):
            file.unlink(missing_ok=True)

    def _drop_snapshot(self) -> None:
        (self.path / "rows.json").unlink(missing_ok=True)
        for chunk in self.path.glob("rows-*.jsonl"):
            chunk.unlink()

    def withheld(self, position: int, reasons: list[str], row: Mapping[str, Any]) -> None:
        """Keep which opt-ins of a row were not sent, and why.

        :param row: what was sent of it; the row itself where nothing was.
        """
        with _private_files(), (self.path / "withheld.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({"position": position, "withheld": reasons, "row": storable(row)}) + "\n")

    def keep_notes(self, *, plan: Mapping[str, int], left_out: Mapping[str, int]) -> None:
        """Keep what was found out while the source was read.

        :param plan: of a sync.
        :param left_out: why the source left rows out -> how many.
        """
        if plan or left_out:
            self._replace("notes.json", {"plan": plan, "left_out": left_out})

    def notes(self) -> tuple[dict[str, int], dict[str, int]]:
        """Give back what :meth:`keep_notes` kept: the plan, and what was left out."""
        notes = self._read("notes.json") or {}
        return notes.get("plan", {}), notes.get("left_out", {})

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Keep the report of this try."""
        self._replace("report.json", report)

    def read_report(self) -> Mapping[str, Any]:
        """Read the report of the last try that wrote one."""
        return self._read("report.json") or {}

    def close_files(self) -> None:
        """Close progress and dead letters, each forced to disk; only rows that are still dead keep a letter."""
        progress = self.progress if self._dead_letters is not None else self._progress
        ours = self._is_still_there()  # else the letters there are of a folder that took this one's place
        if ours and progress is not None and (self.path / _DEAD_LETTERS).exists():
            letters: DeadLetters | None = self.dead_letters
        else:
            letters = self._dead_letters
        self._progress = self._dead_letters = None
        try:
            if letters is not None and progress is not None:
                letters.close(progress.is_dead if ours else None)  # some may be dead no longer
        finally:
            if progress is not None:
                progress.close()

    def close(self) -> None:
        """Close everything and let the next try in."""
        try:
            self.close_files()
        finally:
            os.close(self._lock)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def _replace(self, name: str, content: Mapping[str, Any]) -> None:
        self._check_it_is_still_there()
        rewrite(self.path / name, [json.dumps(content) + "\n"])


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _weighed(
    rows: Iterable[Mapping[str, Any]], weight_of: Callable[[Mapping[str, Any]], int], weights: array[int]
) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        weights.append(weight_of(row))
        yield row


def remove_old_folders(storage: Path, *, older_than_s: float, now: float) -> int:
    """Remove run folders nothing was written to for long.

    :returns: how many were removed.
    """
    removed = 0
    for marker in list(storage.rglob("marker.json")):  # it would walk into what is removed
        folder = marker.parent
        if now - _last_written(folder) > older_than_s and not _in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _last_written(folder: Path) -> float:
    """Find when a folder, or one in it, was last written to."""
    newest = 0.0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else removes it as well
            newest = max(newest, file.stat().st_mtime)
    return newest


def _in_use(folder: Path) -> bool:
    for lock in folder.rglob("lock"):
        with contextlib.suppress(FileNotFoundError), lock.open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
