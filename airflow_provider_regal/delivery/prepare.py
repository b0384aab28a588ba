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
# Marks a row that has a column of such a name itself; its value is the row.
_ROW_MARK: Final = "$row"


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
            call = row[EVENT_MARK]
            if call in NAMED_CALLS and self._settings.mapping.call not in NAMED_CALLS:
                # It would be repeated as contacts are.
                raise InvalidEventError(call, [Fault("the event", f"is a {call}, in a delivery of contacts")])
            written = {name: value for name, value in row.items() if name != EVENT_MARK}
            return CALLS[call].read(written, self._settings.reading)
        return self._mapper.event(row.get(_ROW_MARK, row))

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


def as_row(given: Any) -> Mapping[str, Any]:
    """Bring what a source gives into the shape of a row, so that all can be kept in one way.

    :param given: a dictionary, a row that knows its columns (SQLAlchemy, sqlite3, a named tuple), or an event.
    :raises ValueError: it is none of these.
    """
    if isinstance(given, Event):
        return {EVENT_MARK: given.call, **given.model_dump()}
    if not isinstance(given, Mapping):
        given = _named(given)
    return {_ROW_MARK: given} if EVENT_MARK in given or _ROW_MARK in given else given


def _named(given: Any) -> dict[str, Any]:
    if callable(as_dict := getattr(given, "_asdict", None)):
        return dict(as_dict())
    if callable(getattr(given, "keys", None)):
        return {name: given[name] for name in given.keys()}  # noqa: SIM118 - it is no mapping
    raise ValueError(f"A row must be a dictionary of columns, or an event; this one is a {type(given).__name__}.")
