"""A delivery inside a task instance: its place, its report in XCom, its end."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_regal._compat import AirflowException, get_current_context
from airflow_provider_regal.delivery.opening import Rows
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.events import Event
from airflow_provider_regal.hooks._ledger import open_ledger
from airflow_provider_regal.hooks._place import Place, place_of, place_outside_a_task, tidy

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.client.pace import Pacer
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.journal.ledger import Ledger
    from airflow_provider_regal.journal.report import DeliveryReport
    from airflow_provider_regal.journal.run_folder import RunFolder

REPORT_KEY: Final = "regal_report"
_log = logging.getLogger(__name__)
_used: set[tuple[str, int, int]] = set()


class Connected(Protocol):
    """What a delivery needs of the hook."""

    @property
    def target(self) -> Target:
        """Where events go."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent."""

    def pacer(self, rate: int) -> Pacer:
        """Give the one pacer of this process for a rate."""


class TaskDelivery:
    """Delivers rows for a task instance, or outside of one.

    :param context: Airflow's; None outside of a task.
    :param source: what identifies the source, without its rows: connection, rendered SQL, paths.
    :param name: tells deliveries of one task instance apart.
    :param ledger_conn_id: the database of the ledger; without it, where one is needed, a file beside the run folders.
    :param ledger_file: that file is used without being needed.
    :param place: where to work, outside of a task instance.
    :param around: as in :class:`airflow_provider_regal.delivery.run.Delivery`.
    :raises ValueError: a second delivery of one task instance has no name of its own.
    """

    def __init__(
        self,
        hook: Connected,
        *,
        context: Context | None,
        settings: DeliverySettings,
        rows: Callable[[], Rows],
        source: tuple[str, ...],
        name: str | None = None,
        ledger_conn_id: str | None = None,
        ledger_file: bool = False,
        place: Place | None = None,
        around: Callable[[RunFolder], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._hook = hook
        self._around = around
        self._ledger_file = ledger_file
        self._given_place = place
        self._ledger_conn_id = ledger_conn_id
        self._context = context
        self._settings = settings
        self._rows = rows
        self._source = source
        self._name = name
        self._delivery: Delivery | None = None
        self._stopped = False

    def run(self) -> DeliveryReport:
        """Deliver, and push the report before anything is raised.

        :raises RegalError: as :meth:`airflow_provider_regal.delivery.run.Delivery.run`.
        """
        target = self._hook.target
        if self.dry_run:
            from airflow_provider_regal.delivery.preview import preview

            report = preview(
                self._rows(),
                self._settings,
                target=target,
                log=_log.info,
                open_ledger=self._ledger_of(target, self._place, keep_secret=False),
            )
            self._push(report)
            return report
        place = self._place
        key = (str(place.folder), place.this.epoch, place.this.number)
        if key in _used:
            raise ValueError("A task instance makes a second delivery: give each a name of its own (name=...).")
        _used.add(key)
        rate = self._settings.rate or target.rate_limit
        delivery = self._delivery = Delivery(
            folder=place.folder,
            rows=self._rows,
            fingerprint=hashlib.sha256("\0".join(self._source).encode()).hexdigest(),
            settings=self._settings,
            target=target,
            pacer=self._hook.pacer(rate),
            this=place.this,
            lost=place.lost,
            open_ledger=self._ledger_of(target, place),
            on_progress=place.progress,
            on_start=place.started,
            around=self._around,
        )
        if self._stopped:
            delivery.stop()
        try:
            return delivery.run()
        finally:
            self._push(delivery.report)
            tidy(time.time())

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent."""
        return self._settings.dry_run or self._hook.dry_run

    @property
    def report(self) -> DeliveryReport:
        """What became of the rows, so far."""
        if self._delivery is None:
            raise RuntimeError("the delivery was not run")
        return self._delivery.report

    def stop(self) -> None:
        """Stop soon; called from Airflow's signal handler."""
        self._stopped = True
        if self._delivery is not None:
            self._delivery.stop()

    def _ledger_of(self, target: Target, place: Place, *, keep_secret: bool = True) -> Callable[[], Ledger] | None:
        if self._ledger_conn_id is None and not (self._ledger_file or self._settings.needs_ledger):
            return None
        return lambda: open_ledger(
            self._ledger_conn_id,
            account=target.account,
            run=str(place.folder),
            source=place.source,
            timeout_s=target.timeout_s,
            keep_secret=keep_secret,
        )

    @cached_property
    def _place(self) -> Place:
        if self._context is not None:
            return place_of(self._context, self._name)
        return self._given_place or place_outside_a_task(self._name)

    def _push(self, report: DeliveryReport) -> None:
        if self._context is not None:
            key = REPORT_KEY if self._name is None else f"{REPORT_KEY}_{self._name}"
            self._context["ti"].xcom_push(key=key, value=report.as_dict())


def current_context() -> Context | None:
    """Find Airflow's context of the running task; None outside of one."""
    try:
        return get_current_context()
    except (AirflowException, RuntimeError):
        return None


def only_events(rows: Rows) -> Rows:
    """Give the rows on, as long as they are events.

    :raises ValueError: one is not; then ``call`` is needed.
    """
    for row in rows:
        if not isinstance(row, Event):
            raise ValueError("call= is needed where rows are dictionaries: identify, track, page or screen")
        yield row
