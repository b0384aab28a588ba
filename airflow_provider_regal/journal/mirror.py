"""A working folder on this machine, and its mirror on object storage.

::

    <run folder>/log/000000001        what was added, piece by piece, and who holds the folder (see segment_log)
                 files/<writer>-...   what is too large for a segment: rows, indexes, long progress
                 dead_letters.jsonl   copies for people and for redelivery, as the last try left them
                 report.json

Each push makes one segment of everything that changed. Progress is read before the dead letters, so that no segment
says of a row that it is dead without its letter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from airflow_provider_regal.journal.bucket import Bucket, StorageError
from airflow_provider_regal.journal.parts import bring
from airflow_provider_regal.journal.run_folder import SYNC_FILE
from airflow_provider_regal.journal.segment import DamagedError, Kind, Part, files_of
from airflow_provider_regal.journal.segment_log import SegmentLog

_log = logging.getLogger(__name__)
FILES: Final = "files"
_PROGRESS: Final = "progress.log"
_LETTERS: Final = "dead_letters.jsonl"
_APPENDED: Final = (_PROGRESS, _LETTERS, "withheld.jsonl")  # in the order in which they must be read
COPIED: Final = ("report.json", *_APPENDED[1:])
_ROWS_ARE_COMPLETE: Final = "rows.json"
_NOT_MIRRORED: Final = ("lock", SYNC_FILE)
_INLINE_BYTES: Final = 512 * 1024
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class _Known:
    """What the bucket has of a file.

    :param inode: of the file, and ``changed`` when it was written to: they tell whether it is still the same.
    :param key: of the object that holds all of it; None if it is in pieces.
    """

    size: int
    inode: int
    changed: int
    key: str | None


class Mirror:
    """Copies a run folder to object storage and back.

    :param folder: the working folder.
    :param log: its log; taken already.
    """

    def __init__(self, folder: Path, bucket: Bucket, log: SegmentLog) -> None:
        self._folder = folder
        self._bucket = bucket
        self._log = log
        self._known: dict[str, _Known] = {}
        self._pushing = threading.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="regal-storage")
        self._uploads: dict[str, Future[Part]] = {}
        self._objects = 0
        self._counting = threading.Lock()
        self._everything = False
        self._at_rest = False

    def pull(self) -> None:
        """Take the folder, and bring it here.

        :raises DamagedError: it is taken, but nobody can tell what was in it.
        """
        try:
            files = files_of(self._log.take())
        except DamagedError:
            self._everything = True  # with the next push the log begins anew
            raise
        for _ in self._threads.map(self._bring, files, files.values()):
            pass

    def _bring(self, name: str, parts: list[Part]) -> None:
        file = self._folder / name
        bring(self._bucket, parts, file)
        self._known[name] = self._as_known(file, parts[0].key if len(parts) == 1 else None)

    def upload_ahead(self, name: str) -> None:
        """Begin to upload a file that is complete, while others are still written."""
        if name not in self._uploads:
            self._uploads[name] = self._threads.submit(self._upload, self._folder / name)

    def forget_files(self) -> None:
        """Take note that files are made anew: whatever has an old name is another file."""
        for upload in self._uploads.values():
            upload.cancel()
        self._uploads.clear()
        self._everything = True

    def push(self, *, last: bool = False) -> None:
        """Write everything that changed as one segment; without any change it says that we are still there.

        :param last: nothing is sent any more: put everything together, and let the next try in.
        :raises FolderTakenError: another try asks for the folder, or has it.
        :raises StorageError: object storage does not take it.
        """
        with self._pushing:
            whole, self._at_rest = last or self._everything, last
            stale = self._stale() if last else []
            parts, known = [], {}
            for part, now_known in self._changes(whole=whole):
                known[now_known[0]] = now_known[1]
                if part is not None:
                    parts.append(part)
            gone = tuple(name for name in self._known if name not in known)
            self._log.append(kind=Kind.CLOSE if last else Kind.WRITE, parts=tuple(parts), gone=gone, whole=whole)
            self._known, self._everything = known, False
            if last and not self._log.leaves:
                self._remove(set(stale) - {part.key for part in parts})

    def _remove(self, keys: set[str]) -> None:
        try:
            self._bucket.remove(sorted(keys))
        except StorageError as error:  # the next try does it, or retention
            _log.warning("What nobody needs any more was not removed: %s", error)

    def copy_for_people(self) -> None:
        """Put the report and the dead letters where they can be read without the log."""
        for name in COPIED:
            if (self._folder / name).exists() and not self._log.leaves:
                self._bucket.put_file(name, self._folder / name)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _changes(self, *, whole: bool) -> Iterator[tuple[Part | None, tuple[str, _Known]]]:
        """Give each file that is to be mirrored, with the part that is new of it."""
        there = {file.name for file in self._folder.iterdir() if self._is_mirrored(file)}
        others = sorted(there - set(_APPENDED))
        for name in (*others, *(name for name in _APPENDED if name in there)):
            file, known = self._folder / name, self._known.get(name)
            if self._everything:
                known = None
            now = self._as_known(file, None)
            same_file = known is not None and known.inode == now.inode and known.size <= now.size
            if name not in _APPENDED:
                unchanged = same_file and known is not None and (known.size, known.changed) == (now.size, now.changed)
            else:
                now = replace(now, size=_whole_lines(file, known.size if known and same_file else 0))
                unchanged = same_file and known is not None and known.size == now.size
            if unchanged and known is not None and (known.key or not whole):
                part = Part(name, known.size, None, known.key) if whole else None
                yield part, (name, known)
            elif name in _APPENDED and same_file and known is not None and not whole:
                yield self._part(file, known.size, now.size), (name, now)
            else:
                part = self._part(file, None, now.size)
                yield part, (name, replace(now, key=part.key))

    def _is_mirrored(self, file: Path) -> bool:
        if file.name in _NOT_MIRRORED or file.name.endswith(".new") or not file.is_file():
            return False
        # Rows that are not complete are read again.
        return not file.name.startswith("rows-") or (self._folder / _ROWS_ARE_COMPLETE).exists()

    def _part(self, file: Path, offset: int | None, end: int) -> Part:
        """Make a part of a file, from an offset on; None for all of it."""
        start = offset or 0
        if offset is None and (upload := self._uploads.pop(file.name, None)) is not None:
            part = upload.result()
            if part.size == end:
                return part
        grows = file.name in _APPENDED and not self._at_rest
        if end - start > _INLINE_BYTES and offset is None and not grows:
            return self._upload(file)
        with file.open("rb") as content:
            content.seek(start)
            data = content.read(end - start if file.name in _APPENDED else -1)
        if len(data) <= _INLINE_BYTES:
            return Part(file.name, len(data), offset, None, data)
        key = self._new_key(file.name)
        self._bucket.put(key, data)
        return Part(file.name, len(data), offset, key)

    def _upload(self, file: Path) -> Part:
        key = self._new_key(file.name)
        self._bucket.put_file(key, file)
        return Part(file.name, file.stat().st_size, None, key)

    def _new_key(self, name: str) -> str:
        with self._counting:
            self._objects += 1
            return f"{FILES}/{self._log.writer}-{self._objects:06d}-{name}"

    def _stale(self) -> list[str]:
        """List what a whole segment makes superfluous; before it is made, since then others may write here."""
        return [*self._log.superfluous(), *self._bucket.list(FILES)]

    @staticmethod
    def _as_known(file: Path, key: str | None) -> _Known:
        state = file.stat()
        return _Known(state.st_size, state.st_ino, state.st_mtime_ns, key)


def _whole_lines(file: Path, start: int) -> int:
    """Say where the last whole line of a file ends that somebody is appending to."""
    end = start
    with file.open("rb") as content:
        content.seek(start)
        while block := content.read(1024 * 1024):
            if (found := block.rfind(b"\n")) >= 0:
                end = content.tell() - len(block) + found + 1
    return end
