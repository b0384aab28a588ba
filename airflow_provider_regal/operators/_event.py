"""What the four event operators share: render, hide, send one event, say in Airflow's terms how it went.

::

    written fields ─▶ Airflow renders templates ─▶ payload fields hidden ─▶ execute: hook.send ─▶ receipt in XCom
                                                     (keys only are stored)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_regal._compat import BaseOperator, mask_secret
from airflow_provider_regal.client.exchange import GUARANTEES, Guarantee
from airflow_provider_regal.events import ConsentPolicy, Event, Reading
from airflow_provider_regal.events.privacy import contact_values, keys_only
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators._failing import failing_for_good

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_regal._compat import Context


class RegalEventOperator(BaseOperator):
    """Send one event to Regal; the base of the four event operators.

    :param regal_conn_id: connection of type ``regal`` (templated).
    :param user_id: your own id of the person (templated).
    :param phone: the person's phone, any spelling, region US (templated).
    :param email: the person's email (templated).
    :param phones: several phones, ``{number: {"label", "isPrimary", "smsOptIn", "voiceOptIn"}}`` (templated).
    :param emails: several emails, ``{address: {"label", "isPrimary", "emailOptIn"}}`` (templated).
    :param traits: attributes of the contact, in Regal's form or Segment's (templated).
    :param opt_in: consent, ``[{"channel", "subscribed", "timestamp", "ip", "text", "source"}]``; belongs to the
        phone or email of this event (templated).
    :param sub_brand: where the account uses sub-brands (templated).
    :param timestamp: when it happened: ISO 8601, epoch seconds, datetime (templated).
    :param event_source: where the event comes from; the connection's by default (templated).
    :param guarantee: ``at_most_once`` never sends again what may have arrived, ``at_least_once`` does.
    :param require_ip: withhold opt-ins without the person's IP address; False for consent on paper or by phone.
    :param max_consent_age: withhold opt-ins given longer ago; None for no limit.
    :param timezone: zone of times that name none.
    :param send_nulls: send null for empty values instead of leaving them out.
    :param outage_patience_s: seconds for which the event is repeated while Regal cannot take it; then the task
        fails and Airflow's own retries take over.
    """

    event_class: ClassVar[type[Event]]
    default_guarantee: ClassVar[Guarantee] = "at_most_once"

    # Hold personal data: Airflow stores their keys only.
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
    template_fields: Sequence[str] = ("regal_conn_id", *payload_fields, *open_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    ui_color = "#e6f4ef"

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
        timezone: str = "UTC",
        send_nulls: bool = False,
        outage_patience_s: float = 60.0,
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
        self.guarantee = _checked_guarantee(guarantee or self.default_guarantee)
        self.require_ip = require_ip
        self.max_consent_age = max_consent_age
        self.timezone = _checked_zone(timezone)
        self.send_nulls = send_nulls
        self.outage_patience_s = outage_patience_s
        self._written: dict[str, Any] | None = None

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        # The one place both a plain and a mapped task pass before Airflow stores what was rendered.
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self._hide_payload()

    def _hide_payload(self) -> dict[str, Any]:
        """Keep what was written for ourselves and leave its keys in the fields that Airflow stores."""
        if self._written is None:
            written = {name: getattr(self, name) for name in (*self.payload_fields, *self.open_fields)}
            self._written = {name: value for name, value in written.items() if value is not None}
            _mask(contact_values(self._written))
            for name in self.payload_fields:
                setattr(self, name, keys_only(getattr(self, name)))
        return self._written

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the event; return status, seconds and counts."""
        written = self._hide_payload()
        reading = Reading(timezone=ZoneInfo(self.timezone), send_nulls=self.send_nulls)
        consent = ConsentPolicy(require_ip=self.require_ip, max_consent_age=self.max_consent_age)
        with failing_for_good(self.guarantee):
            event = self.event_class.read(written, reading)
            _mask({phone.number for phone in event.phones} | {email.address for email in event.emails})
            hook = RegalHook(
                self.regal_conn_id, outage_patience_s=self.outage_patience_s, consent=consent, reading=reading
            )
            return hook.send(event, guarantee=self.guarantee).as_dict()


def _mask(values: Collection[str]) -> None:
    """Let Airflow mask these in this task's logs: the second layer, since nothing of ours writes them."""
    for value in values:
        mask_secret(value)


def _checked_guarantee(guarantee: Guarantee) -> Guarantee:
    if guarantee not in GUARANTEES:
        raise ValueError(f"guarantee must be one of {', '.join(GUARANTEES)}, not {guarantee!r}")
    return guarantee


def _checked_zone(timezone: str) -> str:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"timezone must be a name such as UTC or America/New_York, not {timezone!r}") from None
    return timezone
