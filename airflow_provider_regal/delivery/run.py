"""A delivery from its rows to its report.

::

    what has this try to do? ─▶ read the source ─▶ survey, snapshot ─▶ sending ─▶ ending: report, success or error
         (tries)                  (or reconcile)      (run folder)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery import ending
from airflow_provider_regal.delivery.aside import run_aside
from airflow_provider_regal.delivery.heap import heap_set_apart
from airflow_provider_regal.delivery.intake import options_of
from airflow_provider_regal.delivery.opening import Rows, open_folder, open_source, take_in
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.rejected_again import open_rejected
from airflow_provider_regal.delivery.sending import Sending
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import own_failure, told_to_stop
from airflow_provider_regal.delivery.survey import Survey
from airflow_provider_regal.delivery.tries import Plan, Try, Work, plan_try
from airflow_provider_regal.errors import (
    CheckSourceError,
    DecideRestartError,
    FixConnectionError,
    RegalError,
    RetryLaterError,
)
from airflow_provider_regal.journal.bucket import Bucket, StorageError
from airflow_provider_regal.journal.folder_letters import forget_claims
from airflow_provider_regal.journal.ledger_error import LedgerError, WrongLedgerError
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.progress import CorruptProgressError, Outcome
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.row_index import RowIndex
from airflow_provider_regal.journal.run_folder import FolderInUseError, FolderReplacedError, RunFolder

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

_log = logging.getLogger(__name__)
_LINE_EVERY_S: Final = 10.0


class Delivery:
    """One delivery, of one try.

    :param folder: its run folder; the same for every try.
    :param rows: opens the source; called only if this try has to read it.
    :param fingerprint: of the source, without its rows.
    :param this: which try this is.
    :param lost: if there is no folder: whether an earlier try may have had one.
    :param open_ledger: gives the ledger of a run; None for a delivery without one.
    :param on_start: called before anything is read or sent.
    :param on_progress: gets each progress line.
    :param around: entered with the run folder once that is open, left before it is closed.
    """

    def __init__(
        self,
        *,
        folder: Path | Bucket,
        rows: Callable[[], Rows],
        fingerprint: str,
        settings: DeliverySettings,
        target: Target,
        pacer: Pacer,
        this: Try | None = None,
        lost: bool = False,
        open_ledger: Callable[[], Ledger] | None = None,
        clock: Clock | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
        on_start: Callable[[], None] = lambda: None,
        around: Callable[[RunFolder], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._path = folder
        self._rows = rows
        self._fingerprint = fingerprint
        self._settings = settings
        self._target = target
        self._pacer = pacer
        self._this = this or Try()
        self._lost = lost
        self._open_ledger = open_ledger
        self._clock = clock or Clock()
        self._on_progress, self._on_start, self._around = on_progress, on_start, around
        self._preparer = Preparer(settings, event_source=target.event_source)
        self._sending: Sending | None = None
        self._stopped: RegalError | None = None
        self._started = 0.0
        self.report = DeliveryReport(run_folder=str(folder))

    def stop(self) -> None:
        """Stop soon, with everything unsettled kept. Safe to call from a signal handler."""
        self._stopped = self._stopped or told_to_stop()
        if self._sending is not None:
            self._sending.stop(self._stopped)

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises DecideRestartError: an earlier try may have sent rows, and what it remembered cannot be used.
        :raises CheckSourceError: the source gave what cannot be meant; nothing was sent.
        :raises ReadDeadLettersError: more rows were rejected or are unknown than allowed.
        :raises FixConnectionError: Regal refuses the key.
        :raises RetryLaterError: an outage, or a request to stop; a later try goes on.
        """
        try:
            with heap_set_apart():
                return self._run()
        except WrongLedgerError as error:
            raise FixConnectionError(str(error)) from error
        except (LedgerError, StorageError, FolderReplacedError) as error:
            raise own_failure(error) from error

    def _run(self) -> DeliveryReport:
        self._started = self._clock.monotonic()
        with ExitStack() as open_things:
            try:
                opened = open_folder(
                    self._path,
                    self._this,
                    settings=self._settings,
                    timeout_s=self._target.timeout_s,
                    clock=self._clock,
                    stopped=lambda: self._stopped is not None,
                )
                folder = open_things.enter_context(closing(opened))
            except FolderInUseError as error:
                raise RetryLaterError(f"{error}. It must end first: run the task again.") from error
            open_things.enter_context(self._around(folder))
            plan = self._plan(folder)
            if plan.work is Work.NOTHING:
                self.report.status = "nothing_to_do"
                ending.count(self.report, folder)
                return self.report
            ledger = None if self._open_ledger is None else open_things.enter_context(closing(self._open_ledger()))
            index = open_things.enter_context(closing(self._bring_up_to(plan, folder, ledger)))
            self._send(folder, index, ledger)
            ending.judge(self.report, folder, self._settings)
        return self.report

    def _plan(self, folder: RunFolder) -> Plan:
        """Decide what this try has to do."""
        settings = self._settings
        plan = plan_try(
            folder.marker,
            self._this,
            named=settings.named,
            restart=settings.restart,
            fingerprint=self._fingerprint,
            snapshot_complete=folder.row_count is not None,
            may_have_sent=self._may_have_sent(folder),
            lost=self._lost,
        )
        if plan.say:
            _log.info("%s", plan.say)
        if plan.work is Work.FAIL:
            raise DecideRestartError(plan.say)
        return plan

    def _may_have_sent(self, folder: RunFolder) -> bool:
        if folder.marker is None:
            return False
        try:
            return folder.progress.may_have_sent
        except CorruptProgressError as error:
            if self._settings.restart or not self._settings.named:
                _log.warning("%s; everything is sent again", error)
                folder.start_over()
                return False
            raise DecideRestartError(
                f"{self._path}: {error}, so nobody can tell which rows were sent. Look in Regal; then set restart=True "
                "to send everything again, which may reach people twice."
            ) from error

    def _bring_up_to(self, plan: Plan, folder: RunFolder, ledger: Ledger | None) -> RowIndex:
        """Bring the folder into the state from which to send."""
        settings, marker = self._settings, folder.marker
        same_epoch = marker is not None and marker.epoch == self._this.epoch
        restarted = settings.restart or (same_epoch and marker is not None and marker.restarted)
        if plan.work is Work.START:
            folder.start_over()
            forget_claims(folder.path)
        if plan.work is Work.GO_ON_WITH_REJECTED:  # before the marker forgets that the last try had failed
            open_rejected(folder)
        options = options_of(self._preparer, ledger)
        same_options = plan.work is Work.START or marker is None or marker.options == options
        folder.marker = Marker(
            self._fingerprint,
            self._this.epoch,
            self._this.number,
            restarted=restarted,
            options=options if same_options else "several",
        )
        self._on_start()
        index = self._index(plan, folder, ledger, same_options=same_options)
        self.report.plan, _ = folder.notes()
        self.report.read = folder.source_rows
        if self.report.read < settings.min_rows:
            index.close()
            folder.drop_rows()
            raise CheckSourceError(
                f"The source gave {self.report.read} rows, fewer than min_rows={settings.min_rows}; nothing was sent."
            )
        return index

    def _index(self, plan: Plan, folder: RunFolder, ledger: Ledger | None, *, same_options: bool) -> RowIndex:
        """Read what has to be read, and have a look at all rows."""
        settings = self._settings
        if plan.work is Work.GO_ON and same_options and (index := RowIndex.of(folder.index_path)) is not None:
            return index
        index = RowIndex.new(folder.index_path)
        try:
            survey = Survey(self._preparer, index, keys=self._preparer.keys, ledger=ledger, clock=self._clock)
            if plan.work is Work.START:
                source = open_source(
                    self._rows_until_stopped(),
                    settings=settings,
                    preparer=self._preparer,
                    folder=folder.path,
                    ledger=ledger,
                    plan=self.report.plan,
                    clock=self._clock,
                )
                with source as rows:
                    take_in(survey.watch(rows), folder, self.report.plan)
                if self.report.plan:
                    _log.info("The plan\n%s", self.report.plan_as_table())
                _log.info("Read %s rows into %s", f"{folder.source_rows:,}", self._path)
            else:
                for _ in survey.watch(row for _, row in folder.rows()):
                    pass
        except BaseException:
            index.close()
            raise
        return index

    def _rows_until_stopped(self) -> Iterator[Any]:
        for row in self._rows():
            if self._stopped is not None:
                raise self._stopped
            yield row

    def _send(self, folder: RunFolder, index: RowIndex, ledger: Ledger | None) -> None:
        before = ending.settled(folder)
        try:
            sending = self._sending = Sending(
                folder,
                self.report,
                preparer=self._preparer,
                settings=self._settings,
                target=self._target,
                pacer=self._pacer,
                index=index,
                ledger=ledger,
                clock=self._clock,
            )
            if self._stopped is not None:
                sending.stop(self._stopped)
            run_aside(
                sending.run,
                stop=self.stop,
                every_s=_LINE_EVERY_S,
                tick=lambda: self._say_how_it_goes(folder, before),
            )
        except BaseException:
            self.report.status = "stopped"
            self._try_to_close_books(folder)
            raise
        ending.close_books(self.report, folder, self._seconds())

    def _seconds(self) -> float:
        return self._clock.monotonic() - self._started

    def _say_how_it_goes(self, folder: RunFolder, before: int) -> None:
        """Write a line: what is done, how fast, and when it will be over."""
        done = ending.settled(folder)
        speed = (done - before) / self._seconds()
        line = ending.progress_line(done, self.report.read, speed, folder.progress.count(Outcome.REJECTED))
        _log.info("%s", line)
        self._on_progress(line)

    def _try_to_close_books(self, folder: RunFolder) -> None:
        """Close the books where the disk may be the very trouble: that must not hide why the delivery stopped."""
        try:
            ending.close_books(self.report, folder, self._seconds())
        except OSError as error:
            _log.warning("The report could not be kept: %s", error.strerror)
