"""Show how a delivery would treat one row: the resulting event, and what the ledger has on record.

::

    source ─▶ first pass, up to the row or to the end ─▶ admission of the row alone ─▶ verdicts of the ledger ─▶ Look

Nothing is sent or stored; the account's ledger is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.delivery import DeliveryRows
from airflow_provider_regal.delivery.dry_run import scratch_delivery
from airflow_provider_regal.delivery.reading.first_pass import FirstPass
from airflow_provider_regal.delivery.reading.grants import grant
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.prepared import Ready, Rejected
from airflow_provider_regal.delivery.reading.row_index import RowIndex
from airflow_provider_regal.delivery.reading.type_drift import TypeDrift
from airflow_provider_regal.delivery.sending.admission import Admission
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Held
from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.sources.marks import MARKS, ORIGIN_MARK, ROW_MARK, Marked, columns_of
from airflow_provider_regal.sources.rows import as_row

#: Another delivery is currently sending a decision of the same person.
BUSY: Final = "busy"


@dataclass(slots=True)
class Look:
    """How a delivery would treat a row.

    :param number: the row's number in the source, from 1.
    :param given: the row as the source returned it, including its marks.
    :param read: number of source rows that were read.
    :param events: what would be sent: one event or none; for a row of a sync, one for each decision.
    :param rejected: why the row can never be sent; its opt-outs may still be in ``events``.
    :param skip: why else nothing of the row is sent; for a sync, the term its plan uses.
    """

    number: int
    given: Mapping[str, Any]
    read: int = 0
    events: list[Ready] = field(default_factory=list)
    rejected: Rejected | None = None
    skip: str | None = None

    @property
    def row(self) -> Mapping[str, Any]:
        """The row without marks."""
        return columns_of(self.given)

    @property
    def place(self) -> str:
        """The row's place in the source."""
        return self.given.get(ORIGIN_MARK) or f"row {self.number:,}"

    @property
    def alone(self) -> Marked:
        """The row as a source of its own; it keeps its place."""
        marked = self.given if not MARKS.isdisjoint(self.given) else {ROW_MARK: self.given}
        return Marked({**marked, ORIGIN_MARK: self.place})


def look_at(
    rows: Iterable[Any],
    number: int,
    settings: DeliverySettings,
    *,
    target: Target,
    account: Account,
    alone: bool = False,
) -> Look:
    """Determine how a delivery would treat a row.

    Earlier rows are read, too. Later rows are read only where they could matter: if the row has consent or a message
    id, or an option compares rows. A row of a sync is evaluated alone.

    :param number: of the row, from 1.
    :param account: the ledger of the account, which is only read.
    :param alone: ignore the other rows, like a delivery of this row alone.
    :raises FixSourceError: the source has fewer rows.
    """
    account.register(target.api_key, keep=False)
    clock = Clock(now=account.now)
    sync = settings.sync and replace(settings.sync, on_removed=None, max_change_ratio=None)
    settings = replace(settings, sync=sync, min_rows=0, max_rows=None, volume=None)
    preparer = Preparer(settings, event_source=target.event_source, phones_of=account.plain_phones_of)
    alone = alone or sync is not None
    look = Look(number, {})

    def needed() -> Iterator[Any]:
        for look.read, given in enumerate(rows, 1):
            if look.read >= number or not alone:
                yield given
            if look.read == number:
                row = look.given = as_row(given)
                if alone or not _depends_on_others(row, preparer, clock):
                    break

    with scratch_delivery(account, settings.mapping.call) as held, closing(RowIndex()) as index:
        first_pass = FirstPass(
            preparer, index, account, held.counts, read_at=clock.now(), keep=held.keep_rows, commits=False
        )
        with DeliveryRows(
            needed(), settings, preparer, account, held.counts, clock=clock, stop=Stop(), dry_run=True
        ) as opened:
            first_pass.read(opened)
        if look.read < number:
            raise FixSourceError(f"There is no row {number:,}: the source has {look.read:,}.")
        held.rows_complete(first_pass.ambiguous(held.rows))
        recorder = _Recorder(look)
        drift = TypeDrift(account.types())
        admission = Admission(
            cast("Held", _Only(held, None if alone else number)),
            preparer,
            cast("Any", recorder),
            index=index,
            account=account,
            keys=preparer.keys,
            drift=drift,
            clock=clock,
            suppress_named_events=settings.suppress_named_events,
        )
        for ready in admission.rows():
            if ready is not None:
                _ask_the_ledger(ready, account, look)
        if not look.events and look.rejected is None and look.skip is None:
            look.skip = _skipped_when_read(held)
    return look


def _depends_on_others(row: Mapping[str, Any], preparer: Preparer, clock: Clock) -> bool:
    settings = preparer.settings
    if settings.on_shared == "reject" or settings.only_changed:
        return True
    seen = preparer.prepare(0, decode_row(encode_row(row)), clock.now())
    return isinstance(seen, Ready) and (seen.message_id is not None or bool(seen.payload.consents))


def _ask_the_ledger(ready: Ready, account: Account, look: Look) -> None:
    if isinstance(ready.instead_of, Rejected):
        look.rejected = ready.instead_of
    decided = grant(ready, account.verdicts([one.claim for one in ready.claims]))
    decided.apply()
    if decided.go:
        look.events.append(ready)
    elif look.rejected is None:
        look.skip = BUSY if decided.busy else decided.skip


def _skipped_when_read(held: Held) -> str:
    """Return why a row never entered the snapshot."""
    return next(iter(held.counts.skips), Skip.NOT_INCLUDED)


class _Only:
    """A delivery that admits a single row."""

    def __init__(self, held: Held, source_row: int | None) -> None:
        self.states = held.states
        self.record = held.record
        self._held = held
        self._source_row = source_row

    def rows_to_send(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Return the row."""
        for one in self._held.rows_to_send():
            if self._source_row in (None, one[1]):
                yield one


class _Recorder:
    """Captures what admission decides about the row, and stores nothing."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def reject(self, row: Rejected, now: object) -> None:
        """Capture that it can never be sent."""
        self._look.rejected = row

    def skip(self, row: Ready, why: Skip, now: object) -> None:
        """Capture that it is not sent."""
        if isinstance(row.instead_of, Rejected):
            self._look.rejected = row.instead_of
        else:
            self._look.skip = why

    def leave_out(self, position: int, why: Skip, weight: int = 1) -> None:
        """Capture that its person must not be contacted."""
        self._look.skip = why
