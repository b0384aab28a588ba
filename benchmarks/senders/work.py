"""What a sender is given to do."""

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
    :param connections: open at most at once, where a sender can have several.
    :param folder: to keep files in.
    """

    database: str
    first: int
    count: int
    url: str
    key: str
    connections: int
    folder: str

    def as_json(self) -> str:
        """Write it for a command line."""
        return json.dumps(asdict(self))

    @property
    def sql(self) -> str:
        """The query that gives the rows."""
        return contacts.SQL.format(first=self.first, end=self.first + self.count)

    @property
    def path(self) -> Path:
        """The folder to keep files in; it is there."""
        path = Path(self.folder)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def warm_up(self) -> Work:
        """Take a few rows before those that are measured."""
        return replace(self, first=self.first - WARM_UP, count=WARM_UP)
