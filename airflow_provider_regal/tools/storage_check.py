"""Whether run folders can live where they should: written, read back, taken by one, locked. Leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

_TEXT: Final = "written by the check of airflow-provider-regal"
_SHARED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "fuse.s3fs", "9p"})
_UNKNOWN: Final = "of a kind this system does not tell"


def check_storage(folder: Path, mounts: Sequence[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Try out what the journal needs of a file system.

    :param mounts: lines of ``/proc/mounts``; None to read it.
    :returns: how it is, what was looked at, what was found.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        problem = _try_out(folder)
    except OSError as error:
        yield "failure", "storage", f"{folder}: {error.strerror or type(error).__name__}. Workers have to write there"
        return
    finally:
        for place in missing:  # a delivery makes it, as the user who runs it
            with suppress(OSError):
                place.rmdir()
    if problem is not None:
        yield "failure", "storage", f"{folder}: {problem}"
        return
    later = "; the first delivery makes it" if missing else ""
    yield "ok", "storage", f"{folder}: written, read back, taken by one, locked ({_kind_of(folder, mounts)}){later}"


def is_local(folder: Path, mounts: Sequence[str] | None = None) -> bool:
    """Whether a folder is known to be of this machine alone."""
    return file_system_of(folder, mounts) not in (*_SHARED, None)


def _kind_of(folder: Path, mounts: Sequence[str] | None) -> str:
    kind = file_system_of(folder, mounts)
    return _UNKNOWN if kind is None else f"{kind}, {'shared' if kind in _SHARED else 'local to this machine'}"


def _try_out(folder: Path) -> str | None:
    trial = folder / f".check-{uuid4().hex}"
    trial.mkdir(mode=0o700)
    try:
        return _problem(trial)
    finally:
        for file in trial.iterdir():
            file.unlink()
        trial.rmdir()


def _problem(trial: Path) -> str | None:
    first, second = trial / "a", trial / "b"
    first.write_text(_TEXT)
    if first.read_text() != _TEXT:
        return "what was written is not what was read. Use another file system"
    try:
        os.link(first, second)
    except OSError:
        return "it has no hard links, by which a redelivery takes its letters. Use another file system"
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


def file_system_of(folder: Path, mounts: Sequence[str] | None = None) -> str | None:
    """Name the kind of file system a folder lies on, as Linux does; None if that cannot be told."""
    best, kind = "", None
    for line in _mounts() if mounts is None else mounts:
        _, mount, this, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, this
    return kind


def _mounts() -> list[str]:
    mounts = Path("/proc/mounts")
    return mounts.read_text().splitlines() if mounts.exists() else []
