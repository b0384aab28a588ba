"""The records of a run in the ledger and the local Regal, read with plain SQL and over HTTP: a second opinion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

#: The byte of a reserved row in the ledger's snapshot: it may be sent, and has no outcome yet.
RESERVED = 1
_DELIVERIES = """
    SELECT id, task_id, map_index, state, try_number, holder, read_rows, acknowledged, rejected, unknown, skipped
    FROM regal_deliveries WHERE dag_id = :dag AND run_id = :run AND call <> 'events' ORDER BY id
"""
_OUTCOMES = "SELECT position, status FROM regal_outcomes WHERE delivery = :delivery"
_STATES = "SELECT states FROM regal_row_chunks WHERE delivery = :delivery ORDER BY chunk"


@dataclass(frozen=True)
class Delivered:
    """A delivery, as stored in the ledger."""

    id: int
    task_id: str
    map_index: int
    state: str
    try_number: int
    holder: str | None
    read: int
    acknowledged: int
    rejected: int
    unknown: int
    skipped: int


@dataclass(frozen=True)
class Arrival:
    """A request that Regal received.

    :param row_id: the row of the source; None if it has none.
    """

    number: int
    at: float
    answer: Any
    user_id: str
    row_id: int | None
    stored: bool


class Ledger:
    """The ledger, queried with SQL.

    :param url: of its database.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool)

    def query(self, statement: str, **values: Any) -> list[Any]:
        """Run a query."""
        with self._engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def deliveries(self, dag_id: str, run_id: str) -> list[Delivered]:
        """Return the deliveries of a run, oldest first."""
        return [Delivered(*row) for row in self.query(_DELIVERIES, dag=dag_id, run=run_id)]

    def outcomes(self, delivery: int) -> dict[int, str]:
        """Return the outcomes of a delivery's rows, by their position in the source, from 1."""
        return {row.position: row.status for row in self.query(_OUTCOMES, delivery=delivery)}

    def reserved(self, delivery: int) -> int:
        """Count the rows that are reserved and have no outcome."""
        return sum(bytes(row.states).count(RESERVED) for row in self.query(_STATES, delivery=delivery))


@dataclass(frozen=True)
class Broken:
    """What a delivery had on record when its process had been killed or frozen, before the next try.

    :param acknowledged: positions that a commit had acknowledged.
    :param reserved: rows that were reserved without an outcome.
    :param until: requests that Regal had received.
    """

    acknowledged: frozenset[int]
    reserved: int
    until: int


@dataclass
class Journal:
    """All requests that Regal received, by its numbers."""

    arrivals: list[Arrival] = field(default_factory=list)

    @classmethod
    def read(cls, events: list[dict[str, Any]]) -> Journal:
        """Parse the answer of the side API."""
        return cls([_arrival(event) for event in events])

    def after(self, number: int) -> Journal:
        """Return the requests after a given one."""
        return Journal([one for one in self.arrivals if one.number > number]) if number else self

    def times(self) -> Counter[int]:
        """Return how often each row of the source arrived."""
        return Counter(one.row_id for one in self.arrivals if one.stored and one.row_id is not None)


def _arrival(event: dict[str, Any]) -> Arrival:
    body = event["body"]
    told = body.get("properties") or body.get("traits") or {}
    at = datetime.strptime(event["received_at"], "%Y-%m-%d %H:%M:%S.%f %z").timestamp()
    return Arrival(event["number"], at, event["answer"], body.get("userId", ""), told.get("row_id"), event["stored"])
