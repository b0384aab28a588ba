"""Redelivery: where dead letters are, who has taken one to send it again, and what became of it.

A letter is taken before it is sent. A claim stays when its redelivery is over, so that neither another one nor the
delivery itself sends the row a second time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path
from typing import Final, Protocol

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.bucket_claims import CLAIMS_FILE, read_claims
from airflow_provider_regal.journal.bucket_letters import BucketLetters
from airflow_provider_regal.journal.claim import Claim, MayTakeAgain
from airflow_provider_regal.journal.dead_letters import DeadLetter, read_in_order
from airflow_provider_regal.journal.folder_letters import LETTERS, FolderLetters, claims_in_folder
from airflow_provider_regal.journal.mirrored_folder import MirroredFolder
from airflow_provider_regal.journal.progress import CorruptProgressError
from airflow_provider_regal.journal.run_folder import RunFolder
from airflow_provider_regal.journal.segment import DamagedError
from airflow_provider_regal.journal.segment_log import LOG

_OF_A_FOLDER: Final = re.compile(rf"(?:(?P<folder>.*)/)?(?:{LOG}/\d{{9}}|{re.escape(LETTERS)})", re.DOTALL)


class Letters(Protocol):
    """The dead letters of a run folder."""

    def read(self) -> Iterator[DeadLetter]:
        """Give the letters of rows that are dead, in the order of the rows."""

    def claim_of(self, position: int) -> Claim | None:
        """Say who has a letter."""

    def take(self, positions: Collection[int], by: str, again: MayTakeAgain) -> dict[int, Claim]:
        """Take letters, but for those that somebody has.

        :param again: whether one that we have had is ours to send.
        :returns: position -> who has it now.
        :raises FolderInUseError: somebody works in the folder by now.
        """

    def close(self) -> None:
        """Let go of the folder."""


def open_letters(folder: Path | Bucket, clock: Clock, *, only_looks: bool = False) -> Letters:
    """Open the dead letters of a run folder.

    :param only_looks: none is to be taken.
    :raises FolderInUseError: a task works there.
    :raises CorruptProgressError: nobody can tell which rows are dead.
    :raises DamagedError: likewise.
    """
    return FolderLetters(folder) if isinstance(folder, Path) else BucketLetters(folder, clock, only_looks=only_looks)


def since_when(folder: Path | Bucket, clock: Clock) -> str | None:
    """Say since when the oldest dead letter of a run folder is one; None if it has none, empty if nobody can tell."""
    if isinstance(folder, Path):
        return min((letter.first_time for letter in read_in_order(folder / LETTERS)), default=None)
    try:
        with closing(BucketLetters(folder, clock, only_looks=True)) as letters:
            return min((letter.first_time for letter in letters.read()), default=None)
    except (DamagedError, CorruptProgressError):
        return ""


def claims_of(folder: RunFolder) -> dict[int, Claim]:
    """Say which letters of a run folder redeliveries have taken: position -> claim.

    :raises StorageError: it is on object storage, which cannot be read.
    """
    if not isinstance(folder, MirroredFolder):
        return claims_in_folder(folder.path)
    file = folder.path / CLAIMS_FILE
    return read_claims(file.read_bytes(), folder.bucket) if file.exists() else {}


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
            letters = [place] if place.is_file() else sorted(place.rglob(LETTERS))
            found.update(dict.fromkeys(letter.parent.resolve() for letter in letters if letter.name == LETTERS))
    return list(found)


def find_in_bucket(path: str, root: Bucket) -> list[Bucket]:
    """Find the run folders that a path or glob names, at any depth below; whether they have letters is not known yet.

    :param root: where the path begins.
    :raises FileNotFoundError: a path without wildcards names nothing.
    :raises StorageError: the bucket cannot be read.
    """
    names = [name for name in path.split("/") if name not in ("", ".")]
    if names and names[-1] == LETTERS:
        names.pop()
    fixed = next((number for number, name in enumerate(names) if has_magic(name)), len(names))
    start = root.below(*names[:fixed])
    folders = sorted({found["folder"] or "" for key in start.list(deep=True) if (found := _OF_A_FOLDER.fullmatch(key))})
    if fixed == len(names) and not folders:
        raise FileNotFoundError(f"There is no run folder {start}")
    wanted = names[fixed:]
    paths = [folder.split("/") if folder else [] for folder in folders]
    as_it_stands = [path for path in paths if path[: len(wanted)] == wanted]
    return [start.below(*path) for path in as_it_stands or [path for path in paths if _begins(path, wanted)]]


def _begins(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Say whether a path, or a folder it is in, is one of a glob."""
    if not patterns:
        return True
    if patterns[0] == "**" and _begins(names, patterns[1:]):
        return True
    rest = patterns if patterns[0] == "**" else patterns[1:]
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _begins(names[1:], rest)
