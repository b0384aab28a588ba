"""What one row cannot know of the others: the newest consent, keys that stand twice, messages that repeat.

On disk, since a delivery may have millions of rows; in the run folder, since it holds identifiers. It is made in one
look over all rows, before the first is sent, and counts only once that look was complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from airflow_provider_regal.journal.files import open_scratch

_BATCH: Final = 1_000
_TABLES: Final = """
CREATE TABLE consents (
    identifier TEXT, channel TEXT, at TEXT, subscribed INTEGER, PRIMARY KEY (identifier, channel)
) WITHOUT ROWID;
CREATE TABLE keys (key TEXT PRIMARY KEY, rows INTEGER, news INTEGER) WITHOUT ROWID;
CREATE TABLE messages (id TEXT PRIMARY KEY, position INTEGER) WITHOUT ROWID;
"""
_NEWEST: Final = """
INSERT INTO consents VALUES (?, ?, ?, ?) ON CONFLICT (identifier, channel) DO UPDATE
SET at = excluded.at, subscribed = excluded.subscribed
WHERE excluded.at > at OR (excluded.at = at AND excluded.subscribed < subscribed)
"""
_KEY: Final = "INSERT INTO keys VALUES (?, 1, 0) ON CONFLICT (key) DO UPDATE SET rows = rows + 1"
_NEWS: Final = "UPDATE keys SET news = 1 WHERE key = ?"
_MESSAGE: Final = "INSERT OR IGNORE INTO messages VALUES (?, ?)"


class Told(NamedTuple):
    """What somebody's newest word is on one channel.

    :param at: when it was given (or read, where an opt-out does not say), in the form of the ledger.
    """

    at: str
    subscribed: bool


class RowIndex:
    """The index of one run folder; make it with :meth:`new`, open it with :meth:`of`."""

    def __init__(self, path: Path, final: Path) -> None:
        self._path = path
        self._final = final
        self._db = open_scratch(path)
        self._consents: list[tuple[str, str, str, int]] = []
        self._keys: list[tuple[str]] = []
        self._news: list[tuple[str]] = []
        self._messages: list[tuple[str, int]] = []

    def add_consent(self, identifier: str, channel: str, at: str, *, subscribed: bool) -> None:
        """Take in what one row says; of equal times the opt-out holds."""
        self._consents.append((identifier, channel, at, subscribed))
        self._write_when(len(self._consents))

    def add_key(self, key: str) -> None:
        """Count a row of a key."""
        self._keys.append((key,))
        self._write_when(len(self._keys))

    def add_news(self, key: str) -> None:
        """Take in that a row of a key has to be sent, whether it changed or not."""
        self._news.append((key,))
        self._write_when(len(self._news))

    def add_message(self, message_id: str, position: int) -> None:
        """Take in that a row has a message id; positions come in ascending order."""
        self._messages.append((message_id, position))
        self._write_when(len(self._messages))

    def finish(self) -> None:
        """Write everything, and let the index count from now on."""
        self._write_when(_BATCH)
        self._path.replace(self._final)

    def newest(self, identifier: str, channel: str) -> Told | None:
        """Find the newest word of somebody on a channel."""
        found = self._db.execute(
            "SELECT at, subscribed FROM consents WHERE identifier = ? AND channel = ?", (identifier, channel)
        ).fetchone()
        return None if found is None else Told(found[0], bool(found[1]))

    def counted(self, keys: Sequence[str]) -> dict[str, tuple[int, bool]]:
        """Say how many rows have a key, and whether one has to be sent, changed or not; unknown keys are left out.

        :param keys: a few hundred at most.
        """
        marks = ", ".join("?" * len(keys))
        found = self._db.execute(f"SELECT key, rows, news FROM keys WHERE key IN ({marks})", keys)  # noqa: S608
        return {key: (rows, bool(news)) for key, rows, news in found}

    def first_of(self, message_id: str) -> int | None:
        """Find the first row that has a message id."""
        found = self._db.execute("SELECT position FROM messages WHERE id = ?", (message_id,)).fetchone()
        return None if found is None else int(found[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _write_when(self, waiting: int) -> None:
        if waiting < _BATCH:
            return
        self._db.execute("BEGIN")
        for statement, batch in self._batches():
            self._db.executemany(statement, batch)
            batch.clear()
        self._db.execute("COMMIT")

    def _batches(self) -> Iterable[tuple[str, list[Any]]]:
        return (
            (_NEWEST, self._consents),
            (_KEY, self._keys),
            (_NEWS, self._news),
            (_MESSAGE, self._messages),
        )

    @classmethod
    def new(cls, path: Path) -> RowIndex:
        """Begin an index; it is not there until :meth:`finish`."""
        unfinished = path.with_name(path.name + ".new")
        for old in (unfinished, path):
            old.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT, 0o600))
        index = cls(unfinished, path)
        index._db.executescript(_TABLES)
        return index

    @classmethod
    def of(cls, path: Path) -> RowIndex | None:
        """Open the index of an earlier try; None if there is no complete one."""
        return cls(path, path) if path.exists() else None
