"""Run a delivery in a task instance: its place in the ledger, its report in XCom, its end."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_regal._compat import AirflowException, ObjectStoragePath, get_current_context, may_have_xcom
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import FixSourceError, PlanError, RegalError, RetryLaterError, TakenOverError
from airflow_provider_regal.hooks._ledger import kept_for, open_account, tidy
from airflow_provider_regal.sources import BadSourceError, SourceError

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.client.many import Watch
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.delivery import OpenSource, Rows
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.ledger.account import Account
    from airflow_provider_regal.ledger.deliveries import Place, Try

REPORT_KEY: Final = "regal_report"
CONSENTS_KEY: Final = "regal_consents_on_record"
PROGRESS_KEY: Final = "regal_progress"
_log = logging.getLogger(__name__)
_PACKAGE: Final = Path(__file__).parents[1]
_USED: Final = "regal_deliveries"  # key in the task's context: the names of its deliveries


class Connected(Protocol):
    """What a delivery needs from the hook."""

    @property
    def target(self) -> Target:
        """The address and the key for events."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent."""


class TaskDelivery:
    """Delivers rows, inside a task instance or outside.

    :param context: Airflow's; None outside a task.
    :param rows: opens the source. Errors that it raises are shown without their text, which may hold values of rows.
    :param source: what identifies the source, without its rows: connection, rendered SQL, paths.
    :param name: of this delivery, if the task instance has more than one.
    :param ledger_conn_id: the ledger's database; None for the configured one.
    :param place: the delivery's place in the ledger, outside a task instance; None for a new one.
    :param this: the number of this try, outside a task instance.
    :param stop: asks the delivery to stop soon; unsettled rows are kept.
    :param progress_every_s: seconds between progress lines.
    :param watch: called with each send attempt and its duration in seconds.
    :param plan: the approved delivery whose rows are sent, with the options it was created with.
    :param changes: names of the settings that override the plan's.
    :raises ValueError: a second delivery of one task instance has no name of its own.
    """

    def __init__(
        self,
        hook: Connected,
        *,
        context: Context | None,
        settings: DeliverySettings,
        rows: OpenSource,
        source: tuple[str, ...],
        name: str | None = None,
        ledger_conn_id: str | None = None,
        place: Place | None = None,
        this: Try | None = None,
        stop: Stop | None = None,
        progress_every_s: float = 10.0,
        watch: Watch | None = None,
        plan: int | None = None,
        changes: Collection[str] = (),
    ) -> None:
        self._hook = hook
        self._context = context
        self._settings = settings
        self._rows = rows
        self._source = source
        self._name = name
        self._ledger_conn_id = ledger_conn_id
        self._place = place
        self._this = this
        self._stop = stop or Stop()
        self._progress_every_s = progress_every_s
        self._watch = watch
        self._plan = plan
        self._changes = changes
        self.report: DeliveryReport | None = None

    def run(self) -> DeliveryReport:
        """Deliver, and push the report before raising anything.

        :raises RegalError: see :meth:`airflow_provider_regal.delivery.delivery.Delivery.run`.
        """
        from airflow_provider_regal.assets.regal import add_counts, sent_by
        from airflow_provider_regal.delivery.approved import Approved
        from airflow_provider_regal.delivery.delivery import Delivery
        from airflow_provider_regal.delivery.report import DeliveryReport
        from airflow_provider_regal.hooks._metrics import Metrics
        from airflow_provider_regal.ledger.deliveries import Place

        target, settings = self._hook.target, self._with_memory()
        if settings.contract is not None:
            settings.contract.load(read_file, call=settings.mapping.call, event=settings.mapping.event)
        place, this = self._where()
        account = open_account(
            target,
            self._ledger_conn_id,
            source=str(place) if place.task_id else "",
            patience_s=settings.outage_patience_s,
        )
        with closing(account.database):
            approved = None if self._plan is None else Approved(self._plan, place, kept_for().plan_days)
            if approved is not None:
                try:
                    settings = approved.settings(account, settings, self._changes)
                except PlanError:
                    self._push(DeliveryReport(approved.number, "failed"))
                    raise
            if settings.dry_run or self._hook.dry_run:
                settings = replace(settings, dry_run=True, plan=False)
            elif self._context is not None:
                _use_once(self._context, self._name)
            metrics = Metrics(account=account.name, call=settings.mapping.call)

            def show(line: str) -> None:
                self._progress(line)
                metrics.tick(delivery)

            delivery = Delivery(
                place=place or Place.outside_a_task(self._name),
                rows=lambda held: given_rows(lambda: self._rows(held)),
                fingerprint=hashlib.sha256("\0".join(self._source).encode("utf-8", "surrogatepass")).hexdigest(),
                settings=settings,
                target=target,
                account=account,
                this=this,
                stop=self._stop,
                on_begin=metrics.begin,
                on_progress=show,
                progress_every_s=self._progress_every_s,
                watch=self._watch,
                approved=approved,
            )
            self.report = delivery.report
            try:
                return delivery.run()
            except (RegalError, ValueError) as error:
                _add_next_steps(error, account, delivery.report)
                raise
            finally:
                self._push(delivery.report)
                if not settings.dry_run:
                    if self._context is not None:
                        add_counts(self._context, delivery.report, target.account, sent_by(settings, target.account))
                    metrics.end(delivery, delivery.report)
                    tidy(account)

    def _with_memory(self) -> DeliverySettings:
        """For a sync, add the number of consents on record after an earlier run, from its XCom."""
        settings, context = self._settings, self._context
        if settings.sync is None or context is None:
            return settings
        ti: Any = context["ti"]
        map_index = getattr(ti, "map_index", -1)
        try:
            known = may_have_xcom(ti, CONSENTS_KEY) and ti.xcom_pull(
                task_ids=ti.task_id,
                key=CONSENTS_KEY,
                include_prior_dates=True,
                map_indexes=-1 if map_index is None else map_index,
            )
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises; it is a guard more, not a need
            _log.warning("What was on record after earlier runs could not be read (%s)", type(error).__name__)
            return settings
        known = int(known) if isinstance(known, int) else 0
        return replace(settings, sync=replace(settings.sync, known_before=known))

    def _where(self) -> tuple[Place, Try | None]:
        from airflow_provider_regal.ledger.deliveries import Place, Try

        if self._context is None:
            return self._place or Place.outside_a_task(self._name), self._this
        ti: Any = self._context["ti"]
        # Increases when a finished task is cleared, and stays the same in automatic retries.
        epoch = max(int(ti.max_tries) - int(self._context["task"].retries or 0), 0)
        return place_of(ti, self._name), Try(epoch, int(ti.try_number))

    def _progress(self, line: str) -> None:
        """Store the progress line in the task's state, for Airflow to show (3.3 and later)."""
        store: Any = None if self._context is None else self._context.get("task_state_store")
        if store is None:
            return
        try:
            store.set(PROGRESS_KEY if self._name is None else f"{PROGRESS_KEY}/{self._name}", line)
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises; the ledger is the truth
            _log.debug("Progress is not shown in Airflow (%s)", type(error).__name__)

    def _push(self, report: DeliveryReport) -> None:
        if self._context is not None:
            if report.consents_on_record:
                self._context["ti"].xcom_push(key=CONSENTS_KEY, value=report.consents_on_record)
            key = REPORT_KEY if self._name is None else f"{REPORT_KEY}_{self._name}"
            self._context["ti"].xcom_push(key=key, value=report.as_dict())


