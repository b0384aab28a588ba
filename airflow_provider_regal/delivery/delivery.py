"""Run a delivery, from its rows to its report.

::

    what has this try to do? ─▶ read the source ─▶ first pass ─▶ send ─▶ judge: report, success or error
         (resume)                (or a sync)        (ledger)     (engine)

A plan sends only opt-outs. The task that sends the plan later works like a retry: it sends the remaining rows. A dry
run is a plan that sends nothing at all, on a temporary ledger.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.approved import Approved
from airflow_provider_regal.delivery.dry_run import LookingOnly, scratch_delivery
from airflow_provider_regal.delivery.guards import (
    RUNS_COMPARED,
    Refusals,
    StoppedByGuardError,
    too_few_runs,
    why_stopped,
)
from airflow_provider_regal.delivery.reading.first_pass import FirstPass
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.row_index import RowIndex
from airflow_provider_regal.delivery.reading.shared import SHARED, log_shared
from airflow_provider_regal.delivery.reading.type_drift import TypeDrift
from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.delivery.resume import ToDo, Work, what_to_do
from airflow_provider_regal.delivery.sending.admission import Admission
from airflow_provider_regal.delivery.sending.approval import Approval
from airflow_provider_regal.delivery.sending.gate import Gate
from airflow_provider_regal.delivery.sending.owed import overtaken_rows, owed_rows, stated_rows
from airflow_provider_regal.delivery.sending.progress import Progress
from airflow_provider_regal.delivery.sending.recorder import FRESH_S, Recorder
from airflow_provider_regal.delivery.sending.share import RateShare
from airflow_provider_regal.delivery.sending.thread import run_in_thread
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
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
    PLANNED,
    STOPPED,
    Changes,
    Counts,
    Deliveries,
    Held,
    Place,
    Record,
    Try,
)
from airflow_provider_regal.ledger.formats import redeliver_command
from airflow_provider_regal.ledger.outcomes import outcomes_of, redelivered
from airflow_provider_regal.ledger.shares import Shares
from airflow_provider_regal.ledger.states import Outcome, RowState, Skip
from airflow_provider_regal.ledger.text import from_ledger_time
from airflow_provider_regal.sources.dead_letters import DeliveryInProgress
from airflow_provider_regal.sources.marks import LETTER_TIME_MARK

if TYPE_CHECKING:
    from airflow_provider_regal.client.many import Watch

Rows = Iterable[Any]
#: Opens the source. Receives the delivery that reads it; only a redelivery needs it, to take over dead letters.
OpenSource = Callable[[DeliveryInProgress], Rows]

_log = logging.getLogger(__name__)
#: A share is held for a second after the last request, and is agreed on before the commit ends.
SHARE_HOLD_S: Final = FRESH_S + 1.5
_REASONS_IN_MESSAGE: Final = 3
_REJECTED_LOGGED: Final = 20
_KEPT: Final = (
    "Nothing was sent, and the rows are kept: a clear with options that let them pass sends them as they were read; "
    "any other clear reads the source again."
)


class Delivery:
    """One try of a delivery.

    :param place: the task instance that delivers; the same for every try.
    :param rows: opens the source; called only if this try has to read it.
    :param fingerprint: of the source, without its rows.
    :param account: the ledger of the account.
    :param this: the number of this try.
    :param stop: asks the delivery to stop soon; unsettled rows are kept.
    :param on_begin: called with the delivery once this try holds it; not in a dry run.
    :param on_progress: called with each progress line.
    :param progress_every_s: seconds between progress lines.
    :param watch: called with each send attempt and its duration in seconds.
    :param approved: the plan whose rows are sent instead of the source's.
    """

    def __init__(
        self,
        *,
        place: Place,
        rows: OpenSource,
        fingerprint: str,
        settings: DeliverySettings,
        target: Target,
        account: Account,
        this: Try | None = None,
        stop: Stop | None = None,
        clock: Clock | None = None,
        on_begin: Callable[[Held], None] = lambda held: None,
        on_progress: Callable[[str], None] = lambda line: None,
        progress_every_s: float = 10.0,
        watch: Watch | None = None,
        approved: Approved | None = None,
    ) -> None:
        if settings.plan:  # the options are stored as JSON: send with the same ones
            settings = DeliverySettings.from_json(settings.to_json())
        self._place = place
        self._rows = rows
        self._fingerprint = fingerprint
        self._settings = settings
        self._target = target
        self._account = account
        self._this = this or Try()
        self._stop = stop or Stop()
        self._clock = clock or Clock()
        self._on_begin = on_begin
        self._on_progress = on_progress
        self._progress_every_s = progress_every_s
        self._watch = watch
        self._approved = approved
        self._preparer = Preparer(settings, event_source=target.event_source, phones_of=account.plain_phones_of)
        self._deliveries = Deliveries(account)
        self._withheld = Counter[str]()  # from rows that wait for approval
        self._gate: Gate | None = None
        self.report = DeliveryReport()

    @property
    def outages(self) -> int:
        """Regal outages in this try so far. Thread-safe."""
        return 0 if self._gate is None else self._gate.outages

    def latencies(self) -> list[float]:
        """Return the latencies of the last answers, in seconds. Thread-safe."""
        return [] if self._gate is None else self._gate.latencies()

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises ResumeError: an earlier try may have sent rows, and it can't be resumed.
        :raises FixSourceError: a check of the source failed; nothing but opt-outs was sent.
        :raises TooManyFailedRowsError: more rows were rejected or are unknown than allowed.
        :raises FixConnectionError: Regal refuses the key, or the ledger is not for this account.
        :raises PlanError: the plan that was approved can't be sent.
        :raises RetryLaterError: an outage of the ledger or of Regal, or a request to stop; a later try resumes.
        """
        if self._settings.dry_run:
            return self._run_dry()
        self._account.register(self._target.api_key)
        record = self._approved.find(self._account) if self._approved else self._deliveries.latest(self._place)
        todo = self._to_do(record)
        if todo.work is Work.NOTHING and record is not None:
            self.report.delivery = record.id
            self.report.status = PLANNED if record.state == PLANNED else "nothing_to_do"
            self.report.count(Counts.of(record))
            self.report.reasons = self._deliveries.reasons(record.id)
            self.report.opt_outs_owed = self._account.count_owed()
            return self.report
        held = self._hold(todo, record)
        self.report.delivery = held.id
        self._on_begin(held)
        try:
            self._deliver(todo, held)
            self._judge(held)
        except BaseException as error:
            self._let_go(held, error)
            raise
        return self.report

    def _run_dry(self) -> DeliveryReport:
        """Determine what would be sent."""
        self._account.register(self._target.api_key, keep=False)
        report = self.report
        report.status = "dry_run"
        with scratch_delivery(self._account, self._settings.mapping.call) as held:
            self._deliver(ToDo(Work.START), held)
            report.count(held.counts)
            report.reasons = held.reasons()
            rejected = outcomes_of(held.database, held.id, statuses=(Outcome.REJECTED.value,))
            first = [f"{row.where}: {row.message}" for row in islice(rejected, _REJECTED_LOGGED)]
        report.opt_outs_owed = self._account.count_owed(on_their_way=self._deliveries.others_running(0))
        self._tell("Dry run")
        for line in first:  # no ledger keeps them
            _log.info("%s", line)
        if (more := report.rejected - len(first)) > 0:
            _log.info("and %s more are rejected", rows_(more))
        would = report.skips.get(Skip.DRY_RUN, 0)
        _log.info("Dry run: %s of %s would be sent. Nothing was sent or kept", f"{would:,}", rows_(report.read))
        return report

    def _deliver(self, todo: ToDo, held: Held) -> None:
        with closing(RowIndex()) as index:
            self._read(todo, held, index)
            self._send(held, index)

    def _to_do(self, record: Record | None) -> ToDo:
        """Decide what this try has to do."""
        if self._approved is not None and record is not None:
            if record.state == FINISHED:
                return ToDo(Work.NOTHING, f"Delivery {record.id} was sent before: a plan is sent once.")
            return ToDo(Work.RESUME)
        settings = self._settings
        todo = what_to_do(
            record,
            self._this,
            named=settings.named,
            restart=settings.restart,
            fingerprint=self._fingerprint,
            may_have_sent=record is not None and self._deliveries.may_have_sent(record),
            plans=settings.plan,
            stopped_again=record is not None and self._is_stopped_again(record),
        )
        if todo.work is Work.FAIL:
            raise ResumeError(todo.message)
        if todo.message:
            _log.info("%s", todo.message)
        return todo

    def _is_stopped_again(self, record: Record) -> bool:
        """Return whether the guard that stopped a delivery before the first send would stop its kept rows again."""
        counts = Counts.of(record)
        if counts.guard is None or record.kept_rows is None or not self._settings.named:
            return False
        return why_stopped(counts.read, self._settings, self._runs()) is not None

    def _runs(self) -> list[int]:
        return self._deliveries.rows_of_runs(self._place, RUNS_COMPARED) if self._settings.volume else []

    def _hold(self, todo: ToDo, record: Record | None) -> Held:
        held = self._begin_or_take(todo, record)
        held.counts.only_changed = self._settings.only_changed
        return held

    def _begin_or_take(self, todo: ToDo, record: Record | None) -> Held:
        options = self._preparer.fingerprint.hex()
        hold_s = int(self._target.timeout_s + FRESH_S) + 1
        plan = self._settings.to_json() if self._settings.plan else None
        if todo.work is Work.START or record is None:
            return self._deliveries.begin(
                self._place,
                self._this,
                call=self._settings.mapping.call,
                source=self._fingerprint,
                options=options,
                hold_s=hold_s,
                rate=self._settings.rate or self._target.rate_limit,
                restarted=todo.restarted,
                replaces=record,
                plan=plan,
                conn_id=self._target.conn_id,
            )
        if self._approved is not None:
            return self._take_plan(self._approved, record, options, hold_s)
        again = todo.work is Work.READ_AGAIN
        held = self._deliveries.take(
            record,
            self._this,
            options=options,
            hold_s=hold_s,
            source=self._fingerprint,
            again=again,
            plan=plan,
            conn_id=self._target.conn_id,
        )
        if self._settings.named:
            held.counts.guard = None  # the guard accepts the kept rows now
        if todo.work is Work.RESUME_WITH_REJECTED:
            _open_rejected(held)
        return held

    def _take_plan(self, approved: Approved, record: Record, options: str, hold_s: int) -> Held:
        try:
            return self._deliveries.take(
                record,
                self._this,
                options=options,
                hold_s=hold_s,
                source=record.source,
                plan=record.plan,
                sender=approved.sent_by,
                conn_id=self._target.conn_id,
            )
        except TakenOverError:
            approved.find(self._account)  # raises if another task was faster
            raise

    def _read(self, todo: ToDo, held: Held, index: RowIndex) -> None:
        """Read the source if needed, and run the first pass over all rows."""
        settings, counts, dry_run = self._settings, held.counts, self._settings.dry_run
        first_pass = FirstPass(
            self._preparer,
            index,
            self._account,
            counts,
            read_at=from_ledger_time(held.record.started_at),
            keep=held.keep_rows,
            withheld=held.log_later,
            commits=not dry_run,
        )
        if todo.work in (Work.RESUME, Work.RESUME_WITH_REJECTED):
            first_pass.look_again(held.rows())
            return
        runs = self._runs()
        if (told := too_few_runs(settings, runs)) is not None:
            _log.info("%s", told)
        with DeliveryRows(
            self._rows(LookingOnly(self._account, held.record) if dry_run else held),
            settings,
            self._preparer,
            self._account,
            counts,
            runs=runs,
            clock=self._clock,
            stop=self._stop,
            dry_run=dry_run,
        ) as rows:
            first_pass.read(rows)
        if counts.plan and not (dry_run or settings.plan):
            self.report.count(counts)
            _log.info("The plan\n%s", self.report.plan_as_table())
        if counts.guard is None:  # a sync runs its own checks
            self._guard(held, first_pass, runs)
        ambiguous = {} if counts.guard else first_pass.ambiguous(held.rows)
        self._add_owed(held, index, first_pass)
        if counts.guard and not held.kept:
            raise FixSourceError(f"{counts.guard} Nothing was sent.")
        held.rows_complete(ambiguous)
        self._note_shared(index.shared)
        to_send = len(held.states) - counts.owed_rows
        if not dry_run:
            _log.info("Delivery %d: read %s, %s to send", held.id, rows_(counts.read), f"{to_send:,}")

    def _guard(self, held: Held, first_pass: FirstPass, runs: Sequence[int]) -> None:
        """If a guard stops all but opt-outs, record why and drop the rows.

        :raises StoppedByGuardError: a guard stopped named events; their rows are kept.
        """
        settings, counts = self._settings, held.counts
        guard = why_stopped(counts.read, settings, runs) if settings.sync is None else None
        slip = first_pass.slip(settings)
        if guard is not None and slip is None and self._keeps(held):
            counts.guard = guard
            held.rows_complete({})
            raise StoppedByGuardError(f"{guard} {_KEPT}")
        if (why := guard or slip) is not None:
            counts.guard = why
            held.drop_rows()

    def _keeps(self, held: Held) -> bool:
        """Return whether the rows that a guard stopped are kept: named events that are not dead letters."""
        if not self._settings.named or self._settings.plan or self._settings.dry_run:
            return False
        first = next(iter(held.rows()), None)
        return first is not None and LETTER_TIME_MARK not in first[2]  # dead letters stay where they are

    def _note_shared(self, shared: Mapping[int, str]) -> None:
        if shared:
            self.report.notes[SHARED] += len(shared)
            log_shared(shared)

    def _add_owed(self, held: Held, index: RowIndex, first_pass: FirstPass) -> None:
        """Add the opt-outs that Regal lacks. They are sent even if a guard stops everything else."""
        sync = self._settings.sync
        if (self._settings.mapping.call != "identify" and sync is None) or (sync is not None and sync.known_to_regal):
            return
        if self._settings.dry_run:
            return
        counts, on_their_way = held.counts, self._deliveries.others_running(held.id)
        if counts.guard and not held.kept:
            first = stated_rows(self._account, index, on_their_way=on_their_way)
        else:
            last = overtaken_rows(self._account, index, on_their_way=on_their_way)
            counts.owed_last = first_pass.add_owed(last)
            first = owed_rows(self._account, index, on_their_way=on_their_way)
        found = first_pass.add_owed(first)
        counts.owed_rows = counts.owed_last + found
        if found:
            _log.info("%s that Regal lacks are sent first", opt_outs_(found))

    def _send(self, held: Held, index: RowIndex) -> None:
        progress = Progress(
            held.counts,
            began=self._clock.monotonic(),
            every_s=self._progress_every_s,
            patience_s=self._settings.outage_patience_s,
        )

        def say_how_it_goes() -> None:
            now = self._clock.monotonic()
            line = progress.line(now)
            if progress.is_due(now):
                _log.info("%s", line)
            self._on_progress(line)

        self._stop.check()
        if all(map(held.states.is_settled, range(len(held.states)))):
            return
        run_in_thread(
            lambda: self._send_all(held, index),
            stop=self._stop.request,
            every_s=self._progress_every_s,
            tick=say_how_it_goes,
        )

    async def _send_all(self, held: Held, index: RowIndex) -> None:
        # aiohttp takes 250 ms to import: do it only when something is sent.
        from airflow_provider_regal.client.many import ManySender
        from airflow_provider_regal.delivery.sending.engine import Engine

        settings, patience_s = self._settings, self._settings.outage_patience_s
        drift, waits = TypeDrift(self._account.types()), settings.plan or settings.dry_run
        limit, pacer = self._target.rate_limit, Pacer(0)
        share = RateShare(
            Shares(self._account, sender=held.holder, rate_limit=limit, hold_s=SHARE_HOLD_S),
            pacer,
            most=min(settings.rate or limit, limit),
            clock=self._clock,
        )
        recorder = Recorder(
            held,
            self._account,
            self._target,
            drift=None if waits else drift,
            patience_s=patience_s,
            clock=self._clock,
            share=None if settings.dry_run else share,  # a dry run sends nothing
        )
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
            of_plan=settings.plan or self._approved is not None,
        )
        rows = admission.rows()
        if waits:
            approval = Approval(rows, recorder, self._account, self._clock, dry_run=settings.dry_run)
            rows = approval.rows()
            self.report.samples, self._withheld = approval.samples, approval.withheld
        if held.wait_s:
            _log.info("Waiting %.0f s: requests of an earlier try may still be under way", held.wait_s)

        def may_go_in_s() -> float:
            now = self._clock.monotonic()
            return inf if recorder.wait_s(now) else pacer.go(now)

        gate = self._gate = Gate(max_connections=settings.max_connections, patience_s=patience_s)
        async with ManySender(
            self._target,
            max_connections=settings.max_connections,
            wait_s=may_go_in_s,
            watch=self._watch,
        ) as sender:
            engine = Engine(
                rows=rows,
                recorder=recorder,
                sender=sender,
                pacer=pacer,
                gate=gate,
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
                with suppress(LedgerError):  # only informational
                    self._note_shared(admission.shared())
            await recorder.commit(last=True)

    def _judge(self, held: Held) -> None:
        """Finish the delivery once every row is settled.

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
            f"{number:,} {word}, more than {name}={limit}{_as_percent(limit)}"
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
        report.status = FAILED if too_many else PLANNED if settings.plan else FINISHED
        message = _why_failed(report, too_many) if too_many else None
        drop_rows = report.status == FINISHED or (settings.plan and report.status == FAILED)
        held.end(report.status, error=message, drop_rows=drop_rows)
        self._tell(report.status.capitalize())
        if message is not None:
            raise TooManyFailedRowsError(message, report)
        if report.status == PLANNED:
            _log.info("Delivery %d is planned: %s wait until a task sends them", held.id, rows_(report.left))
        if report.unknown:
            _log.warning(
                "It can't be known whether Regal received %s of delivery %d. List them with: airflow regal outcomes "
                "%d --status unknown. Look for them in Regal, and send those it lacks: %s",
                rows_(report.unknown), held.id, held.id,
                redeliver_command(held.id, self._target.conn_id, "--status", "unknown"),
            )  # fmt: skip

    def _tell(self, title: str) -> None:
        report = self.report
        if report.plan and report.status in ("dry_run", PLANNED):
            _log.info("The plan\n%s", report.plan_as_table())
        for sample in report.samples:
            _log.info("%s", sample)
        _log.info("%s\n%s", title, report.as_table())

    def _count(self, held: Held) -> None:
        self.report.count(held.counts)
        self.report.withheld += self._withheld
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
        """Record why the delivery stopped. The ledger may be the cause, so a failure here must not hide the error."""
        report = self.report
        given_up = isinstance(error, (FixSourceError, TooManyFailedRowsError, ValueError))
        report.status = FAILED if given_up and not isinstance(error, StoppedByGuardError) else STOPPED
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
    """Commit after the delivery has stopped for another reason, without hiding that reason."""
    try:
        await recorder.commit(last=True)
    except RegalError as error:
        _log.warning("What became of the last rows could not be recorded: %s", error)


class DeliveryRows:
    """The rows of a delivery: those of the source, or those a sync computes from them."""

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
    """Reopen the rejected rows of a cleared task, except those that a redelivery has taken over."""
    positions = held.states.positions(RowState.REJECTED)
    source_rows = {}
    wanted = set(positions)
    for position, source_row, _ in held.rows(without=lambda position: position not in wanted):
        source_rows[position] = source_row
    taken = held.read(lambda connection: redelivered(connection, held.id))
    opened = []
    for position in positions:
        held.counts.add(Outcome.REJECTED, -1)
        held.counts.opt_outs_rejected = 0  # counted again as they are retried
        if source_rows[position] in taken:
            held.states[position] = RowState.SKIPPED_REDELIVERED
            held.counts.skip(Skip.REDELIVERED)
        else:
            held.states[position] = RowState.OPEN
            opened.append(source_rows[position])
    if held.log is not None:
        held.log.reopened(len(positions))
    held.commit(Changes(removed=opened))
    if taken:
        _log.info("%s rejected rows are left out: redeliveries have taken them", f"{len(taken):,}")


def _as_percent(limit: object) -> str:
    """Format a share as `` (2 %)``; return an empty string for a number of rows."""
    return f" ({100 * limit:g} %)" if isinstance(limit, float) and limit else ""


def _why_failed(report: DeliveryReport, too_many: list[str]) -> str:
    top = report.reasons.most_common(_REASONS_IN_MESSAGE)
    reasons = "".join(f"\n  {number:>6,} x {reason}" for reason, number in top)
    return (
        f"Of {rows_(report.read)}, {' and '.join(too_many)}. Top reasons:{reasons}\n"
        f"List them with: airflow regal outcomes {report.delivery} --status rejected --status unknown"
    )


def opt_outs_(number: int) -> str:
    """Format a number of opt-outs."""
    return "1 opt-out" if number == 1 else f"{number:,} opt-outs"


def rows_(number: int) -> str:
    """Format a number of rows."""
    return "1 row" if number == 1 else f"{number:,} rows"
