"""A delivery from its rows to its report.

::

    what has this try to do? ─▶ read the source ─▶ first pass ─▶ send ─▶ judge: report, success or error
         (resume)                (or a sync)        (ledger)     (engine)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.admission import Admission
from airflow_provider_regal.delivery.first_pass import FirstPass
from airflow_provider_regal.delivery.gate import Gate
from airflow_provider_regal.delivery.guards import (
    RUNS_COMPARED,
    Refusals,
    TooManyRefusedError,
    too_few_runs,
    why_stopped,
)
from airflow_provider_regal.delivery.owed import owed_rows, stated_rows
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.recorder import FRESH_S, Recorder
from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.delivery.resume import Plan, Work, plan_try
from airflow_provider_regal.delivery.row_index import RowIndex
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.shared import SHARED, log_shared
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.delivery.thread import run_in_thread
from airflow_provider_regal.delivery.type_drift import TypeDrift
from airflow_provider_regal.errors import (
    FixSourceError,
    LedgerError,
    RegalError,
    ResumeError,
    TakenOverError,
    TooManyFailedRowsError,
)
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import (
    FAILED,
    FINISHED,
    STOPPED,
    Changes,
    Counts,
    Deliveries,
    Held,
    Place,
    Record,
    Try,
)
from airflow_provider_regal.ledger.outcomes import redelivered
from airflow_provider_regal.ledger.states import Outcome, RowState, Skip
from airflow_provider_regal.ledger.text import from_ledger_time
from airflow_provider_regal.sources.dead_letters import Redelivery

Rows = Iterable[Any]
#: Opens the source; it is given the delivery: a redelivery takes its letters with it.
OpenSource = Callable[[Redelivery], Rows]

_log = logging.getLogger(__name__)
_LINE_EVERY_S: Final = 10.0
_REASONS_IN_MESSAGE: Final = 3


class Delivery:
    """One delivery, of one try.

    :param place: which task instance delivers; the same for every try.
    :param rows: opens the source; called only if this try has to read it.
    :param fingerprint: of the source, without its rows.
    :param account: the ledger of the account.
    :param this: which try this is.
    :param stop: makes it stop soon, with everything unsettled kept.
    :param on_progress: gets each progress line.
    """

    def __init__(
        self,
        *,
        place: Place,
        rows: OpenSource,
        fingerprint: str,
        settings: DeliverySettings,
        target: Target,
        pacer: Pacer,
        account: Account,
        this: Try | None = None,
        stop: Stop | None = None,
        clock: Clock | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._place = place
        self._rows = rows
        self._fingerprint = fingerprint
        self._settings = settings
        self._target = target
        self._pacer = pacer
        self._account = account
        self._this = this or Try()
        self._stop = stop or Stop()
        self._clock = clock or Clock()
        self._on_progress = on_progress
        self._preparer = Preparer(settings, event_source=target.event_source, phones_of=account.plain_phones_of)
        self._deliveries = Deliveries(account)
        self.report = DeliveryReport()

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises ResumeError: an earlier try may have sent rows, and it can't be resumed.
        :raises FixSourceError: the source is not plausible; nothing was sent.
        :raises TooManyFailedRowsError: more rows were rejected or are unknown than allowed.
        :raises FixConnectionError: Regal refuses the key, or the ledger is not for this account.
        :raises RetryLaterError: an outage, the ledger's or Regal's, or a request to stop; a later try resumes.
        """
        self._account.register(self._target.api_key)
        record = self._deliveries.latest(self._place)
        plan = self._plan(record)
        if plan.work is Work.NOTHING and record is not None:
            self.report.delivery, self.report.status = record.id, "nothing_to_do"
            self.report.count(Counts.of(record))
            self.report.reasons = self._deliveries.reasons(record.id)
            self.report.opt_outs_owed = self._account.count_owed()
            return self.report
        held = self._hold(plan, record)
        self.report.delivery = held.id
        try:
            with closing(RowIndex()) as index:
                self._read(plan, held, index)
                self._send(held, index)
            self._judge(held)
        except BaseException as error:
            self._let_go(held, error)
            raise
        return self.report

    def _plan(self, record: Record | None) -> Plan:
        """Decide what this try has to do."""
        settings = self._settings
        plan = plan_try(
            record,
            self._this,
            named=settings.named,
            restart=settings.restart,
            fingerprint=self._fingerprint,
            may_have_sent=record is not None and self._deliveries.may_have_sent(record),
        )
        if plan.work is Work.FAIL:
            raise ResumeError(plan.message)
        if plan.message:
            _log.info("%s", plan.message)
        return plan

    def _hold(self, plan: Plan, record: Record | None) -> Held:
        options = self._preparer.fingerprint.hex()
        hold_s = int(self._target.timeout_s + FRESH_S) + 1
        if plan.work is Work.START or record is None:
            return self._deliveries.begin(
                self._place,
                self._this,
                call=self._settings.mapping.call,
                source=self._fingerprint,
                options=options,
                hold_s=hold_s,
                rate=self._settings.rate or self._target.rate_limit,
                restarted=plan.restarted,
                replaces=record,
            )
        again = plan.work is Work.READ_AGAIN
        held = self._deliveries.take(
            record, self._this, options=options, hold_s=hold_s, source=self._fingerprint, again=again
        )
        if plan.work is Work.RESUME_WITH_REJECTED:
            _open_rejected(held)
        return held

    def _read(self, plan: Plan, held: Held, index: RowIndex) -> None:
        """Read what has to be read, and look at all rows."""
        settings, counts = self._settings, held.counts
        first_pass = FirstPass(
            self._preparer,
            index,
            self._account,
            counts,
            read_at=from_ledger_time(held.record.started_at),
            keep=held.keep_rows,
            withheld=held.log_later,
        )
        if plan.work in (Work.RESUME, Work.RESUME_WITH_REJECTED):
            first_pass.look_again(held.rows())
            return
        runs = self._deliveries.rows_of_runs(self._place, RUNS_COMPARED) if settings.volume else []
        if (told := too_few_runs(settings, runs)) is not None:
            _log.info("%s", told)
        with open_rows(
            self._rows(held),
            settings,
            self._preparer,
            self._account,
            counts,
            runs=runs,
            clock=self._clock,
            stop=self._stop,
        ) as rows:
            first_pass.read(rows)
        if counts.plan:
            self.report.count(counts)
            _log.info("The plan\n%s", self.report.plan_as_table())
        if settings.sync is None and (guard := why_stopped(counts.read, settings, runs)) is not None:
            counts.guard = guard
            held.drop_rows()
        if counts.guard is None and (slip := first_pass.slip(settings)) is not None:
            counts.guard = slip
            held.drop_rows()
        ambiguous = {} if counts.guard else first_pass.ambiguous(held.rows)
        self._add_owed(held, index, first_pass)
        if counts.guard and not held.kept:
            raise FixSourceError(f"{counts.guard} Nothing was sent.")
        held.rows_complete(ambiguous)
        self._note_shared(index.shared)
        to_send = len(held.states) - counts.owed_rows
        _log.info("Delivery %d: read %s, %s to send", held.id, rows_(counts.read), f"{to_send:,}")

    def _note_shared(self, shared: Mapping[int, str]) -> None:
        if shared:
            self.report.notes[SHARED] += len(shared)
            log_shared(shared)

    def _add_owed(self, held: Held, index: RowIndex, first_pass: FirstPass) -> None:
        """Take in the opt-outs that Regal lacks; nothing holds them back, even where a guard stops all else."""
        sync = self._settings.sync
        if (self._settings.mapping.call != "identify" and sync is None) or (sync is not None and sync.known_to_regal):
            return
        find = stated_rows if held.counts.guard and not held.kept else owed_rows
        opt_outs = find(self._account, index, on_their_way=self._deliveries.others_running(held.id))
        held.counts.owed_rows = first_pass.add_owed(opt_outs)
        if held.counts.owed_rows:
            _log.info("%s that Regal lacks are sent first", opt_outs_(held.counts.owed_rows))

    def _send(self, held: Held, index: RowIndex) -> None:
        settled_before, began = held.counts.settled, self._clock.monotonic()

        def say_how_it_goes() -> None:
            counts = held.counts
            speed = (counts.settled - settled_before) / max(self._clock.monotonic() - began, 0.001)
            line = progress_line(counts.settled, counts.read, speed, counts.rejected)
            _log.info("%s", line)
            self._on_progress(line)

        self._stop.check()
        if all(map(held.states.is_settled, range(len(held.states)))):
            return
        run_in_thread(
            lambda: self._send_all(held, index), stop=self._stop.request, every_s=_LINE_EVERY_S, tick=say_how_it_goes
        )

    async def _send_all(self, held: Held, index: RowIndex) -> None:
        # aiohttp takes a quarter of a second to import: only where something is sent.
        from airflow_provider_regal.client.many import ManySender
        from airflow_provider_regal.delivery.engine import Engine

        settings, patience_s = self._settings, self._settings.outage_patience_s
        drift = TypeDrift(self._account.types())
        recorder = Recorder(held, self._account, self._target, drift=drift, patience_s=patience_s, clock=self._clock)
        admission = Admission(
            held,
            self._preparer,
            recorder,
            index=index,
            account=self._account,
            keys=self._preparer.keys,
            drift=drift,
            clock=self._clock,
            suppress_named_events=settings.suppress_named_events,
        )
        if held.wait_s:
            _log.info("Waiting %.0f s: requests of an earlier try may still be under way", held.wait_s)
        gate = Gate(max_connections=settings.max_connections, patience_s=patience_s)
        async with ManySender(
            self._target,
            max_connections=settings.max_connections,
            may_write=lambda: not recorder.wait_s(self._clock.monotonic()),
        ) as sender:
            engine = Engine(
                rows=admission.rows(),
                recorder=recorder,
                sender=sender,
                pacer=self._pacer,
                gate=gate,
                rate=settings.rate or self._target.rate_limit,
                patience_s=patience_s,
                refusals=Refusals(settings.max_refused),
                wait_s=held.wait_s,
                stop=self._stop,
                clock=self._clock,
            )
            try:
                await engine.run()
            except LedgerError:
                raise
            except RegalError as error:
                if not isinstance(error, TakenOverError):
                    await _try_to_commit(recorder)
                raise
            finally:
                held.counts.outages += gate.outages
                self.report.notes.update(recorder.notes)
                with suppress(LedgerError):  # it is only told
                    self._note_shared(admission.shared())
            await recorder.commit()

    def _judge(self, held: Held) -> None:
        """End the delivery, now that every row is settled.

        :raises TooManyFailedRowsError: more rows were rejected or are unknown than allowed.
        """
        report, settings = self.report, self._settings
        if held.counts.guard is not None:
            raise FixSourceError(
                f"{held.counts.guard} Only opt-outs were sent ({held.counts.acknowledged + held.owed_sent:,})."
            )
        held.counts.known = held.rejected_before()
        self._count(held)
        too_many = [
            f"{number:,} {word}, more than {name}={limit}"
            for word, number, name, limit, allowed in (
                (
                    "rejected",
                    report.rejected,
                    "max_rejected",
                    settings.max_rejected,
                    settings.rejected_allowed(report.read),
                ),
                (
                    "unknown",
                    report.unknown - report.unknown_of_outage,
                    "max_unknown",
                    "the larger of 10 rows and 1 %" if settings.max_unknown is None else settings.max_unknown,
                    settings.unknown_allowed(report.read),
                ),
            )
            if number > allowed
        ]
        too_many += [
            f"{number:,} {word} with an opt-out or a decision that can't be read (no threshold allows that)"
            for number, word in ((report.opt_outs_rejected, "rejected"), (report.opt_outs_unknown, "unknown"))
            if number
        ]
        report.status = FAILED if too_many else FINISHED
        message = _why_failed(report, too_many, settings) if too_many else None
        held.end(report.status, error=message, drop_rows=not too_many)
        _log.info("%s\n%s", report.status.capitalize(), report.as_table())
        if message is not None:
            raise TooManyFailedRowsError(message, report)
        if report.unknown:
            _log.warning(
                "It can't be known whether Regal received %s %s of delivery %d. List them with: airflow regal outcomes "
                "%d --status unknown",
                f"{report.unknown:,}", "row" if report.unknown == 1 else "rows", held.id, held.id,
            )  # fmt: skip

    def _count(self, held: Held) -> None:
        self.report.count(held.counts)
        self.report.reasons = held.reasons()
        self._count_owed(held)

    def _count_owed(self, held: Held) -> None:
        report = self.report
        report.owed_sent = held.owed_sent
        if self._settings.sync is not None:
            report.consents_on_record = self._account.count_consents()
        on_their_way = self._deliveries.others_running(held.id)
        report.opt_outs_owed = self._account.count_owed(on_their_way=on_their_way)
        if report.opt_outs_owed:
            _log.warning(
                "Regal lacks %s that were read. The next delivery of contacts on this account sends them first. List "
                "them with: airflow regal consent owed",
                opt_outs_(report.opt_outs_owed),
            )

    def _let_go(self, held: Held, error: BaseException) -> None:
        """Note why it stopped, where the ledger may be the very trouble: that must not hide the error."""
        report = self.report
        given_up = isinstance(error, (FixSourceError, TooManyFailedRowsError, ValueError))
        report.status = FAILED if given_up and not isinstance(error, TooManyRefusedError) else STOPPED
        report.count(held.counts)
        if isinstance(error, (TakenOverError, LedgerError, TooManyFailedRowsError)):
            return
        try:
            held.end(
                report.status,
                error=str(error) if isinstance(error, RegalError) else type(error).__name__,
                drop_rows=report.status == FAILED,
            )
            report.reasons = held.reasons()
            self._count_owed(held)
        except RegalError as another:
            _log.warning("The end of delivery %d could not be recorded: %s", held.id, another)
        _log.info("%s\n%s", report.status.capitalize(), report.as_table())


