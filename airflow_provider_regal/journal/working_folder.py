"""A private folder on this machine for as long as a delivery lasts; what a killed one left behind is removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "regal-run-"
_YOUNG_S: Final = 60.0


class WorkingFolder:
    """A new folder that only its owner can read.

    :param parent: where; the machine's folder for temporary files by default.
    """

    def __init__(self, parent: Path | None = None) -> None:
        where = parent or Path(tempfile.gettempdir())
        _remove_abandoned(where)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=where))  # 0700
        self._held = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def _remove_abandoned(where: Path) -> None:
    """Remove the folders of processes that were killed: their rows are personal data."""
    for folder in where.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or removed by somebody else
            if time.time() - folder.stat().st_mtime > _YOUNG_S and not _is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(folder: Path) -> bool:
    opened = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False
