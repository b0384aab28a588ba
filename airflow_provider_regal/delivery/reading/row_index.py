"""What a row needs to know about the others: newest consents, repeated messages, contacts that have to be sent.

The index is a temporary database that disappears with the process, because a delivery may have millions of rows. It is
built in one pass over all rows, before the first is sent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

_BATCH: Final = 1_000
_TABLES: Final = """
CREATE TABLE consents (
    identifier TEXT, channel TEXT, at TEXT, subscribed INTEGER, PRIMARY KEY (identifier, channel)
) WITHOUT ROWID;
CREATE TABLE unreadable (identifier TEXT, channel TEXT, at TEXT, PRIMARY KEY (identifier, channel)) WITHOUT ROWID;
CREATE TABLE news (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE messages (id TEXT PRIMARY KEY, position INTEGER) WITHOUT ROWID;
"""
_NEWEST: Final = """
INSERT INTO consents VALUES (?, ?, ?, ?) ON CONFLICT (identifier, channel) DO UPDATE
SET at = excluded.at, subscribed = excluded.subscribed
WHERE excluded.at > at OR (excluded.at = at AND excluded.subscribed < subscribed)
"""
_UNREADABLE: Final = """
INSERT INTO unreadable VALUES (?, ?, ?) ON CONFLICT (identifier, channel) DO UPDATE SET at = max(at, excluded.at)
"""
_NEWS: Final = "INSERT OR IGNORE INTO news VALUES (?)"
_MESSAGE: Final = "INSERT OR IGNORE INTO messages VALUES (?, ?)"


class Told(NamedTuple):
    """A person's newest decision on one channel.

    :param at: when it was given, in the ledger's form; for an opt-out without a time, when it was read.
    """

    at: str
    subscribed: bool


class RowIndex:
    """The index of the rows of one delivery."""

    def __init__(self) -> None:
        # An empty name makes a temporary file, which SQLite deletes. Several threads use it, one after the other.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_TABLES)
        self._consents: list[tuple[str, str, str, int]] = []
        self._unreadable: list[tuple[str, str, str]] = []
        self._news: list[tuple[str]] = []
        self._messages: list[tuple[str, int]] = []
        #: Numbers of rows that share a phone or email with another user id -> a description of the rows.
        self.shared: dict[int, str] = {}

    def add_consent(self, identifier: str, channel: str, at: str, *, subscribed: bool) -> None:
        """Add a consent of a row; at equal times the opt-out wins."""
        self._consents.append((identifier, channel, at, subscribed))
        self._write_when(len(self._consents))

    def add_unreadable(self, identifier: str, channel: str, at: str) -> None:
        """Add a decision that can't be read as yes or no."""
        self._unreadable.append((identifier, channel, at))
        self._write_when(len(self._unreadable))

    def add_news(self, key: str) -> None:
        """Record that the row of a key has to be sent even if it did not change."""
        self._news.append((key,))
        self._write_when(len(self._news))

    def add_message(self, message_id: str, position: int) -> None:
        """Add the message id of a row; call with ascending positions."""
        self._messages.append((message_id, position))
        self._write_when(len(self._messages))

    def finish(self) -> None:
        """Write everything; afterwards the index can be queried."""
        self._write_when(_BATCH)

    def newest(self, identifier: str, channel: str) -> Told | None:
        """Find a person's newest decision on a channel."""
        found = self._db.execute(
            "SELECT at, subscribed FROM consents WHERE identifier = ? AND channel = ?", (identifier, channel)
        ).fetchone()
        return None if found is None else Told(found[0], bool(found[1]))

    def opt_outs(self) -> Iterator[tuple[str, str, str]]:
        """Return identifier, channel and time wherever the newest decision is an opt-out."""
        found = self._db.execute("SELECT identifier, channel, at FROM consents WHERE NOT subscribed")
        return ((row[0], row[1], row[2]) for row in found)

    def is_unreadable(self, identifier: str, channel: str, at: str) -> bool:
        """Return whether there is an unreadable decision at that time or later."""
        told = (identifier, channel, at)
        query = "SELECT 1 FROM unreadable WHERE identifier = ? AND channel = ? AND at >= ?"
        return self._db.execute(query, told).fetchone() is not None

    def has_news(self, key: str) -> bool:
        """Return whether a contact has to be sent even if its row did not change."""
        return self._db.execute("SELECT 1 FROM news WHERE key = ?", (key,)).fetchone() is not None

    def first_of(self, message_id: str) -> int | None:
        """Find the first row with a message id."""
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
            (_UNREADABLE, self._unreadable),
            (_NEWS, self._news),
            (_MESSAGE, self._messages),
        )