async def _try_to_commit(recorder: Recorder) -> None:
    """Commit where the delivery has stopped for another reason, which must not be hidden."""
    try:
        await recorder.commit()
    except RegalError as error:
        _log.warning("What became of the last rows could not be recorded: %s", error)


class open_rows:  # noqa: N801 - a context manager
    """Return the rows of a delivery: those of the source, or what a sync has found out of them."""

    def __init__(
        self,
        given: Rows,
        settings: DeliverySettings,
        preparer: Preparer,
        account: Account,
        counts: Counts,
        *,
        runs: Sequence[int] = (),
        clock: Clock,
        stop: Stop,
        dry_run: bool = False,
    ) -> None:
        def limited() -> Iterator[Any]:
            for row in islice(given, settings.limit):
                stop.check()
                yield row

        self._rows: Rows = limited()
        self._sync: Any = None
        if settings.sync is not None:
            from airflow_provider_regal.delivery.sync.reconcile import Reconciliation

            self._sync = Reconciliation(
                settings=settings,
                sync=settings.sync,
                preparer=preparer,
                account=account,
                counts=counts,
                runs=runs,
                clock=clock,
                dry_run=dry_run,
            )

    def __enter__(self) -> Rows:
        return self._rows if self._sync is None else self._sync.rows(self._rows)

    def __exit__(self, *error: object) -> None:
        if self._sync is not None:
            self._sync.close()


