"""Progress: what became of each row, in a log that is only ever appended to.

A line is a letter and a position: ``R 17`` reserved (it may be sent now), ``N 17`` surely not sent or not applied
after all, ``A 17`` acknowledged, ``J 17`` rejected, ``U 17`` unknown, ``S 17`` skipped. The last line of a position
counts. What was written survives the death of the process; reservations survive that of the machine, since they are
forced to disk before the row is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

from airflow_provider_regal.journal.files import append_whole, sync_folder

_LINE: Final = re.compile(rb"([RNAJUS]) (\d{1,9})\n")


class Outcome(StrEnum):
    """What became of a row."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


_LETTERS: Final = {
    Outcome.ACKNOWLEDGED: ord("A"),
    Outcome.REJECTED: ord("J"),
    Outcome.UNKNOWN: ord("U"),
    Outcome.SKIPPED: ord("S"),
}
_OUTCOMES: Final = {letter: outcome for outcome, letter in _LETTERS.items()}
_RESERVED: Final = ord("R")
_RELEASED: Final = ord("N")


class CorruptProgressError(ValueError):
    """A line of the log cannot be read, so nobody can tell which rows were sent."""


class Progress:
    """The log of one run folder.

    :param path: the file; made when missing.
    :raises CorruptProgressError: it holds a line, other than a torn last one, that is no entry.
    """

    def __init__(self, path: Path) -> None:
        self._states = bytearray()  # a letter a position, so that a million rows take a megabyte
        whole = self._replay(path) if path.exists() else None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if whole is None:
            sync_folder(path.parent)
        else:
            os.ftruncate(self._file, whole)
        self._pending: list[str] = []

    def _replay(self, path: Path) -> int:
        """Read the log; gives the length of what is whole, without an entry cut off by a crash."""
        whole = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                entry = _LINE.fullmatch(line)
                if entry is not None:
                    self._set(int(entry.group(2)), entry.group(1)[0])
                elif line.endswith(b"\n"):
                    raise CorruptProgressError(f"line {number} of the progress log is not an entry")
                else:
                    break
                whole += len(line)
        return whole

    def outcome(self, position: int) -> Outcome | None:
        """Say what became of a row; None if it is not settled."""
        return _OUTCOMES.get(self._states[position]) if position < len(self._states) else None

    def is_reserved(self, position: int) -> bool:
        """Say whether a row may have been sent without an answer being noted."""
        return position < len(self._states) and self._states[position] == _RESERVED

    def is_dead(self, position: int) -> bool:
        """Say whether a row is rejected or unknown."""
        return self.outcome(position) in (Outcome.REJECTED, Outcome.UNKNOWN)

    def positions(self, outcome: Outcome) -> list[int]:
        """List the rows with an outcome."""
        letter = _LETTERS[outcome]
        return [position for position, state in enumerate(self._states) if state == letter]

    def count(self, outcome: Outcome) -> int:
        """Count the rows with an outcome."""
        return self._states.count(_LETTERS[outcome])

    @property
    def length(self) -> int:
        """Say up to which position anything is known."""
        return len(self._states)

    @property
    def may_have_sent(self) -> bool:
        """Whether any row was reserved, acknowledged or left unknown."""
        return any(self._states.count(letter) for letter in b"RAU")

    def reserve(self, positions: Iterable[int]) -> None:
        """Note that rows may be sent from now on; they must not be before :meth:`sync`."""
        reserved = list(positions)
        self.flush()
        self._write("".join(f"R {position}\n" for position in reserved))
        for position in reserved:
            self._set(position, _RESERVED)

    def sync(self) -> None:
        """Force to disk what was handed to the operating system; may run in another thread."""
        os.fdatasync(self._file)

    def release(self, position: int) -> None:
        """Take a reservation or an outcome back: the row is open again."""
        self._set(position, _RELEASED)
        self._pending.append(f"N {position}\n")

    def settle(self, position: int, outcome: Outcome) -> None:
        """Note what became of a row; written with the next :meth:`flush`."""
        self._set(position, _LETTERS[outcome])
        self._pending.append(f"{chr(_LETTERS[outcome])} {position}\n")

    def flush(self) -> None:
        """Hand everything noted to the operating system."""
        if self._pending:
            self._write("".join(self._pending))
            self._pending.clear()

    def close(self) -> None:
        """Flush, force to disk, and close."""
        try:
            self.flush()
            os.fdatasync(self._file)
        finally:
            os.close(self._file)

    def _set(self, position: int, letter: int) -> None:
        if position >= len(self._states):
            self._states.extend(bytes(position + 1 - len(self._states)))
        self._states[position] = letter

    def _write(self, text: str) -> None:
        append_whole(self._file, text.encode(), "the progress log")
