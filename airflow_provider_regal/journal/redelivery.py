"""Redelivery: who has taken a dead letter to send it again, and what became of it.

Beside the dead letters of a run folder lies a folder of claims, a file a letter, made by an atomic create: of two
redeliveries at once, one takes the letter and the other learns who has it. A claim stays when its redelivery is over,
so that neither another one nor the delivery itself sends the row a second time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from glob import glob, has_magic
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from airflow_provider_regal.journal.dead_letters import DeadLetter, read_in_order
from airflow_provider_regal.journal.files import rewrite, sync_folder
from airflow_provider_regal.journal.progress import CorruptProgressError, Outcome
from airflow_provider_regal.journal.run_folder import FolderInUseError, RunFolder

_LETTERS: Final = "dead_letters.jsonl"
_CLAIMS: Final = "redelivered"
_TAKEN: Final = "taken.jsonl"
_NOBODY_KNOWS: Final = "somebody whose claim cannot be read"


@dataclass(frozen=True, slots=True)
class Claim:
    """Who took a dead letter.

    :param by: run folder of the redelivery.
    :param outcome: what became of it: ``acknowledged``, ``rejected``, ``unknown``, ``skipped``; None until it is known.
    :param new: it was taken just now.
    """

    by: str
    outcome: str | None = None
    new: bool = False


def find_run_folders(paths: Iterable[str], root: Path) -> list[Path]:
    """Find the run folders with dead letters that paths and globs name, at any depth below them.

    :param root: where relative ones begin.
    :raises FileNotFoundError: a path without wildcards names nothing.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if has_magic(path) and not (root / path).exists():
            places = [root / place for place in sorted(glob(path, root_dir=root, recursive=True))]  # noqa: PTH207
        elif (root / path).exists():
            places = [root / path]
        else:
            raise FileNotFoundError(f"There is no run folder {root / path}")
        for place in places:
            letters = [place] if place.is_file() else sorted(place.rglob(_LETTERS))
            found.update(dict.fromkeys(letter.parent.resolve() for letter in letters if letter.name == _LETTERS))
    return list(found)


def since_when(folder: Path) -> str:
    """Say since when the oldest dead letter of a run folder is one; empty if it has none."""
    return min((letter.first_time for letter in read_in_order(folder / _LETTERS)), default="")


class Letters:
    """The dead letters of a run folder, which nobody sends from as long as this is open.

    :raises FolderInUseError: somebody does.
    :raises CorruptProgressError: nobody can tell which rows are dead.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder
        self._folder = RunFolder(folder)
        self._token: Path | None = None
        # Without a log, it is a copy of the letters, and what they say is all that is known.
        self._is_dead: Callable[[int], bool] | None = None
        try:
            if (folder / "progress.log").exists():
                self._is_dead = self._folder.progress.is_dead
        except CorruptProgressError:
            self._folder.close()
            raise

    def read(self) -> Iterator[DeadLetter]:
        """Give the letters of rows that are dead now, in the order of the rows."""
        yield from read_in_order(self._path / _LETTERS, self._is_dead)

    def claim_of(self, position: int) -> Claim | None:
        """Say who has a letter."""
        return _read(_file(self._path, position))

    def take(self, position: int, by: str) -> Claim:
        """Take a letter, unless somebody has it.

        :returns: who has it now.
        """
        file = _file(self._path, position)
        if (claim := _read(file)) is not None:
            return claim
        try:
            self._link(file, by)  # with all that is in it, or not at all
        except FileExistsError:
            return _read(file) or Claim(_NOBODY_KNOWS)
        return Claim(by, new=True)

    def close(self) -> None:
        """Force the claims to disk, and let others in."""
        try:
            if self._token is not None:
                self._token.unlink()
                sync_folder(self._token.parent)
        finally:
            self._folder.close()

    def _link(self, file: Path, by: str) -> None:
        if self._token is None:
            self._token = _token(file.parent, by)
        try:
            os.link(self._token, file)
        except OSError as error:
            if error.errno != errno.EMLINK:  # a file can have so many names
                raise
            self._token.unlink()
            self._token = _token(file.parent, by)
            os.link(self._token, file)


def claims_of(folder: Path) -> dict[int, Claim]:
    """Say which letters of a run folder redeliveries have taken: position -> claim."""
    files = (folder / _CLAIMS).glob("*.json")
    return {int(file.stem): claim for file in files if file.stem.isdecimal() and (claim := _read(file)) is not None}


def forget_claims(folder: Path) -> None:
    """Remove the claims of a run folder whose positions mean other rows from now on."""
    shutil.rmtree(folder / _CLAIMS, ignore_errors=True)


class Taken:
    """The letters a redelivery has taken, in the order of its rows.

    :param folder: run folder of the redelivery.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _TAKEN
        self._by = str(folder)
        self._file: TextIOWrapper | None = None

    def start(self) -> None:
        """Forget what an earlier try had taken; it takes the same again."""
        opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(opened, "w", encoding="utf-8")

    def add(self, row: int, folder: Path, position: int) -> None:
        """Note that a row of ours is a letter of another run folder."""
        if self._file is None:
            raise RuntimeError("not started")
        self._file.write(json.dumps([row, str(folder), position]) + "\n")

    def close(self) -> None:
        """Force to disk what was noted."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def settle(self) -> None:
        """Say beside each letter what became of it; give all back that were taken for rows that never were to be sent.

        Nothing happens while another try works in our folder: it does this itself.
        """
        if not self._path.exists():
            return
        with suppress(FolderInUseError, CorruptProgressError), closing(RunFolder(self._path.parent)) as folder:
            marker = folder.marker
            given_up = folder.row_count is None and (marker is None or marker.outcome != "finished")
            give_back = given_up and not folder.progress.may_have_sent
            folders = set()
            for row, original, position in self._read():
                outcome = folder.progress.outcome(row)
                if outcome is None and folder.progress.is_reserved(row):
                    outcome = Outcome.UNKNOWN
                if give_back or outcome is not None:
                    folders.add(Path(original))
                    self._say(_file(Path(original), position), outcome, give_back=give_back)
            for original in folders:
                if (original / _CLAIMS).exists():
                    sync_folder(original / _CLAIMS)
            if give_back:
                self._path.unlink()

    def _say(self, file: Path, outcome: Outcome | None, *, give_back: bool) -> None:
        claim = _read(file)
        if claim is None or claim.by != self._by:
            return  # its run folder started over, or is gone
        if give_back and claim.outcome is None:
            file.unlink()
        elif outcome is not None and claim.outcome != outcome:
            new = file.with_name(f".{uuid4().hex}")
            with suppress(FileNotFoundError):
                new.write_text(json.dumps({"by": self._by, "outcome": outcome.value}), encoding="utf-8")
                new.chmod(0o600)
                new.replace(file)

    def _read(self) -> Iterator[tuple[int, Path, int]]:
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # else a crash cut it off
                    told: Any = json.loads(line)
                    yield told[0], told[1], told[2]


def _token(folder: Path, by: str) -> Path:
    """Write a file that names who takes letters, to be linked to."""
    folder.mkdir(mode=0o700, exist_ok=True)
    token = folder / f".{uuid4().hex}"
    rewrite(token, [json.dumps({"by": by})])
    return token


def _file(folder: Path, position: int) -> Path:
    return folder / _CLAIMS / f"{position}.json"


def _read(file: Path) -> Claim | None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Claim(told["by"], told.get("outcome"))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):  # whose it is, is another's to find out
        return Claim(_NOBODY_KNOWS)
