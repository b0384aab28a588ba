"""The base of all bulk operators: options, delivery, report.

::

    fields ─▶ Airflow renders templates ─▶ execute: open_rows ─▶ TaskDelivery ─▶ report in XCom
                                             on_kill ─▶ Stop
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_regal._compat import BaseOperator
from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings, read_flag
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.events.options import ColumnType, OnInvalid, OptOutScope, Target
from airflow_provider_regal.operators._failing import failing_for_good
from airflow_provider_regal.operators._link import LINKS

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.delivery import OpenSource, Rows
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.hooks._delivering import TaskDelivery


class RegalBulkOperator(BaseOperator):
    """Deliver many rows; the base of all bulk operators, and of those of your own.

    A subclass overrides :meth:`open_rows` and :meth:`source`; see *A source of your own* on the page *From Python to
    Regal*.

    :param call: what the rows are: ``identify``, ``track``, ``page`` or ``screen``.
    :param event: the name of the track events, if no column ``event`` holds it (templated).
    :param mapping: column -> ``"traits.x"``, ``"properties.x"``, ``"phones.label"``, ``"emails.label"``, a reserved
        name such as ``"sms_opt_in"``, a list of such names, or None to ignore it.
    :param values: text of decisions such as ``sms_opt_in`` -> True (yes), False (no) or None (unknown), such as
        ``{"Yes": True}``; extends the values that are recognized by default.
    :param regal_conn_id: connection of type ``regal`` (templated).
    :param guarantee: ``at_most_once`` never resends what may have arrived, ``at_least_once`` does; by default the
        former for track, page and screen, the latter for identify.
    :param restart: send everything again, regardless of what was sent before (templated).
    :param max_rejected: fail if more rows were rejected: whole number of rows, or share of the rows read.
    :param max_unknown: fail if more rows are unknown; by default the larger of 10 rows and 1 %.
    :param min_rows: fail if the source returns fewer rows; of these, only the opt-outs of contacts are sent.
    :param max_rows: fail if the source returns more rows; of these, only the opt-outs of contacts are sent.
    :param volume: fail if the number of rows is outside this range, relative to the median of the task's last finished
        runs, such as ``(0.5, 2.0)``; only the opt-outs of contacts are sent. Checked once there are five finished runs.
    :param max_refused: stop, keeping the remaining rows, when this share of the last 100 answers are refusals; None for
        no limit.
    :param rate: maximum requests per second; by default the task's share of the connection's ``rate_limit``, which all
        tasks of the account share.
    :param max_connections: maximum number of open connections.
    :param outage_patience: seconds or ``timedelta`` an outage may last before the task fails, to be retried.
    :param max_event_age: reject named events older than this; None for no limit.
    :param dry_run: map and validate everything, send nothing.
    :param plan: read, check and decide everything, send only opt-outs, and keep the rest for
        :class:`~airflow_provider_regal.operators.plan.RegalSendPlanOperator`, for example after an approval.
    :param limit: deliver only the first rows.
    :param types: column -> type to convert to; ``"json"`` parses text.
    :param timezone: zone of times without one.
    :param send_nulls: send null for empty values instead of omitting them.
    :param on_invalid_phone: ``reject`` a row with an invalid phone, or ``drop`` the phone and send the rest.
    :param on_invalid_email: ``reject`` a row with an invalid email, or ``drop`` the email and send the rest.
    :param on_shared: ``reject`` rows with different user ids that share a phone or email, which Regal would merge into
        one contact; by default they are sent and reported.
    :param column_names: ``lower_upper`` lower-cases names that are all upper case; ``keep`` does not.
    :param require_ip: withhold opt-ins without the person's IP address.
    :param max_consent_age: withhold opt-ins given longer ago.
    :param opt_out_scope: with ``person``, an opt-out closes all channels of that phone or email; with ``channel``, only
        its own.
    :param suppress_named_events: skip track, page and screen events to people who opted out of all channels on record.
    :param contract: reject rows that violate this contract: JSON Schemas of traits and events, as a dictionary or the
        absolute path or URI of a JSON file, which is read when the task runs.
    :param ledger_conn_id: connection of the ledger's database, PostgreSQL or MySQL/MariaDB; by default that of
        ``[regal] ledger_conn_id``, else an SQLite file in Airflow's home (templated).
    :param only_changed: for identify, skip contacts that have not changed since Regal last acknowledged them.
    :param key: the column or columns by which ``only_changed`` identifies a contact; by default the one that becomes
        the user id, else the phone, else the email.
    """

    template_fields: Sequence[str] = ("regal_conn_id", "event", "restart", "ledger_conn_id")
    ui_color = "#d9efe6"
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        call: str,
        event: str | None = None,
        mapping: Mapping[str, Target] | None = None,
        values: Mapping[Any, bool | None] | None = None,
        regal_conn_id: str = "regal_default",
        guarantee: Guarantee | None = None,
        restart: bool | str = False,
        max_rejected: float = 0,
        max_unknown: float | None = None,
        min_rows: int = 0,
        max_rows: int | None = None,
        volume: tuple[float, float] | None = None,
        max_refused: float | None = 0.2,
        rate: int | None = None,
        max_connections: int = 256,
        outage_patience: timedelta | float = 300.0,
        max_event_age: timedelta | None = timedelta(days=7),
        dry_run: bool = False,
        plan: bool = False,
        limit: int | None = None,
        types: Mapping[str, ColumnType] | None = None,
        timezone: str = "UTC",
        send_nulls: bool = False,
        on_invalid_phone: OnInvalid = "reject",
        on_invalid_email: OnInvalid = "reject",
        on_shared: Literal["report", "reject"] = "report",
        column_names: str = "lower_upper",
        require_ip: bool = True,
        max_consent_age: timedelta | None = None,
        opt_out_scope: OptOutScope = "channel",
        suppress_named_events: bool = False,
        contract: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        ledger_conn_id: str | None = None,
        only_changed: bool = False,
        key: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.call = call
        self.ledger_conn_id = ledger_conn_id
        self.event = event
        self.regal_conn_id = regal_conn_id
        self.restart = restart
        self._options: dict[str, Any] = {
            "mapping": mapping,
            "values": values,
            "guarantee": guarantee,
            "max_rejected": max_rejected,
            "max_unknown": max_unknown,
            "min_rows": min_rows,
            "max_rows": max_rows,
            "volume": volume,
            "max_refused": max_refused,
            "rate": rate,
            "max_connections": max_connections,
            "outage_patience": outage_patience,
            "max_event_age": max_event_age,
            "dry_run": dry_run,
            "plan": plan,
            "limit": limit,
            "types": types,
            "timezone": timezone,
            "send_nulls": send_nulls,
            "on_invalid_phone": on_invalid_phone,
            "on_invalid_email": on_invalid_email,
            "on_shared": on_shared,
            "column_names": column_names,
            "require_ip": require_ip,
            "max_consent_age": max_consent_age,
            "opt_out_scope": opt_out_scope,
            "suppress_named_events": suppress_named_events,
            "contract": contract,
            "only_changed": only_changed,
            "key": key,
        }
        DeliverySettings.of(call=call, event=event, **self._options)  # report invalid options immediately
        self._sync: SyncSettings | None = None
        self._report: DeliveryReport | None = None
        self._stop = Stop()

    def open_rows(self, context: Context) -> Rows:
        """Return the rows: dictionaries, events, or results of ``row_of`` and ``bad_row``; best one at a time.

        All of them are read before the first is sent. Only a try without rows on record calls it. Errors are shown
        without their text, which may contain values of rows: a ValueError fails the task, other errors are retried.
        """
        raise NotImplementedError

    def source(self) -> tuple[str, ...]:
        """Identify the source, without its rows: if it changes between tries, rows can't be matched.

        Include everything that determines which rows it returns, with templates rendered, but no secret.
        """
        raise NotImplementedError

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver the rows; return the report."""
        self._stop = Stop()  # Airflow may run the same object again
        with failing_for_good():
            delivery = self.delivery(context, self.settings())
            try:
                return delivery.run().as_dict()
            finally:
                self._report = delivery.report

    def settings(self) -> DeliverySettings:
        """Return the delivery settings; call after templates are rendered.

        :raises ValueError: an option is invalid.
        """
        return DeliverySettings.of(
            call=self.call,
            event=self.event,
            restart=read_flag("restart", self.restart),
            sync=self._sync,
            **self._options,
        )

    def opener(self, context: Context, settings: DeliverySettings) -> OpenSource:
        """Return a function that opens the source for a delivery."""
        return lambda held: self.open_rows(context)

    def delivery(self, context: Context, settings: DeliverySettings) -> TaskDelivery:
        """Prepare the delivery of the rows."""
        from airflow_provider_regal.hooks._delivering import TaskDelivery
        from airflow_provider_regal.hooks.regal import RegalHook

        return TaskDelivery(
            RegalHook(self.regal_conn_id),
            context=context,
            settings=settings,
            rows=self.opener(context, settings),
            source=self.source(),
            ledger_conn_id=self.ledger_conn_id,
            stop=self._stop,
        )

    def lineage_inputs(self) -> list[Any]:
        """Return the sources of the rows as OpenLineage datasets."""
        return []

    def get_openlineage_facets_on_start(self) -> Any:
        """Return inputs and outputs for Airflow's OpenLineage provider."""
        from airflow_provider_regal.assets._lineage import lineage_of
        from airflow_provider_regal.assets.regal import changed_by
        from airflow_provider_regal.hooks.regal import RegalHook

        is_segment = getattr(self, "format", None) == "segment"
        account = RegalHook(self.regal_conn_id).target.account
        outputs = changed_by(self.settings(), account, is_segment=is_segment)
        return lineage_of(self.lineage_inputs(), outputs, self._report)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return inputs and outputs, with the delivery's counts."""
        return self.get_openlineage_facets_on_start()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return inputs and outputs, with the delivery's counts."""
        return self.get_openlineage_facets_on_start()

    def on_kill(self) -> None:
        """Stop; unsettled rows are kept."""
        self._stop.request()
