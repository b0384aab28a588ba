"""The letters a redelivery has taken, in the order of its rows, and what became of them."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import TextIOWrapper
from itertools import groupby
from pathlib import Path
from typing import Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal import bucket_letters, folder_letters
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.bucket_claims import write_outcomes
from airflow_provider_regal.journal.progress import Outcome
from airflow_provider_regal.journal.run_folder import RunFolder

_TAKEN: Final = "taken.jsonl"
_Line = tuple[int, str, int, str]  # row, run folder of the letter, its position there, token of the claim


class Taken:
    """What a redelivery has taken.

    :param folder: run folder of the redelivery; open, so no other try works in it.
    :param at: finds a run folder again by its name.
    """

    def __init__(self, folder: RunFolder, at: Callable[[str], Path | Bucket], clock: Clock) -> None:
        self._folder = folder
        self._at = at
        self._clock = clock
        self._path = folder.path / _TAKEN
        self._file: TextIOWrapper | None = None

    def start(self) -> None:
        """Forget what an earlier try had taken; it takes the same again.

        :raises OSError: it cannot be known that nobody else works here.
        """
        opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(opened, "w", encoding="utf-8")
        self._folder.sync()  # that a redelivery has begun is known before it takes anything

    def add(self, row: int, folder: str, position: int, token: str) -> None:
        """Note that a row of ours is a letter of another run folder."""
        if self._file is None:
            raise RuntimeError("not started")
        self._file.write(json.dumps([row, folder, position, token]) + "\n")

    def close(self) -> None:
        """Force to disk what was noted."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def settle(self) -> None:
        """Say beside each letter what became of it; give all back that were taken for rows that never were to be sent.

        :raises OSError: it could not be said, or another try works in our folder by now: it does this itself.
        :raises CorruptProgressError: nobody can tell what was sent.
        """
        if not self._path.exists():
            return
        folder = self._folder
        folder.sync()
        marker = folder.marker
        given_up = folder.row_count is None and (marker is None or marker.outcome != "finished")
        gives_back = given_up and not folder.progress.may_have_sent
        for original, lines in groupby(self._read(), key=lambda line: line[1]):
            if gives_back:
                self._give_back(self._at(original), {position: token for _, _, position, token in lines})
            else:
                self._say(self._at(original), lines)
        if gives_back:
            self._path.unlink()

    def _say(self, original: Path | Bucket, lines: Iterable[_Line]) -> None:
        outcomes: dict[str, dict[int, Outcome]] = defaultdict(dict)
        for row, _, position, token in lines:
            if (outcome := self._outcome(row)) is not None:
                outcomes[token][position] = outcome
        for token, known in outcomes.items():
            if isinstance(original, Path):
                folder_letters.note_outcomes(original, self._folder.name, known)
            else:
                write_outcomes(original, token, known)

    def _give_back(self, original: Path | Bucket, tokens: Mapping[int, str]) -> None:
        if isinstance(original, Path):
            folder_letters.give_back(original, self._folder.name, tokens)
        else:
            bucket_letters.give_back(original, tokens, self._clock)

    def _outcome(self, row: int) -> Outcome | None:
        outcome = self._folder.progress.outcome(row)
        return Outcome.UNKNOWN if outcome is None and self._folder.progress.is_reserved(row) else outcome

    def _read(self) -> Iterator[_Line]:
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # else a crash cut it off
                    row, original, position, token = json.loads(line)
                    yield row, original, position, token