def place_of(ti: Any, name: str | None) -> Place:
    """Return the place of a task instance's deliveries in the ledger."""
    from airflow_provider_regal.ledger.deliveries import Place

    map_index = getattr(ti, "map_index", -1)
    return Place(ti.dag_id, ti.run_id, ti.task_id, -1 if map_index is None else map_index, name)


def _add_next_steps(error: Exception, account: Account, report: DeliveryReport) -> None:
    """Add to an error how many rows are left and what to do next, in the words of the delivery's page."""
    from airflow_provider_regal.ledger.admin.monitoring import letters
    from airflow_provider_regal.ledger.admin.words import left_of, next_steps
    from airflow_provider_regal.ledger.deliveries import Counts, Deliveries

    if report.delivery is None or isinstance(error, TakenOverError):
        return
    try:
        record = Deliveries(account).find(report.delivery)
        refused = letters(account.database, report.delivery).refused
    except RegalError:  # the ledger may be the cause
        return
    steps = next_steps(record, Counts.of(record), account.now(), refused=refused) if record is not None else []
    if record is not None and steps:
        numbered = "".join(f"\n  {number}. {step}" for number, step in enumerate(steps, 1))
        rows, left = record.read_rows, left_of(record)
        told = f"{left:,} of {rows:,} rows are left to send." if left else f"All {rows:,} rows have an outcome."
        error.add_note(f"{told} Next:{numbered}")


def _use_once(context: Any, name: str | None) -> None:
    used = context.setdefault(_USED, set())
    if name in used:
        raise ValueError("A task instance makes a second delivery: give each a name of its own (name=...).")
    used.add(name)


def current_context() -> Context | None:
    """Return Airflow's context of the running task; None outside one."""
    try:
        return get_current_context()
    except (AirflowException, RuntimeError):
        return None


def given_rows(open_source: Callable[[], Rows], *, passing: tuple[type[Exception], ...] = ()) -> Iterator[Any]:
    """Open a source and return its rows. If it fails, the error names the row and the line, but no values.

    :param passing: errors that are not changed, like those of this package and of Airflow.
    :raises FixSourceError: the source raised a ValueError, or did not return rows.
    :raises RetryLaterError: it raised another error.
    """
    number = 0
    try:
        rows = open_source()
        if not hasattr(rows, "__iter__"):
            raise FixSourceError(f"The source must return rows, not {type(rows).__name__}. Nothing was sent.")
        for number, row in enumerate(rows, 1):  # noqa: B007 - used where the source fails
            yield row
    except Exception as error:
        if isinstance(error, (RegalError, SourceError, AirflowException, *passing)):
            raise error from None  # its cause may contain values, too
        kind = FixSourceError if isinstance(error, ValueError) else RetryLaterError
        problem = f"The source failed at row {number + 1:,} ({type(error).__name__}{_line_of(error)})"
    else:
        return
    # Outside the handler: the text of the source's error may contain values.
    raise kind(f"{problem}. Nothing was sent. Fix the source and clear the task: all of it is read again.")


def _line_of(error: Exception) -> str:
    """Return the line where the source failed: in its own code, not in code that it calls."""
    for frame, line in walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if _PACKAGE not in file.parents:
            return f" at {file.name} line {line}"
    return ""


def only_events(rows: Rows) -> Rows:
    """Yield the events; fail at the first dictionary.

    :raises BadSourceError: an item is a dictionary, which needs ``call``.
    """
    from airflow_provider_regal.sources.marks import EVENT_MARK, REJECT_MARK
    from airflow_provider_regal.sources.rows import as_row

    for row in map(as_row, rows):
        if EVENT_MARK not in row and REJECT_MARK not in row:
            raise BadSourceError("call= is needed where rows are dictionaries: identify, track, page or screen")
        yield row


def read_file(path: str) -> bytes:
    """Read a small file, on this machine or on object storage.

    :raises OSError: it can't be read.
    """
    found: bytes = ObjectStoragePath(path).read_bytes()
    return found
