"""Prepare a row: map it, validate it, judge its consent - or say why it can never be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from airflow_provider_regal.client.exchange import Guarantee
from airflow_provider_regal.delivery.settings import NAMED_CALLS, DeliverySettings
from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import Event, Payload, to_payload
from airflow_provider_regal.events.mapping import CALLS, RowMapper

# Marks a row of the snapshot that was an event already; its value is the call.
EVENT_MARK: Final = "$event"


@dataclass(slots=True)
class Ready:
    """A row that can be sent.

    :param identifiers: what it shares with other rows of the same person.
    :param tries: requests made so far.
    :param doubtful: one of them may have arrived.
    """

    position: int
    payload: Payload
    guarantee: Guarantee
    identifiers: tuple[str, ...]
    has_time: bool = True
    tries: int = 0
    doubtful: bool = False
    first_time: datetime | None = None
    body: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.body = self.payload.encoded


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that can never be sent."""

    position: int
    call: str
    faults: tuple[Fault, ...]
    row: Mapping[str, Any]


class Preparer:
    """Prepares the rows of one delivery."""

    def __init__(self, settings: DeliverySettings, *, event_source: str) -> None:
        self._settings = settings
        self._event_source = event_source
        self._mapper = RowMapper(settings.mapping, settings.reading)

    def prepare(self, position: int, row: Mapping[str, Any], now: datetime) -> Ready | Refused:
        """Prepare one row.

        :param now: the current time (aware).
        """
        call = self._settings.mapping.call
        try:
            event = self._event(row)
            call = event.call
            self._check_age(event, now)
            payload = to_payload(event, now=now, policy=self._settings.consent, event_source=self._event_source)
            return Ready(
                position, payload, self._settings.guarantee_of(call), identifiers_of(event), event.timestamp is not None
            )
        except InvalidEventError as error:
            return Refused(position, call, error.faults, row)

    def _event(self, row: Mapping[str, Any]) -> Event:
        if EVENT_MARK in row:
            written = {name: value for name, value in row.items() if name != EVENT_MARK}
            return CALLS[row[EVENT_MARK]].read(written, self._settings.reading)
        return self._mapper.event(row)

    def _check_age(self, event: Event, now: datetime) -> None:
        oldest = self._settings.max_event_age
        if oldest is None or event.timestamp is None or event.call not in NAMED_CALLS:
            return
        if now - event.timestamp > oldest:
            reason = f"the event is older than max_event_age ({oldest}); it could start a live journey"
            raise InvalidEventError(event.call, [Fault("timestamp", reason)])


def identifiers_of(event: Event) -> tuple[str, ...]:
    """Name the person an event is about, by everything it could be recognised by."""
    user = () if event.user_id is None else (f"user:{event.user_id}",)
    return (*user, *(phone.number for phone in event.phones), *(email.address for email in event.emails))


def as_row(given: Mapping[str, Any] | Event) -> Mapping[str, Any]:
    """Bring an event into the shape of a row, so that it can be kept with the others."""
    return {EVENT_MARK: given.call, **given.model_dump()} if isinstance(given, Event) else given
