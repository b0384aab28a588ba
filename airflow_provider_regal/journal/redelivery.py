"""Redelivery: who has taken a dead letter to send it again, and what became of it.

Beside the dead letters of a run folder lies a folder of claims, a file a letter, made by an atomic create: of two
redeliveries at once, one takes the letter and the other learns who has it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from airflow_provider_regal.journal.dead_letters import DeadLetter, read_dead_letters
from airflow_provider_regal.journal.files import rewrite, sync_folder
from airflow_provider_regal.journal.progress import Progress

_LETTERS: Final = "dead_letters.jsonl"
_CLAIMS: Final = "redelivered"
_TAKEN: Final = "taken.jsonl"


@dataclass(frozen=True, slots=True)
class Claim:
    """Who took a dead letter.

    :param by: run folder of the redelivery.
    :param outcome: what became of it: ``acknowledged``, ``rejected``, ``unknown``, ``skipped``; None until it is known.
    """

    by: str
    outcome: str | None = None


def find_run_folders(paths: Iterable[str]) -> list[Path]:
    """Find the run folders with dead letters that paths and globs name, at any depth below them.

    :raises FileNotFoundError: a path without wildcards names nothing.
    """
    found: dict[Path, None] = {}
    for path in paths:
        named = sorted(glob(path, recursive=True)) if has_magic(path) else [path]  # noqa: PTH207 - it may be absolute
        places = [Path(place) for place in named]
        for place in places:
            if not place.exists():
                raise FileNotFoundError(f"There is no run folder {path}")
            letters = [place] if place.is_file() else sorted(place.rglob(_LETTERS))
            found.update(dict.fromkeys(letter.parent.resolve() for letter in letters if letter.name == _LETTERS))
    return list(found)


def letters_of(folder: Path) -> Iterator[DeadLetter]:
    """Read the dead letters of a run folder."""
    return read_dead_letters(folder / _LETTERS)


def claim(folder: Path, position: int, by: str) -> Claim:
    """Take a letter, unless somebody has it.

    :returns: who has it now.
    """
    file = _file(folder, position)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    mine = file.with_name(f".{uuid4().hex}")
    rewrite(mine, [json.dumps({"by": by})])
    try:
        os.link(mine, file)  # with all that is in it, or not at all
    except FileExistsError:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Claim(told["by"], told.get("outcome"))
    finally:
        mine.unlink()
    sync_folder(file.parent)
    return Claim(by)


def _file(folder: Path, position: int) -> Path:
    return folder / _CLAIMS / f"{position}.json"


class Taken:
    """The letters a redelivery has taken, in the order of its rows.

    :param folder: run folder of the redelivery.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _TAKEN

    def start(self) -> None:
        """Forget what an earlier try had taken; it takes the same again."""
        self._path.unlink(missing_ok=True)

    def add(self, row: int, folder: Path, position: int) -> None:
        """Note that a row of ours is a letter of another run folder."""
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as out:
            out.write(json.dumps([row, str(folder), position]) + "\n")

    def give_back(self) -> None:
        """Let others have the letters: nothing was sent."""
        if self._path.exists():
            for _, folder, position in self._read():
                _file(Path(folder), position).unlink(missing_ok=True)
            self._path.unlink()

    def record(self) -> None:
        """Write beside each letter what became of it."""
        if not self._path.exists():
            return
        progress = Progress(self._path.parent / "progress.log")
        try:
            for row, folder, position in self._read():
                outcome = progress.outcome(row)
                if outcome is not None:
                    told = {"by": str(self._path.parent), "outcome": outcome.value}
                    rewrite(_file(Path(folder), position), [json.dumps(told)])
        finally:
            progress.close()

    def _read(self) -> Iterator[tuple[int, str, int]]:
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                told: Any = json.loads(line)
                yield told[0], told[1], told[2]
