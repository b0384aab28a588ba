"""Like ``regal``, plus its disk space; the source may be PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.senders import regal
from benchmarks.senders.work import Work

_EVERY_S = 1.0
_at_most: dict[str, int] = {}


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    done = Event()
    watching = Thread(target=_watch, args=(work.path, done))
    watching.start()
    try:
        return regal.send(work)
    finally:
        done.set()
        watching.join()


def also(work: Work) -> dict[str, Any]:
    """Return the ledger's final and maximum disk space."""
    folder = regal.ledger_file(work).parent
    left = _sizes(folder)
    return {"disk": sum(left.values()), "disk_peak": sum(_at_most.values()), "files": left, "files_peak": _at_most}


def _watch(folder: Path, done: Event) -> None:
    while not done.wait(_EVERY_S):
        sizes = _sizes(folder)
        if sum(sizes.values()) > sum(_at_most.values()):
            _at_most.clear()
            _at_most.update(sizes)


def _sizes(folder: Path) -> dict[str, int]:
    """Add up the sizes of the files of each name; a file may disappear in the meantime."""
    sizes: dict[str, int] = {}
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if file.is_file():
                sizes[file.name] = sizes.get(file.name, 0) + file.stat().st_size
    return sizes
