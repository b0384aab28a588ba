"""The sending of one try: what takes rows in, the engine, and what becomes of them - put together.

::

    snapshot ─▶ Intake ─▶ Engine ─▶ Books ─▶ run folder
                  ▲          │        └────▶ Marking ─▶ ledger
                index      Claims ◀──────────────────── ledger
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.books import Books
from airflow_provider_regal.delivery.claims import Claims
from airflow_provider_regal.delivery.gate import Gate
from airflow_provider_regal.delivery.intake import Intake
from airflow_provider_regal.delivery.marking import Marking
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.type_drift import TypeDrift
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.row_index import RowIndex
from airflow_provider_regal.journal.run_folder import RunFolder

if TYPE_CHECKING:
    from airflow_provider_regal.delivery.engine import Engine
    from airflow_provider_regal.journal.ledger import Ledger

_log = logging.getLogger(__name__)
_MARKED_AGAIN_AT_ONCE: Final = 1_000


class Sending:
    """Sends what is open in a run folder.

    :param index: made by the survey of this delivery's rows.
    """

    def __init__(
        self,
        folder: RunFolder,
        report: DeliveryReport,
        *,
        preparer: Preparer,
        settings: DeliverySettings,
        target: Target,
        pacer: Pacer,
        index: RowIndex,
        ledger: Ledger | None,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._target = target
        self._pacer = pacer
        self._clock = clock
        drift = TypeDrift(ledger.types()) if ledger is not None else None
        self._marking = Marking(ledger, drift)
        self._books = Books(folder, report, target, claims=Claims(ledger), marking=self._marking)
        self._intake = Intake(
            folder,
            preparer,
            self._books,
            index=index,
            ledger=ledger,
            keys=preparer.keys,
            drift=drift,
            clock=clock,
        )
        self._engine: Engine | None = None
        self._stopped: RegalError | None = None

    def stop(self, why: RegalError) -> None:
        """Stop soon. Safe to call from a signal handler or another thread."""
        self._stopped = self._stopped or why
        if self._engine is not None:
            self._engine.request_stop(self._stopped)

    async def run(self) -> None:
        """Send until every row is settled.

        :raises RegalError: why it had to stop with rows left.
        """
        # aiohttp takes a quarter of a second to import: only where something is sent.
        from airflow_provider_regal.client.many import ManySender
        from airflow_provider_regal.delivery.engine import Engine

        settings = self._settings
        await self._mark_again()
        async with ManySender(
            self._target, max_connections=settings.max_connections, may_write=self._may_write
        ) as sender:
            self._engine = Engine(
                rows=self._intake.rows(),
                books=self._books,
                sender=sender,
                pacer=self._pacer,
                gate=Gate(max_connections=settings.max_connections, patience_s=settings.outage_patience_s),
                rate=settings.rate or self._target.rate_limit,
                patience_s=settings.outage_patience_s,
                checkpoint_interval_s=settings.checkpoint_interval_s,
                clock=self._clock,
            )
            if self._stopped is not None:
                self._engine.request_stop(self._stopped)
            try:
                await self._engine.run()
            except (RegalError, OSError):
                await self._try_to_mark()
                raise
            finally:
                self._engine = None
            await self._books.checkpoint()

    def _may_write(self) -> bool:
        self._books.flush()  # before anything else reaches the network: what a crash forgets is what is under way
        return not self._books.wait_s(self._clock.monotonic())

    async def _mark_again(self) -> None:
        """Make the marks that a crash kept an earlier try from making."""
        for count, row in enumerate(self._intake.acknowledged_before(), 1):
            self._marking.acknowledge(row)
            if count % _MARKED_AGAIN_AT_ONCE == 0:
                await self._books.checkpoint()
        await self._books.checkpoint()

    async def _try_to_mark(self) -> None:
        """Mark where the ledger may be the very trouble: that must not hide why the delivery stopped."""
        try:
            await self._books.checkpoint()
        except OSError as error:
            _log.warning("The ledger could not be written (%s); the next try does it", type(error).__name__)
