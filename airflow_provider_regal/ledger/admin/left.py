"""Find rows that have no outcome yet: those of one delivery, and those that no try has resumed for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import age_s
from airflow_provider_regal.ledger.admin.as_read import identifiers_in
from airflow_provider_regal.ledger.admin.history import is_live
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import DROPPED, RECORD, SENDING, STOPPED, Counts, Record
from airflow_provider_regal.ledger.outcomes import OutcomeRow
from airflow_provider_regal.ledger.rows import decode_chunk
from airflow_provider_regal.ledger.states import OUTCOMES, RowState

#: The status shown for a row without an outcome.
LEFT: Final = "left"
#: The reason shown for a row that was in flight when its try ended.
ON_ITS_WAY: Final = "may have been sent"
_d, _c = schema.deliveries.c, schema.row_chunks.c


class Left(NamedTuple):
    """Rows that no try has resumed for a while.

    :param delivery: the delivery with the oldest of them.
    """

    deliveries: int = 0
    rows: int = 0
    oldest_at: str | None = None
    delivery: int | None = None


def rows_left(database: Database, *, quiet_s: float) -> Left:
    """Count the rows of deliveries that stopped and that no try has resumed.

    :param quiet_s: only deliveries without a commit for this many seconds; before that, a retry may be due.
    """
    now, found = database.now(), Left()
    stopped = _d.state.in_((SENDING, STOPPED)) & _d.kept_rows.is_not(None) & (_d.source != DROPPED)
    lines = database.read(lambda connection: connection.execute(RECORD.where(stopped)).fetchall())
    for record in map(Record._make, lines):
        left = record.read_rows - Counts.of(record).settled
        last_at = record.ended_at or record.held_at or record.started_at
        if left <= 0 or is_live(record, now) or age_s(last_at, now) <= quiet_s:
            continue
        oldest = found.oldest_at is None or last_at < found.oldest_at
        found = Left(
            found.deliveries + 1,
            found.rows + left,
            last_at if oldest else found.oldest_at,
            record.id if oldest else found.delivery,
        )
    return found


def left_of(database: Database, record: Record, *, after: int = 0) -> Iterator[OutcomeRow]:
    """Stream a delivery's rows without an outcome, in source order and in constant memory.

    Their people are identified as the source wrote them. A delivery whose rows were dropped has none left.

    :param after: only rows after this one.
    """
    chunks = select(_c.chunk, _c.states).where(_c.delivery == record.id).order_by(_c.chunk)
    for chunk, states in database.read(lambda connection: connection.execute(chunks).fetchall()):
        is_left = [state not in OUTCOMES for state in bytes(states)]
        if any(is_left):
            yield from _of_chunk(database, record, chunk, bytes(states), after)


def _of_chunk(database: Database, record: Record, chunk: int, states: bytes, after: int) -> Iterator[OutcomeRow]:
    one = select(_c.rows).where((_c.delivery == record.id) & (_c.chunk == chunk))
    encoded = database.read(lambda connection: connection.execute(one).scalar())
    if encoded is None:  # it has finished in the meantime
        return
    for number, position, row in decode_chunk(bytes(encoded), without=lambda number: states[number] in OUTCOMES):
        if position > after:
            yield OutcomeRow(
                record.id, position, record.account, row.get("$origin"), record.call, None,
                **identifiers_in(row), status=LEFT,
                reason=ON_ITS_WAY if states[number] == RowState.RESERVED else None,
                field=None, message=None, attempts=0, first_at="", last_at="", redelivered_by=None, found_at=None,
                is_dead_letter=False,
            )  # fmt: skip
