"""Tries of deliveries: when each began, how it ended, the outcomes of its rows, and its speed.

Everything is written in transactions that are made anyway: when a try begins, when it ends, and occasionally with a
commit in between. The number of points of the speed curve is limited, however long a try takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger.schema import LONGEST_MESSAGE, tries
from airflow_provider_regal.ledger.text import fit

if TYPE_CHECKING:
    from airflow_provider_regal.ledger.deliveries import Record

RUNNING: Final = "running"
#: It was killed or lost its lease, whether or not a later try followed.
LOST: Final = "lost"
_MOST_POINTS: Final = 60
_FIRST_STEP_S: Final = 1.0
_OUTCOMES: Final = ("acknowledged", "rejected", "unknown")
_t = tries.c


class HasCounts(Protocol):
    """What is read from a delivery, or from its counts."""

    @property
    def acknowledged(self) -> int:
        """Rows that Regal acknowledged."""

    @property
    def rejected(self) -> int:
        """Rows that were rejected."""

    @property
    def unknown(self) -> int:
        """Rows that are unknown."""


class Pace:
    """How fast rows were acknowledged: a few points, at growing intervals."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self._seconds = 0.0
        self._step_s = _FIRST_STEP_S

    def note(self, seconds: float, acknowledged: int, *, last: bool = False) -> bool:
        """Add a point, if one is due; return whether it was.

        :param seconds: of sending since the previous call.
        :param acknowledged: rows so far.
        :param last: add it in any case.
        """
        self._seconds += seconds
        before = self.points[-1][0] if self.points else 0.0
        if not self._seconds > before or not (last or self._seconds - before >= self._step_s):
            return False
        self.points.append((round(self._seconds, 1), acknowledged))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[1::2]
            self._step_s *= 2
        return True


class TryLog:
    """What a running try records about itself.

    :param number: of the delivery's tries.
    :param began_with: the delivery's counts when it began.
    """

    def __init__(self, delivery: int, number: int, began_with: HasCounts) -> None:
        self._this = (_t.delivery == delivery) & (_t.number == number)
        self._began_with = {name: getattr(began_with, name) for name in _OUTCOMES}
        self._pace = Pace()

    def reopened(self, rejected: int) -> None:
        """Record that this number of previously rejected rows are open again."""
        self._began_with["rejected"] -= rejected

    def due(self, counts: HasCounts, seconds: float) -> Mapping[str, Any] | None:
        """Return what the next commit has to write; None if that can wait.

        :param seconds: of sending since the previous call.
        """
        return self._values(counts) if self._pace.note(seconds, self._in_it(counts)["acknowledged"]) else None

    def write(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Write it, within a commit."""
        connection.execute(update(tries).where(self._this).values(**values))

    def end(self, connection: Connection, counts: HasCounts, state: str, error: str | None, at: str) -> None:
        """Write how it ended."""
        self._pace.note(0.0, self._in_it(counts)["acknowledged"], last=True)
        told = None if error is None else fit(error, LONGEST_MESSAGE)
        self.write(connection, {**self._values(counts), "state": state, "error": told, "ended_at": at})

    def _in_it(self, counts: HasCounts) -> dict[str, int]:
        return _in_it(counts, self._began_with)

    def _values(self, counts: HasCounts) -> dict[str, Any]:
        return {
            **self._in_it(counts),
            "began_with": json.dumps(self._began_with),
            "pace": json.dumps(self._pace.points, separators=(",", ":")),
        }


def _in_it(counts: HasCounts, began_with: Mapping[str, int]) -> dict[str, int]:
    return {name: max(getattr(counts, name) - began_with.get(name, 0), 0) for name in _OUTCOMES}


def begin_try(connection: Connection, record: Record, at: str) -> TryLog:
    """Record that a try begins, and that the previous one has ended.

    :param record: the delivery, as taken by the try.
    """
    newest = select(func.max(_t.number)).where(_t.delivery == record.id)
    number = int(connection.execute(newest).scalar() or 0) + 1
    values = {
        "delivery": record.id, "number": number, "try_number": record.try_number, "began_at": at, "state": RUNNING,
        "began_with": json.dumps({name: getattr(record, name) for name in _OUTCOMES}),
        **dict.fromkeys(_OUTCOMES, 0),
    }  # fmt: skip
    connection.execute(insert(tries), values)
    return TryLog(record.id, number, record)


def lose_tries(connection: Connection, record: Record) -> None:
    """Record that tries still marked as running were lost at the time of the delivery's last commit.

    :param record: the delivery as they left it.
    """
    running = select(_t.number, _t.began_with).where((_t.delivery == record.id) & (_t.state == RUNNING))
    for number, began_with in connection.execute(running).fetchall():
        values = {"state": LOST, "ended_at": record.held_at, **_in_it(record, json.loads(began_with))}
        connection.execute(update(tries).where((_t.delivery == record.id) & (_t.number == number)).values(**values))


class TryRow(NamedTuple):
    """A try, as stored in its table; the counts of a running one are as recent as its delivery's.

    :param state: ``running``, ``lost``, or how the delivery ended with it.
    :param pace: JSON, see :func:`points_of`.
    """

    number: int
    try_number: int
    began_at: str
    ended_at: str | None
    state: str
    acknowledged: int
    rejected: int
    unknown: int
    error: str | None
    pace: str | None


def tries_of(connection: Connection, record: Record, *, limit: int) -> list[TryRow]:
    """List the last tries of a delivery, oldest first."""
    columns = [_t[name] for name in (*TryRow._fields, "began_with")]
    statement = select(*columns).where(_t.delivery == record.id).order_by(_t.number.desc()).limit(limit)
    found = []
    for *row, began_with in connection.execute(statement):
        one = TryRow(*row)
        in_it: dict[str, Any] = _in_it(record, json.loads(began_with)) if one.state == RUNNING else {}
        found.append(one._replace(**in_it))
    return found[::-1]


def points_of(one: TryRow) -> list[tuple[float, int]]:
    """Return the speed of a try: seconds of sending, and the rows acknowledged until then."""
    return [(float(seconds), int(rows)) for seconds, rows in json.loads(one.pace or "[]")]
