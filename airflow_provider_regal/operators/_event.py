"""The base of the four event operators: render, hide the payload, deliver one event, report the result to Airflow.

::

    written fields ─▶ Airflow renders templates ─▶ payload fields hidden ─▶ execute: a delivery of one row ─▶ XCom
                                                     (keys only are stored)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_regal import events
from airflow_provider_regal._compat import BaseOperator, mask_secret
from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.delivery.settings import DeliverySettings, read_flag
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import (
    CheckRegalError,
    Fault,
    InvalidEventError,
    RefusedEventError,
    TooManyFailedRowsError,
)
from airflow_provider_regal.events import names
from airflow_provider_regal.events.options import OptOutScope
from airflow_provider_regal.operators._failing import failing_for_good
from airflow_provider_regal.operators._link import LINKS
from airflow_provider_regal.operators._rendering import render_as_text

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.hooks._delivering import TaskDelivery
    from airflow_provider_regal.sources.marks import Marked


_TEXT_FIELDS: Final = frozenset(
    {
        "regal_conn_id", "ledger_conn_id", "user_id", "phone", "email", "sub_brand", "event_source", "timestamp",
        "event", "name", "category",
    }
)  # fmt: skip
_TEXT_KEYS: Final = frozenset(
    {
        *("phone", "email", "user_id", "number", "channel", "ip", "text", "source", "timestamp", names.LABEL),
        *names.EVENT_ALIASES, *names.EVENT_ALIASES.values(), *names.TEXT_TRAITS, *names.TEXT_ADDRESS,
        *names.ADDRESS_ALIASES,
    }
    - {names.SEGMENT_OPT_IN, "opt_in"}
)  # fmt: skip


class RegalEventOperator(BaseOperator):
    """Send one event to Regal; the base of the four event operators.

    :param regal_conn_id: connection of type ``regal`` (templated).
    :param user_id: your own id of the person (templated).
    :param phone: the person's phone, any spelling, region US (templated).
    :param email: the person's email (templated).
    :param phones: several phones, ``{number: {"label", "isPrimary", "smsOptIn", "voiceOptIn"}}`` (templated).
    :param emails: several emails, ``{address: {"label", "isPrimary", "emailOptIn"}}`` (templated).
    :param traits: attributes of the contact, in Regal's format or Segment's (templated).
    :param opt_in: consent, ``[{"channel", "subscribed", "timestamp", "ip", "text", "source"}]``; belongs to the phone
        or email of this event (templated).
    :param sub_brand: the sub-brand, if the account uses them (templated).
    :param timestamp: when it happened: ISO 8601, epoch seconds, datetime (templated).
    :param event_source: where the event comes from; the connection's by default (templated).
    :param guarantee: ``at_most_once`` never resends what may have arrived, ``at_least_once`` does; by default the
        latter for identify, the former for the others.
    :param require_ip: withhold opt-ins without the person's IP address; False for consent on paper or by phone.
    :param max_consent_age: withhold opt-ins given longer ago; None for no limit.
    :param opt_out_scope: with ``person``, an opt-out closes all channels of that phone or email; with ``channel``, only
        its own.
    :param suppress_named_events: for track, page and screen, skip the event if the person opted out of all channels on
        record.
    :param contract: reject the event if it violates this contract: JSON Schemas of traits and events, as a dictionary
        or the absolute path or URI of a JSON file, which is read when the task runs.
    :param timezone: zone of times without one.
    :param send_nulls: send null for empty values instead of omitting them.
    :param outage_patience: seconds or ``timedelta`` for which the event is retried while Regal is unavailable; then the
        task fails and Airflow's own retries take over.
    :param restart: send the event even if an earlier try sent it, or may have (templated).
    :param ledger_conn_id: connection of the ledger's database; by default that of ``[regal] ledger_conn_id``, else an
        SQLite file in Airflow's home (templated).
    """

    call: ClassVar[str]

    # Personal data: Airflow stores only the keys.
    payload_fields: ClassVar[tuple[str, ...]] = (
        "user_id",
        "phone",
        "email",
        "phones",
        "emails",
        "traits",
        "opt_in",
    )
    open_fields: ClassVar[tuple[str, ...]] = ("sub_brand", "timestamp", "event_source")
    template_fields: Sequence[str] = ("regal_conn_id", "restart", "ledger_conn_id", *payload_fields, *open_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    ui_color = "#e6f4ef"
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        regal_conn_id: str = "regal_default",
        user_id: Any = None,
        phone: Any = None,
        email: str | None = None,
        phones: Mapping[str, Any] | Sequence[Any] | None = None,
        emails: Mapping[str, Any] | Sequence[Any] | None = None,
        traits: Mapping[str, Any] | None = None,
        opt_in: Sequence[Mapping[str, Any]] | None = None,
        sub_brand: str | None = None,
        timestamp: str | float | datetime | None = None,
        event_source: str | None = None,
        guarantee: Guarantee | None = None,
        require_ip: bool = True,
        max_consent_age: timedelta | None = None,
        opt_out_scope: OptOutScope = "channel",
        suppress_named_events: bool = False,
        contract: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        timezone: str = "UTC",
        send_nulls: bool = False,
        outage_patience: timedelta | float = 300.0,
        restart: bool | str = False,
        ledger_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.regal_conn_id = regal_conn_id
        self.user_id = user_id
        self.phone = phone
        self.email = email
        self.phones = phones
        self.emails = emails
        self.traits = traits
        self.opt_in = opt_in
        self.sub_brand = sub_brand
        self.timestamp = timestamp
        self.event_source = event_source
        self.guarantee = guarantee
        self.require_ip = require_ip
        self.max_consent_age = max_consent_age
        self.opt_out_scope = opt_out_scope
        self.suppress_named_events = suppress_named_events
        self.contract = contract
        self.timezone = timezone
        self.send_nulls = send_nulls
        self.outage_patience = outage_patience
        self.restart = restart
        self.ledger_conn_id = ledger_conn_id
        self._settings(restart=False)  # report invalid options when the DAG is parsed
        self._written: dict[str, Any] | None = None
        self._as_text = False
        self._stop = Stop()

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        # Both plain and mapped tasks get here, before Airflow stores the rendered fields.
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        for name in template_fields:
            self._as_text = name in _TEXT_FIELDS
            super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
        self._as_text = False
        self._hide_payload()

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render templates; string fields stay strings: see :func:`render_as_text`."""
        if type(content) is not dict:
            return super().render_template(content, context, jinja_env, seen_oids)
        rendered, outer = {}, self._as_text
        for key, value in content.items():
            self._as_text = outer or (isinstance(value, str) and key in _TEXT_KEYS)
            rendered[key] = self.render_template(value, context, jinja_env, seen_oids)
        self._as_text = outer
        return rendered

    def _render(self, template: jinja2.Template, context: Context, dag: Any = None) -> Any:
        if not self._as_text:
            return super()._render(template, context, dag)
        return render_as_text(template, context)

    def _hide_payload(self) -> dict[str, Any]:
        """Keep the payload privately, and leave only its keys in the fields that Airflow stores."""
        from airflow_provider_regal.events.privacy import contact_values, keys_only

        if self._written is None:
            written = {name: getattr(self, name) for name in (*self.payload_fields, *self.open_fields)}
            self._written = {name: value for name, value in written.items() if value is not None}
            _mask(contact_values(self._written))
            for name in self.payload_fields:
                setattr(self, name, keys_only(getattr(self, name)))
        return self._written

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the event, as a delivery of one row; return status, seconds and counts."""
        from airflow_provider_regal.events.models import EVENTS
        from airflow_provider_regal.hooks._delivering import TaskDelivery, read_file
        from airflow_provider_regal.hooks.regal import RegalHook

        self._stop = Stop()  # Airflow may run the same object again
        written = self._hide_payload()
        with failing_for_good(self.guarantee):
            settings = self.settings()
            hook = RegalHook(
                self.regal_conn_id,
                outage_patience_s=settings.outage_patience_s,
                consent=settings.consent,
                ledger_conn_id=self.ledger_conn_id,
            )
            event = hook.read(EVENTS[self.call], written, settings.reading)
            _mask({phone.number for phone in event.phones} | {email.address for email in event.emails})
            payload = events.to_payload(
                event, now=datetime.now(UTC), policy=settings.consent, event_source=hook.target.event_source
            )
            if settings.contract is not None:
                settings.contract.load(read_file, call=event.call)
                hook.check(event, payload, settings.contract)
            self._say_what_is_left_out(payload)
            delivery = TaskDelivery(
                hook,
                context=context if "ti" in context else None,
                settings=settings,
                rows=lambda held: [event],
                source=("event", self.regal_conn_id, event.call),
                ledger_conn_id=self.ledger_conn_id,
                stop=self._stop,
            )
            return self._outcome(event.call, self._deliver(delivery))

    def on_kill(self) -> None:
        """Stop; an event that was not sent is kept."""
        self._stop.request()

    def open_rows(self, context: Context) -> list[Marked]:
        """Return the event as a row, not yet validated."""
        from airflow_provider_regal.sources.marks import EVENT_MARK, ROW_MARK, Marked

        return [Marked({EVENT_MARK: self.call, ROW_MARK: self._hide_payload()})]

    def settings(self) -> DeliverySettings:
        """Return the delivery settings; call after templates are rendered.

        :raises ValueError: an option is invalid.
        """
        return self._settings(restart=read_flag("restart", self.restart))

    def _settings(self, *, restart: bool) -> DeliverySettings:
        return DeliverySettings.of(
            call=self.call,
            guarantee=self.guarantee,
            max_unknown=0,
            max_event_age=None,
            timezone=self.timezone,
            send_nulls=self.send_nulls,
            require_ip=self.require_ip,
            max_consent_age=self.max_consent_age,
            opt_out_scope=self.opt_out_scope,
            suppress_named_events=self.suppress_named_events,
            contract=self.contract,
            outage_patience=self.outage_patience,
            restart=restart,
        )

    def _say_what_is_left_out(self, payload: events.Payload) -> None:
        size = len(payload.encoded)  # raises if the event is too large, before anything is stored
        for withheld in payload.withheld:
            self.log.warning("Opt-in withheld - %s", withheld)
        for note in payload.notes:
            self.log.warning("Note: %s", note)
        self.log.info("This %s event is valid (%d bytes)", payload.call, size)

    def _deliver(self, delivery: TaskDelivery) -> DeliveryReport:
        try:
            return delivery.run()
        except TooManyFailedRowsError as error:
            if error.report is None:
                raise
            report: DeliveryReport = error.report  # one event has one outcome, with its own message
            return report

    def _outcome(self, call: str, report: DeliveryReport) -> dict[str, Any]:
        reason = next(iter(report.reasons), "")
        if report.rejected and not reason.startswith("rejected, "):
            field, _, why = reason.partition(": ")
            raise InvalidEventError(call, [Fault(field, why)])
        if report.rejected:
            raise RefusedEventError(
                f"Regal refused this {call} event for good ({reason}). Fix the event and clear the task. "
                f"What Regal said: airflow regal outcomes {report.delivery}"
            )
        if report.unknown:
            raise CheckRegalError(
                f"It can't be known whether Regal received this {call} event ({reason}). Look for it in Regal before "
                "you send it again with restart=True. guarantee='at_least_once' would repeat it, and may reach a "
                "person twice."
            )
        status = "acknowledged" if report.acknowledged else report.status
        if status == "finished":
            status = "skipped"
            self.log.info("This %s event was skipped: %s", call, ", ".join(report.skips))
        requests = "1 request" if report.requests == 1 else f"{report.requests} requests"
        self.log.info("%s: %s after %.3f s, %s", call, status, report.seconds, requests)
        return {
            "call": call,
            "status": status,
            "seconds": round(report.seconds, 3),
            "tries": report.requests,
            "opt_ins_withheld": report.opt_ins_withheld,
        }


def _mask(values: Collection[str]) -> None:
    """Mask these in this task's logs. A second layer of protection: we don't log them ourselves."""
    for value in values:
        mask_secret(value)
