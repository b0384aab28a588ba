"""A dry run: all that a delivery does, but in a folder that is gone afterwards, and nothing is sent or remembered."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery import ending
from airflow_provider_regal.delivery.books import Books
from airflow_provider_regal.delivery.claims import Claims
from airflow_provider_regal.delivery.intake import Intake
from airflow_provider_regal.delivery.marking import Marking
from airflow_provider_regal.delivery.marks import WEIGHT_MARK
from airflow_provider_regal.delivery.opening import Rows, open_source
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.survey import Survey
from airflow_provider_regal.delivery.type_drift import TypeDrift
from airflow_provider_regal.events.privacy import keys_only
from airflow_provider_regal.journal.progress import Skip
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.row_index import RowIndex
from airflow_provider_regal.journal.run_folder import RunFolder

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

_SAMPLES: Final = 3


def preview(
    rows: Rows,
    settings: DeliverySettings,
    *,
    target: Target,
    log: Callable[..., None],
    open_ledger: Callable[[], Ledger] | None = None,
) -> DeliveryReport:
    """Say what a delivery would send.

    :param log: gets the samples, masked, and the report.
    :param open_ledger: gives the ledger, which is only read.
    :raises CheckSourceError: the source gave what cannot be meant.
    """
    clock = Clock()
    report = DeliveryReport(run_folder="", status="dry_run")
    preparer = Preparer(settings, event_source=target.event_source)
    with ExitStack() as open_things:
        path = Path(open_things.enter_context(tempfile.TemporaryDirectory(prefix="regal-dry-run-")))
        folder = open_things.enter_context(closing(RunFolder(path)))
        ledger = None if open_ledger is None else open_things.enter_context(closing(open_ledger()))
        index = open_things.enter_context(closing(RowIndex.new(folder.index_path)))
        survey = Survey(preparer, index, keys=preparer.keys, ledger=None, clock=clock)
        source = open_source(
            rows,
            settings=settings,
            preparer=preparer,
            folder=path,
            ledger=ledger,
            plan=report.plan,
            clock=clock,
            dry_run=True,
        )
        folder.take_snapshot(
            survey.watch(open_things.enter_context(source)), weight_of=lambda row: row.get(WEIGHT_MARK, 1)
        )
        drift = TypeDrift(ledger.types()) if ledger is not None else None
        books = Books(folder, report, target, claims=Claims(None), marking=Marking(None, None))
        intake = Intake(
            folder, preparer, books, index=index, ledger=ledger, keys=preparer.keys, drift=drift, clock=clock
        )
        if report.plan:
            log("Dry run. The plan\n%s", report.plan_as_table())
        shown = 0
        for ready in intake.rows():
            if ready is None:
                continue
            books.skip_row(ready, Skip.DRY_RUN, clock.now())
            if shown < _SAMPLES:
                shown += 1
                body = keys_only(ready.payload.body)
                log("Row %d would be sent as %s %s", ready.position, ready.payload.call, body)
        would = folder.progress.count(Skip.DRY_RUN)
        ending.close_books(report, folder, 0.0)
        log("Dry run: %s of %s rows would be sent", f"{would:,}", f"{report.read:,}")
    return report
