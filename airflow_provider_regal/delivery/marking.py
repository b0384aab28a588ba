"""Marking: what became of rows is written into the ledger, after it was written into the run folder.

Send, acknowledge, mark: a crash between the last two costs no mark, since the next try marks what the run folder knows
to be acknowledged and the ledger may not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_regal.delivery.keys import hash_of_body
from airflow_provider_regal.delivery.prepared import Ready
from airflow_provider_regal.delivery.type_drift import TypeDrift
from airflow_provider_regal.events.names import PHONES, TRAITS
from airflow_provider_regal.journal.ledger_rules import Claim
from airflow_provider_regal.journal.progress import Progress

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger


@dataclass(slots=True)
class _Marks:
    """What is to be written, and of which rows."""

    positions: list[int] = field(default_factory=list)
    acknowledged: list[Claim] = field(default_factory=list)
    unknown: list[Claim] = field(default_factory=list)
    released: list[Claim] = field(default_factory=list)
    contacts: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    phones: set[tuple[str, str]] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    types: dict[str, str] = field(default_factory=dict)

    def put_back(self, earlier: _Marks) -> None:
        """Take in again what could not be written; it comes before what was collected since."""
        for name in ("positions", "acknowledged", "unknown", "released", "contacts"):
            setattr(self, name, getattr(earlier, name) + getattr(self, name))
        self.phones |= earlier.phones
        self.rejected |= earlier.rejected
        self.types |= earlier.types


class Marking:
    """Collects marks, and writes them in batches; does nothing without a ledger.

    :param drift: knows the types that were sent for the first time.
    """

    def __init__(self, ledger: Ledger | None, drift: TypeDrift | None) -> None:
        self._ledger = ledger
        self._drift = drift
        self._marks = _Marks()
        self._writing = asyncio.Lock()

    def acknowledge(self, row: Ready) -> None:
        """Regal has the row."""
        if self._ledger is None:
            return
        marks = self._marks
        if row.instead_of is None:
            marks.positions.append(row.position)
        marks.acknowledged += _claims(row)
        if row.key is not None:
            marks.contacts.append((row.key, row.row_hash, row.payload_hash))
        if row.user_id is not None and row.payload.body.get(TRAITS, {}).get(PHONES):
            marks.phones.update((row.user_id, phone) for phone in row.payload.body[TRAITS][PHONES])

    def lose_sight(self, row: Ready) -> None:
        """Regal may have the row."""
        self._marks.unknown += _claims(row)

    def release(self, row: Ready) -> None:
        """Regal surely does not have the row, and it is not sent now."""
        self._marks.released += _claims(row)

    def is_known(self, rejected: str) -> bool:
        """Say whether an earlier run has rejected the same; it is remembered either way.

        :param rejected: hash of what was rejected.
        """
        if self._ledger is None:
            return False
        self._marks.rejected.add(rejected)
        return bool(self._ledger.known_rejections([rejected]))

    def refuse(self, row: Ready) -> bool:
        """Regal refused the row for good; say whether it had refused the same to an earlier run."""
        self.release(row)
        return self.is_known(hash_of_body(row.body))

    async def write(self, progress: Progress, sync: Callable[[], Awaitable[None]]) -> None:
        """Write what was collected.

        :param sync: forces to disk what the run folder knows of it: that comes first.
        :raises OSError: the ledger cannot be reached; what was collected is kept for another time.
        """
        async with self._writing:
            progress.flush()
            marks, self._marks = self._marks, _Marks()
            if self._drift and marks.positions:
                marks.types |= self._drift.take_new()
            try:
                await sync()
                if self._ledger is not None and marks != _Marks():
                    await asyncio.to_thread(_write, self._ledger, marks)
            except BaseException:
                self._marks.put_back(marks)
                raise
            progress.note_in_ledger(marks.positions)


def _write(ledger: Ledger, marks: _Marks) -> None:
    ledger.settle(acknowledged=marks.acknowledged, unknown=marks.unknown, released=marks.released)
    ledger.mark_contacts(marks.contacts)
    ledger.mark_phones(marks.phones)
    ledger.mark_rejected(marks.rejected)
    if marks.types:
        ledger.claim_types(marks.types)


def _claims(row: Ready) -> Iterable[Claim]:
    return (claimed.claim for claimed in row.claims)
