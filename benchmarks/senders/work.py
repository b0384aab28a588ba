"""The work of a sender."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import contacts

WARM_UP = 200


@dataclass(frozen=True)
class Work:
    """Rows to send.

    :param database: the SQLite file.
    :param first: of the rows, by user id.
    :param count: of rows.
    :param url: the server's origin.
    :param connections: maximum number of open connections, if a sender can have several.
    :param folder: for files.
    :param rate: for our own senders, requests per second; the default is the maximum of our connections.
    :param margin: replaces our pacer's own margin.
    :param changed_every: if the ledger knows the rows, one of this many has changed since; 0 for none.
    """

    database: str
    first: int
    count: int
    url: str
    key: str
    connections: int
    folder: str
    rate: int = 10_000
    margin: float | None = None
    changed_every: int = 0

    def as_json(self) -> str:
        """Return it as JSON for a command line."""
        return json.dumps(asdict(self))

    @property
    def sql(self) -> str:
        """The query that returns the rows."""
        return contacts.SQL.format(first=self.first, end=self.first + self.count)

    @property
    def path(self) -> Path:
        """The folder for files; it exists."""
        path = Path(self.folder)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def warm_up(self) -> Work:
        """Return a few rows to send before the measured ones; they are not paced."""
        return replace(self, first=self.first - WARM_UP, count=WARM_UP, rate=Work.rate)
