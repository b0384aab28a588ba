"""A delivery inside a task instance: its place in the ledger, its report in XCom, its end."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_regal._compat import AirflowException, get_current_context
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.events import Event
from airflow_provider_regal.hooks._ledger import open_account, tidy

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.client.pace import Pacer
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.delivery import OpenSource, Rows
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.ledger.deliveries import Place, Try

REPORT_KEY: Final = "regal_report"
CONSENTS_KEY: Final = "regal_consents_on_record"
PROGRESS_KEY: Final = "regal_progress"
_log = logging.getLogger(__name__)
_USED: Final = "regal_deliveries"  # in the task's context: the names of its deliveries


class Connected(Protocol):
    """What a delivery needs of the hook."""

    @property
    def target(self) -> Target:
        """Where events go."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent."""

    def pacer(self, rate: int) -> Pacer:
        """Return the one pacer of this process for a rate."""


class TaskDelivery:
    """Delivers rows for a task instance, or outside of one.

    :param context: Airflow's; None outside of a task.
    :param source: what identifies the source, without its rows: connection, rendered SQL, paths.
    :param name: tells deliveries of one task instance apart.
    :param ledger_conn_id: the ledger's database; None for the configured one.
    :param place: where it belongs, outside of a task instance; None for a place of its own.
    :param this: which try it is, likewise.
    :param stop: makes it stop soon, with everything unsettled kept.
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
        self.report: DeliveryReport | None = None

    def run(self) -> DeliveryReport:
        """Deliver, and push the report before anything is raised.

        :raises RegalError: as :meth:`airflow_provider_regal.delivery.delivery.Delivery.run`.
        """
        from airflow_provider_regal.delivery.delivery import Delivery
        from airflow_provider_regal.ledger.deliveries import Place

        target, settings = self._hook.target, self._with_memory()
        place, this = self._where()
        account = open_account(
            target,
            self._ledger_conn_id,
            source=str(place) if place.task_id else "",
            patience_s=settings.outage_patience_s,
        )
        with closing(account.database):
            if settings.dry_run or self._hook.dry_run:
                from airflow_provider_regal.delivery.preview import preview

                self.report = preview(
                    self._rows,
                    settings,
                    place=place,
                    target=target,
                    account=account,
                    stop=self._stop,
                    log=_log.info,
                )
                self._push(self.report)
                return self.report
            if self._context is not None:
                _use_once(self._context, self._name)
            delivery = Delivery(
                place=place or Place.outside_a_task(self._name),
                rows=self._rows,
                fingerprint=hashlib.sha256("\0".join(self._source).encode("utf-8", "surrogatepass")).hexdigest(),
                settings=settings,
                target=target,
                pacer=self._hook.pacer(settings.rate or target.rate_limit),
                account=account,
                this=this,
                stop=self._stop,
                on_progress=self._progress,
            )
            self.report = delivery.report
            try:
                return delivery.run()
            finally:
                self._push(delivery.report)
                tidy(account)

    def _with_memory(self) -> DeliverySettings:
        """Tell a sync how many consents were on record after an earlier run, as XCom has it from then."""
        settings, context = self._settings, self._context
        if settings.sync is None or context is None:
            return settings
        ti: Any = context["ti"]
        map_index = getattr(ti, "map_index", -1)
        try:
            known = ti.xcom_pull(
                task_ids=ti.task_id,
                key=CONSENTS_KEY,
                include_prior_dates=True,
                map_indexes=-1 if map_index is None else map_index,
            )
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises; it is a guard more, not a need
            _log.warning("What was on record after earlier runs could not be read (%s)", type(error).__name__)
            return settings
        known = known if isinstance(known, int) else 0
        return replace(settings, sync=replace(settings.sync, known_before=known))

    def _where(self) -> tuple[Place, Try | None]:
        from airflow_provider_regal.ledger.deliveries import Place, Try

        if self._context is None:
            return self._place or Place.outside_a_task(self._name), self._this
        ti: Any = self._context["ti"]
        map_index = getattr(ti, "map_index", -1)
        place = Place(ti.dag_id, ti.run_id, ti.task_id, -1 if map_index is None else map_index, self._name)
        # Grows when a finished task is cleared, and stays through automatic retries.
        epoch = max(int(ti.max_tries) - int(self._context["task"].retries or 0), 0)
        return place, Try(epoch, int(ti.try_number))

    def _progress(self, line: str) -> None:
        """Show the line in Airflow, where it keeps what a task notes (3.3 and later)."""
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


def _use_once(context: Any, name: str | None) -> None:
    used = context.setdefault(_USED, set())
    if name in used:
        raise ValueError("A task instance makes a second delivery: give each a name of its own (name=...).")
    used.add(name)


def current_context() -> Context | None:
    """Find Airflow's context of the running task; None outside of one."""
    try:
        return get_current_context()
    except (AirflowException, RuntimeError):
        return None


def only_events(rows: Rows) -> Rows:
    """Return the rows on, as long as they are events.

    :raises ValueError: one is not; then ``call`` is needed.
    """
    for row in rows:
        if not isinstance(row, Event):
            raise ValueError("call= is needed where rows are dictionaries: identify, track, page or screen")
        yield row


def ignoring_delivery(rows: Callable[[], Rows]) -> OpenSource:
    """Let a source that needs no ledger be opened for a delivery."""
    return lambda held: rows()
