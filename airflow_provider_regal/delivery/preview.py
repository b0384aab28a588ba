"""A dry run: all that a delivery does, but in a folder that is gone afterwards, and nothing is sent or remembered."""

from __future__ import annotations

import tempfile
from collections import Counter
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
from airflow_provider_regal.delivery.opening import Rows, open_source, take_in
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.prepared import Ready
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

    :param log: gets the plan of a sync, why opt-ins are withheld, and samples without their values.
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
        take_in(survey.watch(open_things.enter_context(source)), folder, report.plan)
        drift = TypeDrift(ledger.types()) if ledger is not None else None
        books = Books(folder, report, target, claims=Claims(None), marking=Marking(None, None))
        intake = Intake(
            folder, preparer, books, index=index, ledger=ledger, keys=preparer.keys, drift=drift, clock=clock
        )
        samples = _Samples()
        for ready in intake.rows():
            if ready is not None:
                books.skip_row(ready, Skip.DRY_RUN, clock.now())
                samples.look_at(ready)
        ending.close_books(report, folder, 0.0)
        if report.plan:
            log("The plan\n%s", report.plan_as_table(with_reasons=True))
        if samples.withheld:
            log("Opt-ins withheld, while the rest of their rows is sent\n%s", samples.withheld_as_table())
        for line in samples.lines:
            log("%s", line)
        would = folder.progress.count(Skip.DRY_RUN)
        log("Dry run: %s of %s rows would be sent. Nothing was sent or remembered", f"{would:,}", f"{report.read:,}")
    return report


class _Samples:
    """What a few of the rows would say, without their values, and why opt-ins are withheld from the others."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.withheld: Counter[str] = Counter()
        self._shown: Counter[int] = Counter()

    def look_at(self, ready: Ready) -> None:
        """Take a row in; the first of each phase are samples."""
        self.withheld.update(one.reason for one in ready.payload.withheld)
        if self._shown[ready.phase] < _SAMPLES:
            self._shown[ready.phase] += 1
            outline = keys_only(ready.payload.body)
            self.lines.append(f"Row {ready.position} would be sent as {ready.payload.call}{_said(ready)} {outline}")

    def withheld_as_table(self) -> str:
        """Draw the reasons with their counts."""
        return "\n".join(f"{count:>8,} x {reason}" for reason, count in self.withheld.most_common())


def _said(ready: Ready) -> str:
    """Say what a sync tells Regal by it: ``, sms opt-out of 2026-01-02``."""
    claims = [claimed.claim for claimed in ready.claims if ready.only_consent]
    return "".join(
        f", {one.channel} {'opt-in' if one.subscribed else 'opt-out'} of {(one.at or '')[:10]}" for one in claims
    )
