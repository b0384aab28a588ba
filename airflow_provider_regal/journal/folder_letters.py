"""Dead letters of a run folder on a file system, and who has taken them.

Beside them lies a folder of claims, a file a letter, made by an atomic create: of two redeliveries at once, one takes
the letter and the other learns who has it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import uuid4

from airflow_provider_regal.journal.claim import NOBODY_KNOWS, Claim, MayTakeAgain
from airflow_provider_regal.journal.dead_letters import DeadLetter, read_in_order
from airflow_provider_regal.journal.files import rewrite, sync_folder
from airflow_provider_regal.journal.progress import CorruptProgressError, Outcome
from airflow_provider_regal.journal.run_folder import RunFolder

LETTERS: Final = "dead_letters.jsonl"
_CLAIMS: Final = "redelivered"


class FolderLetters:
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
        yield from read_in_order(self._path / LETTERS, self._is_dead)

    def claim_of(self, position: int) -> Claim | None:
        """Say who has a letter."""
        return _read(_file(self._path, position))

    def take(self, positions: Collection[int], by: str, again: MayTakeAgain) -> dict[int, Claim]:
        """Take letters, but for those that somebody has.

        :param again: whether one that we have had is ours to send.
        :returns: position -> who has it now.
        """
        return {position: self._take(position, by, again) for position in positions}

    def _take(self, position: int, by: str, again: MayTakeAgain) -> Claim:
        file = _file(self._path, position)
        if (claim := _read(file)) is None:
            with suppress(FileExistsError):
                self._link(file, by)  # with all that is in it, or not at all
                return Claim(by, ours=True)
            claim = _read(file) or Claim(NOBODY_KNOWS)
        return replace(claim, ours=claim.by == by and again(claim))

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


def claims_in_folder(folder: Path) -> dict[int, Claim]:
    """Say which letters of a run folder redeliveries have taken: position -> claim."""
    files = (folder / _CLAIMS).glob("*.json")
    return {int(file.stem): claim for file in files if file.stem.isdecimal() and (claim := _read(file)) is not None}


def forget_claims(folder: Path) -> None:
    """Remove the claims of a run folder whose positions mean other rows from now on."""
    shutil.rmtree(folder / _CLAIMS, ignore_errors=True)


def note_outcomes(folder: Path, by: str, outcomes: Mapping[int, Outcome]) -> None:
    """Say beside letters what became of them; not of those that are another's."""
    for position, outcome in outcomes.items():
        file = _file(folder, position)
        claim = _read(file)
        if claim is not None and claim.by == by and claim.outcome != outcome:
            new = file.with_name(f".{uuid4().hex}")
            with suppress(FileNotFoundError):  # the folder started over, or is gone
                new.write_text(json.dumps({"by": by, "outcome": outcome.value}), encoding="utf-8")
                new.chmod(0o600)
                new.replace(file)
    _sync_claims(folder)


def give_back(folder: Path, by: str, positions: Collection[int]) -> None:
    """Let others have letters of which nothing was sent."""
    for position in positions:
        claim = _read(_file(folder, position))
        if claim is not None and claim.by == by and claim.outcome is None:
            _file(folder, position).unlink()
    _sync_claims(folder)


def _sync_claims(folder: Path) -> None:
    if (folder / _CLAIMS).exists():
        sync_folder(folder / _CLAIMS)


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
        return Claim(NOBODY_KNOWS)
