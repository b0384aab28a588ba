"""Convert usual rows directly from columns to payload: no consent, one phone and email, nothing nested.

The full path (``mapping``, ``reading``, ``models``, ``payload``) takes 100 us a row, this one 12: it creates neither a
draft nor a model. It makes no decisions: if a row is unusual, or anything in it is wrong, the full path takes over.
Both produce the same bytes, which ``tests/events/rows/test_fast_path.py`` checks with hostile rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from airflow_provider_regal.events import names
from airflow_provider_regal.events.identifiers import read_email, read_message_id, read_phone, read_user_id
from airflow_provider_regal.events.models import EVENTS, event_name
from airflow_provider_regal.events.options import Reading, RowMapping
from airflow_provider_regal.events.payload import Payload, state_note
from airflow_provider_regal.events.python_values import LARGEST_EXACT, is_missing, sendable
from airflow_provider_regal.events.rows.coercion import coerce
from airflow_provider_regal.events.rows.columns import Path, Plan
from airflow_provider_regal.events.times import read_time, write_time
from airflow_provider_regal.events.values import LEFT_OUT, JsonWriter

_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "user_id": read_user_id,
    "phone": read_phone,
    "email": read_email,
    "message_id": read_message_id,
}
_FIELDS: Final = frozenset({*_READERS, "timestamp", "event"})
# Traits that are more than a value.
_NOT_USUAL: Final = frozenset(
    {names.PHONES, names.EMAILS, "phone", "email", names.SEGMENT_OPT_IN, "opt_in", names.ADDRESS, *names.LOOSE_OPT_INS}
)
_TEXTS: Final = frozenset({*names.TEXT_TRAITS, *names.TEXT_ADDRESS})


class NotUsualError(ValueError):
    """The row needs the full path; this does not mean it is wrong."""


@dataclass(slots=True)
class QuickEvent:
    """The result for a row.

    :param identifiers: of the person, by which deliveries keep rows in order.
    """

    payload: Payload
    identifiers: tuple[str, ...]
    timestamp: datetime | None
    user_id: str | None
    message_id: str | None


class QuickRows:
    """Reads the usual rows of one set of columns.

    :param plan: of these columns, suitable for :func:`quick_rows`.
    """

    def __init__(self, plan: Plan, how: RowMapping, reading: Reading, *, event_source: str) -> None:
        self._call, self._event, self._event_source = how.call, how.event, event_source
        self._promotes = EVENTS[how.call].promotes
        self._reading = reading
        # A column that goes to several places is converted once.
        self._typed = [*{column: kind for column, _, kind in plan.steps if kind is not None}.items()]
        readers = {**_READERS, "timestamp": self._read_time}
        columns = {path[0]: column for column, path, _ in plan.steps if len(path) == 1}
        self._event_column = columns.pop("event", None)
        self._fields = [(name, column, readers[name]) for name, column in columns.items()]
        # In column order, because the order of the bytes follows it.
        self._members = [
            (column, names.PROPERTIES, path[1], False) if path[0] == names.PROPERTIES
            else (column, names.TRAITS if len(path) == 2 else names.ADDRESS, path[-1], path[-1] in _TEXTS)
            for column, path, _ in plan.steps if len(path) > 1
        ]  # fmt: skip
        self._page = getattr(EVENTS[how.call], "regal_name", None)

    def read(self, row: Mapping[str, Any]) -> QuickEvent:
        """Read one row.

        :raises ValueError: it needs the full path.
        """
        if self._typed:
            row = dict(row)
            for column, kind in self._typed:
                row[column] = coerce(row[column], kind, self._reading.timezone)
        found = {name: read(row[column]) for name, column, read in self._fields if not is_missing(row[column])}
        traits, properties = self._read_members(row)
        identifiers, body = [], dict[str, Any]()
        if (user_id := found.get("user_id")) is not None:
            identifiers.append(f"user:{user_id}")
            body[names.USER_ID] = user_id
        for member, field in ((names.PHONES, "phone"), (names.EMAILS, "email")):
            if (address := found.get(field)) is not None:
                identifiers.append(address)
                traits[member] = {address: {names.IS_PRIMARY: True} if self._promotes else {}}
        if not identifiers:
            raise NotUsualError
        if traits:
            body[names.TRAITS] = traits
        if self._call != "identify":
            body[names.NAME] = self._page or self._event or event_name(self._event_of(row))
            if properties:
                body[names.PROPERTIES] = properties
        if (timestamp := found.get("timestamp")) is not None:
            body[names.ORIGINAL_TIMESTAMP] = write_time(timestamp)
        if self._event_source:
            body[names.EVENT_SOURCE] = self._event_source
        payload = Payload(self._call, body, notes=tuple(state_note(traits)))
        payload.encoded  # noqa: B018 - raises where the long way names what cannot be sent
        return QuickEvent(payload, tuple(identifiers), timestamp, user_id, found.get("message_id"))

    def _read_time(self, value: Any) -> datetime:
        return read_time(value, self._reading.timezone)

    def _event_of(self, row: Mapping[str, Any]) -> str:
        value = None if self._event_column is None else row[self._event_column]
        if type(value) is not str:
            raise NotUsualError
        return value

    def _read_members(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        traits, properties, send_nulls = dict[str, Any](), dict[str, Any](), self._reading.send_nulls
        writer: JsonWriter | None = None
        for column, where, name, is_text in self._members:
            if where == names.TRAITS:
                members = traits
            else:
                members = properties if where == names.PROPERTIES else traits.setdefault(names.ADDRESS, {})
            value = row[column]
            kind = type(value)
            if kind is str or kind is bool:
                members[name] = value
            elif value is None:
                if send_nulls and not is_text:
                    members[name] = None
                continue
            elif (kind is int and -LARGEST_EXACT <= value <= LARGEST_EXACT) or (kind is float and math.isfinite(value)):
                members[name] = value
            else:
                writer = writer or JsonWriter(self._reading)
                written = writer.value(value, ())
                if written is not LEFT_OUT:
                    members[name] = value = written
            if is_text and type(value) is not str:
                raise NotUsualError
        if writer is not None and writer.faults:
            raise NotUsualError
        return traits, properties


def quick_rows(plan: Plan, how: RowMapping, reading: Reading, *, event_source: str) -> QuickRows | None:
    """Return a reader for rows with these columns; None if no such row is usual."""
    if plan.faults or plan.may_carry_consent or not all(_is_usual(path, how.call) for _, path, _ in plan.steps):
        return None
    try:  # what is wrong in every row
        for _, path, _ in plan.steps:
            sendable(path[-1])
        if how.event is not None:
            event_name(how.event)
    except ValueError:
        return None
    return QuickRows(plan, how, reading, event_source=event_source)


def _is_usual(path: Path, call: str) -> bool:
    if not path[-1]:
        return False
    if len(path) == 1:
        return path[0] in _FIELDS and (path[0] != "event" or call == "track")
    if len(path) == 2:
        return path[0] == names.PROPERTIES or (path[0] == names.TRAITS and path[1] not in _NOT_USUAL)
    return path[:2] == (names.TRAITS, names.ADDRESS) and len(path) == 3 and path[2] not in names.ADDRESS_ALIASES
