"""Whether run folders can live where they should: written, read back, taken by one, locked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

_TEXT: Final = "written by the check of airflow-provider-regal"
_SHARED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "fuse.s3fs", "9p"})


def check_storage(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Try out what the journal needs of a file system.

    :returns: how it is, what was looked at, what was found.
    """
    trial = folder / f".check-{uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        trial.mkdir(mode=0o700)
        try:
            problem = _problem(trial)
        finally:
            for file in trial.iterdir():
                file.unlink()
            trial.rmdir()
    except OSError as error:
        yield "failure", "storage", f"{folder}: {error.strerror}. Workers must be able to write there"
        return
    if problem is not None:
        yield "failure", "storage", f"{folder}: {problem}"
        return
    kind = file_system_of(folder)
    where = "shared" if kind in _SHARED else "local to this machine"
    yield "ok", "storage", f"{folder}: written, read back, taken by one, locked ({kind}, {where})"


def _problem(trial: Path) -> str | None:
    first, second = trial / "a", trial / "b"
    first.write_text(_TEXT)
    if first.read_text() != _TEXT:
        return "what was written is not what was read"
    os.link(first, second)
    try:
        os.link(first, second)
    except FileExistsError:
        pass
    else:
        return "two can take the same file: redeliveries would send a letter twice. Use another file system"
    with first.open() as one, first.open() as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
    return "it does not lock: two tries could send at once. Use another file system"


def file_system_of(folder: Path) -> str:
    """Name the kind of file system a folder lies on, as Linux does."""
    best, kind = "", "unknown"
    for line in _mounts():
        _, mount, this, *_ = line.split(" ")
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, this
    return kind


def _mounts() -> list[str]:
    mounts = Path("/proc/mounts")
    return mounts.read_text().splitlines() if mounts.exists() else []
