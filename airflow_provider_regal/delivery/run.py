"""A delivery from its rows to its report: what this try has to do, the sending, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.aside import run_aside
from airflow_provider_regal.delivery.books import Books, lost_to_outage
from airflow_provider_regal.delivery.gate import Gate
from airflow_provider_regal.delivery.prepare import Preparer, as_row
from airflow_provider_regal.delivery.settings import NAMED_CALLS, DeliverySettings
from airflow_provider_regal.delivery.stopping import told_to_stop
from airflow_provider_regal.delivery.tries import Try, Work, plan_try
from airflow_provider_regal.errors import DecideRestartError, ReadDeadLettersError, RegalError, RetryLaterError
from airflow_provider_regal.events import Event
from airflow_provider_regal.journal.dead_letters import read_dead_letters
from airflow_provider_regal.journal.progress import CorruptProgressError, Outcome
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.run_folder import FolderInUseError, Marker, RunFolder

if TYPE_CHECKING:
    from airflow_provider_regal.delivery.engine import OpenRows

_log = logging.getLogger(__name__)
_LINE_EVERY_S: Final = 10.0

Rows = Iterable[Mapping[str, Any] | Event]


class Delivery:
    """One delivery, of one try.

    :param folder: its run folder; the same for every try.
    :param rows: opens the source; called only if this try has to read it.
    :param fingerprint: of the source, without its rows.
    :param this: which try this is.
    :param lost: if there is no folder: whether an earlier try may have had one.
    :param on_start: called before anything is read or sent.
    :param on_progress: gets each progress line.
    """

    def __init__(
        self,
        *,
        folder: Path,
        rows: Callable[[], Rows],
        fingerprint: str,
        settings: DeliverySettings,
        target: Target,
        pacer: Pacer,
        this: Try | None = None,
        lost: bool = False,
        clock: Clock | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = folder
        self._rows = rows
        self._fingerprint = fingerprint
        self._settings = settings
        self._target = target
        self._pacer = pacer
        self._this = this or Try()
        self._lost = lost
        self._clock = clock or Clock()
        self._on_progress = on_progress
        self._on_start = on_start
        self._stop_engine: Callable[[RegalError], None] | None = None
        self._stopped: RegalError | None = None
        self.report = DeliveryReport(run_folder=str(folder))

    def stop(self) -> None:
        """Stop soon, with everything unsettled kept. Safe to call from a signal handler."""
        self._stopped = self._stopped or told_to_stop()
        if self._stop_engine is not None:
            self._stop_engine(self._stopped)

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises DecideRestartError: an earlier try may have sent rows, and what it remembered cannot be used.
        :raises ReadDeadLettersError: more rows were rejected or are unknown than allowed.
        :raises FixConnectionError: Regal refuses the key.
        :raises RetryLaterError: an outage, or a request to stop; a later try goes on.
        """
        started = self._clock.monotonic()
        try:
            folder = RunFolder(self._path)
        except FolderInUseError as error:
            raise RetryLaterError(f"{error}. It must end first: run the task again.") from error
        try:
            if self._prepare(folder):
                try:
                    before = self._settled(folder)
                    run_aside(
                        lambda: self._send(folder),
                        stop=self.stop,
                        every_s=_LINE_EVERY_S,
                        tick=lambda: self._say_how_it_goes(folder, before, started),
                    )
                except BaseException:
                    self.report.status = "stopped"
                    self._try_to_close_books(folder, started)
                    raise
                self._close_books(folder, started)
                self._judge(folder)
        finally:
            folder.close()
        return self.report

    def _prepare(self, folder: RunFolder) -> bool:
        """Bring the folder into the state from which to send; False if nothing is to be done."""
        marker = folder.marker
        settings = self._settings
        plan = plan_try(
            marker,
            self._this,
            named=settings.mapping.call in NAMED_CALLS,
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
        if plan.work is Work.NOTHING:
            self.report.status = "nothing_to_do"
            self._count(folder)
            return False
        same_epoch = marker is not None and marker.epoch == self._this.epoch
        restarted = settings.restart or (same_epoch and marker is not None and marker.restarted)
        if plan.work is Work.START:
            folder.start_over()
        if plan.work is Work.GO_ON_WITH_REJECTED:  # before the marker forgets that the last try had failed
            for position in folder.progress.positions(Outcome.REJECTED):
                folder.progress.release(position)
            folder.progress.flush()
        folder.marker = Marker(self._fingerprint, self._this.epoch, self._this.number, restarted=restarted)
        self._on_start()
        if plan.work is Work.START:
            count = folder.take_snapshot(self._rows_until_stopped(), settings.limit)
            _log.info("Read %s rows into %s", f"{count:,}", self._path)
        self.report.read = folder.row_count or 0
        if self.report.read < settings.min_rows:
            folder.drop_rows()
            raise ReadDeadLettersError(
                f"The source gave {self.report.read} rows, fewer than min_rows={settings.min_rows}; nothing was sent."
            )
        return True

    def _rows_until_stopped(self) -> Iterator[Mapping[str, Any]]:
        for row in self._rows():
            if self._stopped is not None:
                raise self._stopped
            yield as_row(row)

    def _may_have_sent(self, folder: RunFolder) -> bool:
        if folder.marker is None:
            return False
        try:
            return folder.progress.may_have_sent
        except CorruptProgressError as error:
            if self._settings.restart or self._settings.mapping.call not in NAMED_CALLS:
                _log.warning("%s; everything is sent again", error)
                folder.start_over()
                return False
            raise DecideRestartError(
                f"{self._path}: {error}, so nobody can tell which rows were sent. Look in Regal; then set restart=True "
                "to send everything again, which may reach people twice."
            ) from error

    async def _send(self, folder: RunFolder) -> None:
        # aiohttp takes a quarter of a second to import: only where something is sent.
        from airflow_provider_regal.client.many import ManySender
        from airflow_provider_regal.delivery.engine import Engine

        settings = self._settings
        preparer = Preparer(settings, event_source=self._target.event_source)
        books = Books(folder, self.report, self._target)
        async with ManySender(self._target, max_connections=settings.max_connections) as sender:
            rate = settings.rate or self._target.rate_limit
            engine = Engine(
                rows=self._open_rows(folder, preparer, books),
                preparer=preparer,
                books=books,
                sender=sender,
                pacer=self._pacer,
                gate=Gate(max_connections=settings.max_connections, patience_s=settings.outage_patience_s),
                rate=rate,
                patience_s=settings.outage_patience_s,
                checkpoint_interval_s=settings.checkpoint_interval_s,
                clock=self._clock,
            )
            self._stop_engine = engine.request_stop
            if self._stopped is not None:
                engine.request_stop(self._stopped)
            try:
                await engine.run()
            finally:
                self._stop_engine = None

    def _open_rows(self, folder: RunFolder, preparer: Preparer, books: Books) -> OpenRows:
        """Give the rows that are not settled; those an earlier try died over become unknown."""
        for position, row in folder.rows(without=lambda position: folder.progress.outcome(position) is not None):
            if folder.progress.is_reserved(position):
                now = self._clock.now()
                books.died(preparer.prepare(position, row, now), now)
            else:
                yield position, row

    def _say_how_it_goes(self, folder: RunFolder, before: int, started: float) -> None:
        """Write a line: what is done, how fast, and when it will be over."""
        done = self._settled(folder)
        speed = (done - before) / (self._clock.monotonic() - started)
        line = progress_line(done, self.report.read, speed, folder.progress.count(Outcome.REJECTED))
        _log.info("%s", line)
        self._on_progress(line)

    def _settled(self, folder: RunFolder) -> int:
        return sum(folder.progress.count(outcome) for outcome in Outcome)

    def _close_books(self, folder: RunFolder, started: float) -> None:
        """Count what the folder knows, over all tries, and keep the report."""
        report = self.report
        self._count(folder)
        report.seconds = self._clock.monotonic() - started
        folder.close_files()
        for letter in read_dead_letters(folder.path / "dead_letters.jsonl"):
            report.reasons[letter.cause] += 1
            report.unknown_of_outage += lost_to_outage(letter)
        folder.write_report(report.as_dict())
        _log.info("%s\n%s", report.status.capitalize(), report.as_table())

    def _try_to_close_books(self, folder: RunFolder, started: float) -> None:
        """Close the books where the disk may be the very trouble: that must not hide why the delivery stopped."""
        try:
            self._close_books(folder, started)
        except OSError as error:
            _log.warning("The report could not be kept: %s", error.strerror)

    def _count(self, folder: RunFolder) -> None:
        report, progress = self.report, folder.progress
        report.read = folder.row_count or progress.length
        report.acknowledged = progress.count(Outcome.ACKNOWLEDGED)
        report.rejected = progress.count(Outcome.REJECTED)
        report.unknown = progress.count(Outcome.UNKNOWN)
        report.skipped = progress.count(Outcome.SKIPPED)

    def _judge(self, folder: RunFolder) -> None:
        """Say whether the delivery succeeded, now that every row is settled."""
        report, settings = self.report, self._settings
        unknown = report.unknown - report.unknown_of_outage
        too_many = [
            f"{count:,} {word}, more than {name}={limit:,}"
            for word, count, name, limit in (
                ("rejected", report.rejected, "max_rejected", settings.rejected_allowed(report.read)),
                ("unknown", unknown, "max_unknown", settings.unknown_allowed(report.read)),
            )
            if count > limit
        ]
        marker = folder.marker
        if marker is None:
            raise RegalError(f"{folder.path}: the marker is gone")
        outcome = "failed" if too_many else "finished"
        folder.marker = Marker(marker.fingerprint, marker.epoch, marker.try_number, marker.restarted, outcome)
        if too_many:
            raise ReadDeadLettersError(self._why_failed(too_many))
        folder.drop_rows()

    def _why_failed(self, too_many: list[str]) -> str:
        reasons = "".join(f"\n  {count:>6,} x {reason}" for reason, count in self.report.reasons.most_common(3))
        return (
            f"Of {self.report.read:,} rows {' and '.join(too_many)}. The commonest reasons:{reasons}\n"
            f"All are in {self._path / 'dead_letters.jsonl'}. Mend the data or the mapping and clear the task: "
            "rejected rows are tried again, none is sent twice. Or raise the threshold."
        )


def progress_line(done: int, total: int, speed: float, rejected: int) -> str:
    """Write the line that says how it goes: ``12,000/50,000 24 % · 298/s · 3 rejected · ETA 2m07s``."""
    share = f"{100 * done // total} %" if total else "-"
    left_s = int((total - done) / speed) if speed else None
    eta = "-" if left_s is None else f"{left_s // 60}m{left_s % 60:02d}s"
    return f"{done:,}/{total:,} {share} · {speed:.0f}/s · {rejected:,} rejected · ETA {eta}"
