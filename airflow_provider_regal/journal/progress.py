"""Progress: what became of each row, in a log that is only ever appended to.

A line is a letter and a position: ``R 17`` reserved (it may be sent now), ``N 17`` surely not sent or not applied
after all, ``A 17`` acknowledged, ``K 17`` acknowledged and in the ledger, ``J 17`` rejected, ``U 17`` unknown, and
skipped: ``S 17`` unchanged, ``D 17`` its message was sent before, ``C 17`` its consent is stale, ``X 17`` left out by
its source, ``P 17`` it was a dry run, ``O 17`` something newer was sent since, ``H 17`` a redelivery has sent it. The
last line of a position counts.

What was written survives the death of the process; reservations survive that of the machine, since they are forced to
disk before the row is sent. No ``J`` or ``U`` is forced to disk before the dead letter it speaks of.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from airflow_provider_regal.journal.files import append_whole, sync_folder

_LINE: Final = re.compile(rb"([RNAKJUSDCXPOH]) (\d{1,9})\n")


class Outcome(StrEnum):
    """What became of a row."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


class Skip(StrEnum):
    """Why a row was skipped."""

    UNCHANGED = "unchanged"
    REPEATED = "repeated"
    STALE = "stale"
    LEFT_OUT = "left_out"
    DRY_RUN = "dry_run"
    OVERTAKEN = "overtaken"
    REDELIVERED = "redelivered"


_LETTERS: Final = {
    Outcome.ACKNOWLEDGED: ord("A"),
    Outcome.REJECTED: ord("J"),
    Outcome.UNKNOWN: ord("U"),
}
_SKIPS: Final = {
    Skip.UNCHANGED: ord("S"),
    Skip.REPEATED: ord("D"),
    Skip.STALE: ord("C"),
    Skip.LEFT_OUT: ord("X"),
    Skip.DRY_RUN: ord("P"),
    Skip.OVERTAKEN: ord("O"),
    Skip.REDELIVERED: ord("H"),
}
_IN_LEDGER: Final = ord("K")
_OUTCOMES: Final[dict[int, Outcome]] = {
    **{letter: outcome for outcome, letter in _LETTERS.items()},
    _IN_LEDGER: Outcome.ACKNOWLEDGED,
    **dict.fromkeys(_SKIPS.values(), Outcome.SKIPPED),
}
_RESERVED: Final = ord("R")
_RELEASED: Final = ord("N")
_DEAD: Final = "JU"


class CorruptProgressError(ValueError):
    """A line of the log cannot be read, so nobody can tell which rows were sent."""


def _letters_of(outcome: Outcome | Skip) -> bytes:
    if isinstance(outcome, Skip):
        return bytes((_SKIPS[outcome],))
    return bytes(letter for letter, means in _OUTCOMES.items() if means is outcome)


class Progress:
    """The log of one run folder.

    ``weights`` says for how many rows of the source each position stands; None for one each.

    :param path: the file; made when missing.
    :raises CorruptProgressError: it holds a line, other than a torn last one, that is no entry.
    """

    def __init__(self, path: Path) -> None:
        self._states = bytearray()  # a letter a position, so that a million rows take a megabyte
        whole = self._replay(path) if path.exists() else None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if whole is None:
            sync_folder(path.parent)
        elif whole < os.fstat(self._file).st_size:  # else who only looks would keep the folder from retention
            os.ftruncate(self._file, whole)
        self.weights: Sequence[int] | None = None
        self._pending: list[str] = []
        self._syncing = threading.Lock()

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
        letters = _letters_of(outcome)
        return [position for position, state in enumerate(self._states) if state in letters]

    def count(self, outcome: Outcome | Skip) -> int:
        """Count the rows with an outcome; one that stands for several counts as so many."""
        letters = _letters_of(outcome)
        if self.weights is None:
            return sum(self._states.count(letter) for letter in letters)
        return sum(weight for weight, state in zip(self.weights, self._states, strict=False) if state in letters)

    def not_in_ledger(self, position: int) -> bool:
        """Say whether a row was acknowledged, and the ledger may not know."""
        return position < len(self._states) and self._states[position] == _LETTERS[Outcome.ACKNOWLEDGED]

    def note_in_ledger(self, positions: Iterable[int]) -> None:
        """Note that the ledger knows of acknowledged rows."""
        for position in positions:
            self._note(position, _IN_LEDGER)

    @property
    def length(self) -> int:
        """Say up to which position anything is known."""
        return len(self._states)

    @property
    def may_have_sent(self) -> bool:
        """Whether any row was reserved, acknowledged or left unknown."""
        return any(self._states.count(letter) for letter in b"RAKU")

    def reserve(self, positions: Iterable[int]) -> None:
        """Note that rows may be sent from now on; they must not be before :meth:`sync`."""
        reserved = list(positions)
        self.flush()
        self._write("".join(f"R {position}\n" for position in reserved))
        for position in reserved:
            self._set(position, _RESERVED)

    def sync(self, letters: Callable[[], None] = lambda: None) -> None:
        """Force to disk what was handed to the operating system; may run in another thread.

        :param letters: forces the dead letters to disk, which goes first. What is noted of dead rows from then on
            waits until this is over: their letters came too late for it.
        """
        with self._syncing:
            letters()
            os.fdatasync(self._file)

    def release(self, position: int) -> None:
        """Take a reservation or an outcome back: the row is open again."""
        self._note(position, _RELEASED)

    def settle(self, position: int, outcome: Outcome | Skip) -> None:
        """Note what became of a row; written with the next :meth:`flush`."""
        self._note(position, _SKIPS[outcome] if isinstance(outcome, Skip) else _LETTERS[outcome])

    def flush(self) -> None:
        """Hand what was noted to the operating system; of dead rows only while no :meth:`sync` is under way."""
        if self._pending:
            now, later = self._apart() if self._syncing.locked() else (self._pending, [])
            self._write("".join(now))
            self._pending = later

    def close(self) -> None:
        """Flush, force to disk, and close."""
        try:
            with self._syncing:  # for what is under way to end
                pass
            self.flush()
            os.fdatasync(self._file)
        finally:
            os.close(self._file)

    def _apart(self) -> tuple[list[str], list[str]]:
        """Keep what was noted of dead rows apart, with what was noted of the same rows later."""
        others, of_dead, dead = list[str](), list[str](), set[str]()
        for entry in self._pending:
            if entry[0] in _DEAD:
                dead.add(entry[1:])
            (of_dead if entry[1:] in dead else others).append(entry)
        return others, of_dead

    def _note(self, position: int, letter: int) -> None:
        self._set(position, letter)
        self._pending.append(f"{chr(letter)} {position}\n")

    def _set(self, position: int, letter: int) -> None:
        if position >= len(self._states):
            self._states.extend(bytes(position + 1 - len(self._states)))
        self._states[position] = letter

    def _write(self, text: str) -> None:
        append_whole(self._file, text.encode(), "the progress log")
