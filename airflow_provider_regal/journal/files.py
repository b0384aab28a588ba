"""Files that must be whole: appended to or replaced as a whole, or not at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

_BLOCK: Final = 64 * 1024


def append_whole(file: int, data: bytes, what: str) -> None:
    """Append to an open file.

    :param what: the file, for the message.
    :raises OSError: the disk did not take all of it; none of it is left behind.
    """
    written = os.write(file, data)
    if written != len(data):  # a full disk takes a part
        with suppress(OSError):
            os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(f"{what} could be written only in part: is the disk full?")


def cut_torn_line(file: int) -> None:
    """Cut off what follows the last line break: a crash left it there."""
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)


def rewrite(path: Path, lines: Iterable[str]) -> None:
    """Replace a file as a whole, or not at all."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.writelines(lines)
        out.flush()
        os.fsync(out.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force to disk which files a folder has, where its file system can."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(opened)
    finally:
        os.close(opened)


def open_scratch(path: Path) -> sqlite3.Connection:
    """Open a working file of SQLite in a run folder: it is made anew after a crash, so nothing waits for the disk.

    The folder's own lock keeps others away; SQLite's would not hold on every network file system.
    """
    where = f"file:{quote(str(path))}?nolock=1"
    database = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
    database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
    return database