def _open_rejected(held: Held) -> None:
    """Open the rejected rows of a cleared task again, but for those that a redelivery has taken."""
    positions = held.states.positions(RowState.REJECTED)
    source_rows = {}
    wanted = set(positions)
    for position, source_row, _ in held.rows(without=lambda position: position not in wanted):
        source_rows[position] = source_row
    taken = held.read(lambda connection: redelivered(connection, held.id))
    opened = []
    for position in positions:
        held.counts.add(Outcome.REJECTED, -1)
        held.counts.opt_outs_rejected = 0  # counted again as they are tried again
        if source_rows[position] in taken:
            held.states[position] = RowState.SKIPPED_REDELIVERED
            held.counts.skip(Skip.REDELIVERED)
        else:
            held.states[position] = RowState.OPEN
            opened.append(source_rows[position])
    held.commit(Changes(removed=opened))
    if taken:
        _log.info("%s rejected rows are left out: redeliveries have taken them", f"{len(taken):,}")


def _why_failed(report: DeliveryReport, too_many: list[str], settings: DeliverySettings) -> str:
    top = report.reasons.most_common(_REASONS_IN_MESSAGE)
    reasons = "".join(f"\n  {number:>6,} x {reason}" for reason, number in top)
    if settings.sync is not None:
        then = "Fix the rows in the source: the next run of the sync reads them again."
    elif settings.named:
        then = (
            "If the options are wrong (mapping, types), fix them and clear the task: rejected rows are tried again as "
            "they were read, and no other row is. If the data is wrong, redeliver them with a fix (airflow regal "
            f"redeliver {report.delivery})."
        )
    else:
        then = (
            f"Fix the data or the mapping, then redeliver them (airflow regal redeliver {report.delivery}). Clearing "
            "the task reads the source again and sends all of it that is not known to be at Regal unchanged."
        )
    return (
        f"Of {rows_(report.read)}, {' and '.join(too_many)}. Top reasons:{reasons}\n"
        f"List them with: airflow regal outcomes {report.delivery} --status rejected --status unknown\n{then}"
    )


def opt_outs_(number: int) -> str:
    """Write a number of opt-outs."""
    return "1 opt-out" if number == 1 else f"{number:,} opt-outs"


def rows_(number: int) -> str:
    """Write a number of rows."""
    return "1 row" if number == 1 else f"{number:,} rows"


def progress_line(done: int, total: int, speed: float, rejected: int) -> str:
    """Write how it goes: ``12,000/50,000 24 % · 298/s · 3 rejected · ETA 2m07s``."""
    share = f"{100 * done // total} %" if total else "-"
    left_s = int((total - done) / speed) if speed else None
    eta = "-" if left_s is None else f"{left_s // 60}m{left_s % 60:02d}s"
    return f"{done:,}/{total:,} {share} · {speed:.0f}/s · {rejected:,} rejected · ETA {eta}"
