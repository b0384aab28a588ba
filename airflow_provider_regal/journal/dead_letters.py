"""Dead letters: rows that were rejected or are unknown, each with its reason and what is needed to send it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One row that was not delivered, or of which nobody knows.

    :param run: the run folder.
    :param position: the row's position in the source.
    :param key: the row's user id, phone or email.
    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param status: ``rejected`` or ``unknown``.
    :param reason: a code to group by, such as ``invalid`` or ``HTTP 400``.
    :param field: the field at fault, if one is.
    :param message: what is wrong, without values.
    :param attempts: requests made for it in this try.
    :param first_time: of the first request (or of the rejection), UTC.
    :param last_time: of the last.
    :param payload: what was, or would have been, sent; the row itself where it could not be mapped.
    """

    run: str
    position: int
    key: str | None
    call: str
    status: str
    reason: str
    field: str | None
    message: str
    attempts: int
    first_time: str
    last_time: str
    payload: Any

    @property
    def cause(self) -> str:
        """What to group by: the first fault of an invalid row, else what happened."""
        return self.message.partition("; ")[0] if self.reason == "invalid" else f"{self.status}, {self.reason}"


class DeadLetters:
    """The dead letters of a run folder; a later letter of the same position replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, letter: DeadLetter) -> None:
        """Write one, before its row counts as settled.

        :raises OSError: it could not be written whole, so the row must not be settled.
        """
        data = (json.dumps(asdict(letter), default=str) + "\n").encode()
        if os.write(self._file, data) != len(data):
            raise OSError("a dead letter could be written only in part: is the disk full?")

    def close(self, is_dead: Callable[[int], bool]) -> None:
        """Force to disk, and keep only the last letter of each row that is still dead."""
        os.fsync(self._file)
        os.close(self._file)
        last: dict[int, str] = {}
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n") and is_dead(position := int(json.loads(line)["position"])):
                    last[position] = line
        rewrite(self.path, (last[position] for position in sorted(last)))


def read_dead_letters(path: Path) -> Iterator[DeadLetter]:
    """Read the dead letters of a run folder."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield DeadLetter(**json.loads(line))


def rewrite(path: Path, lines: Iterator[str]) -> None:
    """Replace a file as a whole, or not at all."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.writelines(lines)
        out.flush()
        os.fsync(out.fileno())
    new.replace(path)
