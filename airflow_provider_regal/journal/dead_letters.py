"""Dead letters: rows that were rejected or are unknown, each with its reason and what is needed to send it again."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.journal.files import append_whole, cut_torn_line, rewrite, sync_folder
from airflow_provider_regal.journal.rows import storable, untagged

# Inside a JSON text the quotes would be escaped, so the first match is the letter's own position.
_POSITION: Final = re.compile(r', "position": (\d+), ')


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
    :param first_time: of the first request (or of the rejection), UTC; kept where it is sent again by a redelivery.
    :param last_time: of the last.
    :param payload: what was, or would have been, sent; the row itself where it could not be mapped.
    :param form: what the payload is: ``body`` as Regal gets it, ``event`` as it was written, ``row`` of a table,
        ``consent`` (a row of a sync), or ``unreadable``.
    :param claims: what the ledger has to grant before it is sent, where the payload does not say so.
    :param known: an earlier run rejected the same; only a ledger can tell.
    :param ledger_key: by which the ledger knows the contact.
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
    known: bool = False
    form: str = "body"
    claims: list[list[Any]] = dataclasses.field(default_factory=list)
    ledger_key: str | None = None

    @property
    def cause(self) -> str:
        """What to group by: the first fault of an invalid row, else what happened."""
        return self.message.partition("; ")[0] if self.reason == "invalid" else f"{self.status}, {self.reason}"


class DeadLetters:
    """The dead letters of a run folder; a later letter of the same position replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        # Readable too, to find the end of the last letter that is whole.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if new:
            sync_folder(path.parent)
        cut_torn_line(self._file)
        self._written = self._synced = 0

    def write(self, letter: DeadLetter) -> None:
        """Write one, before its row counts as settled.

        :raises OSError: it could not be written whole, so the row must not be settled.
        """
        content = {name: getattr(letter, name) for name in _FIELDS}
        content["payload"] = storable(letter.payload, 1)
        append_whole(self._file, (json.dumps(content) + "\n").encode(), "a dead letter")
        self._written += 1

    def sync(self) -> None:
        """Force to disk what was written since the last time, if anything was; may run in another thread."""
        written = self._written
        if written > self._synced:
            os.fsync(self._file)
            self._synced = written

    def close(self, is_dead: Callable[[int], bool] | None = None) -> None:
        """Force to disk.

        :param is_dead: whether a row is still dead; only the last letter of each that is stays. None keeps all.
        """
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)
        if is_dead is not None:
            self._tidy(is_dead)

    def _tidy(self, is_dead: Callable[[int], bool]) -> None:
        last = array("q")  # position -> number of its last line, from 1: eight bytes a row, however many are dead
        count = kept = 0
        for number, position in self._positions():
            count += 1
            if is_dead(position):
                if position >= len(last):
                    last.frombytes(bytes(8 * (position + 1 - len(last))))
                kept += not last[position]
                last[position] = number
        if kept < count:
            rewrite(self.path, self._lines(last))

    def _positions(self) -> Iterator[tuple[int, int]]:
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield number, _position(line)

    def _lines(self, last: array[int]) -> Iterator[str]:
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if (position := _position(line)) < len(last) and last[position] == number:
                    yield line


_FIELDS: Final = tuple(field.name for field in fields(DeadLetter))


def _position(line: str) -> int:
    found = _POSITION.search(line)
    if found is None:
        raise ValueError("a line of the dead letters is none")
    return int(found.group(1))


def read_dead_letters(path: Path) -> Iterator[DeadLetter]:
    """Read the dead letters of a run folder; values of a row have the types they had."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # else a crash cut it off
                    yield _letter(line)


def read_in_order(path: Path, is_dead: Callable[[int], bool] | None = None) -> Iterator[DeadLetter]:
    """Read the last letter of each row, in the order of the rows.

    :param is_dead: whether a row is still dead; others are left out. None believes the letters.
    """
    places = array("q")  # position -> where its last line begins, from 1
    if not path.exists():
        return
    with path.open("rb") as lines:
        begin = 1
        for line in lines:
            if line.endswith(b"\n"):
                position = _position(line.decode())
                if position >= len(places):
                    places.frombytes(bytes(8 * (position + 1 - len(places))))
                places[position] = begin
            begin += len(line)
        for position, place in enumerate(places):
            if place and (is_dead is None or is_dead(position)):
                lines.seek(place - 1)
                yield _letter(lines.readline().decode())


def _letter(line: str) -> DeadLetter:
    return DeadLetter(**json.loads(line, object_hook=untagged))
