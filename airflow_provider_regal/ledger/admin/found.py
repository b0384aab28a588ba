"""Unknown rows that somebody looked up in Regal and found there: no redelivery sends them again.

Their status remains ``unknown``, since the delivery never learned it; ``found_at`` tells when they were marked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import literal_column, select, update
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger.entries import batches
from airflow_provider_regal.ledger.schema import outcomes
from airflow_provider_regal.ledger.states import Outcome

_o: Final = outcomes.c
_AT_ONCE: Final = 500
# The status is a literal in the statement: the partial index requires it.
_UNKNOWN: Final = _o.status == literal_column(f"'{Outcome.UNKNOWN.value}'")


def mark_found(connection: Connection, delivery: int, positions: Collection[int] | None, found_at: str) -> set[int]:
    """Mark unknown rows as found at Regal.

    :param positions: None for all unknown rows of the delivery.
    :returns: the rows marked by this call, without those that a redelivery has taken.
    """
    return _mark(connection, delivery, positions, _o.redelivered_by.is_(None) & _o.found_at.is_(None), found_at)


def unmark_found(connection: Connection, delivery: int, positions: Collection[int] | None) -> set[int]:
    """Undo :func:`mark_found`; return the rows that were marked."""
    return _mark(connection, delivery, positions, _o.found_at.is_not(None), None)


def _mark(
    connection: Connection, delivery: int, positions: Collection[int] | None, which: Any, found_at: str | None
) -> set[int]:
    unknown = (_o.delivery == delivery) & _UNKNOWN & which
    wanted = {*connection.execute(select(_o.position).where(unknown)).scalars()}
    if positions is not None:
        wanted &= {*positions}
    marked = set[int]()
    for some in batches(sorted(wanted), _AT_ONCE):
        these = (_o.delivery == delivery) & _o.position.in_(some)
        # A redelivery may have taken some of them since they were read.
        connection.execute(update(outcomes).where(these & which).values(found_at=found_at))
        is_marked = _o.found_at.is_(None) if found_at is None else _o.found_at == found_at
        marked.update(connection.execute(select(_o.position).where(these & is_marked)).scalars())
    return marked
