"""Regal fixes the type of every attribute and property at its first value, and silently accepts later mismatches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_provider_regal.sandbox.processing.findings import Finding
from airflow_provider_regal.sandbox.processing.reading import Reading

PROPERTY_NAMES = 8_000
_KEEP_NAMES = 100_000
_KEEP_NUMBERS = 100


@dataclass
class Mismatch:
    """One name whose type has changed since its first value.

    :param event_name: the event a property belongs to; ``None`` for a contact attribute.
    """

    event_name: str | None
    name: str
    first: str
    now: str
    count: int = 0
    events: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As the side API shows it."""
        return {
            "where": "trait" if self.event_name is None else "property",
            "event_name": self.event_name,
            "name": self.name,
            "first": self.first,
            "now": self.now,
            "count": self.count,
            "events": list(self.events),
        }


class FirstWrites:
    """The fixed types of the account."""

    def __init__(self) -> None:
        self._types: dict[tuple[str | None, str], str] = {}
        self._mismatches: dict[tuple[str | None, str, str], Mismatch] = {}
        self.property_names = 0

    def check(self, reading: Reading, number: int) -> list[Finding]:
        """Compare the values of one body with the fixed types, and fix those of new names."""
        found = []
        for name, value in reading.attributes.items():
            found += self._check_one(None, name, value, number)
        if reading.name is not None:
            for name, value in reading.properties.items():
                found += self._check_one(reading.name, name, value, number)
        return found

    def _check_one(self, event_name: str | None, name: str, value: object, number: int) -> list[Finding]:
        now = _type_of(value)
        if now is None:
            return []
        first = self._types.get((event_name, name))
        if first is None:
            return self._fix(event_name, name, now)
        if first == now:
            return []
        key = (event_name, name, now)
        mismatch = self._mismatches.setdefault(key, Mismatch(event_name, name, first, now))
        mismatch.count += 1
        if len(mismatch.events) < _KEEP_NUMBERS:
            mismatch.events.append(number)
        return [Finding("type_changed", f"type changed: {name} was {first}, now {now}")]

    def _fix(self, event_name: str | None, name: str, now: str) -> list[Finding]:
        if len(self._types) >= _KEEP_NAMES:
            return []
        self._types[event_name, name] = now
        if event_name is None:
            return []
        self.property_names += 1
        if self.property_names <= PROPERTY_NAMES:
            return []
        return [Finding("too_many_property_names", f"property name {self.property_names:,}: {event_name}, {name}")]

    def to_json(self) -> list[dict[str, Any]]:
        """Every mismatch so far."""
        return [mismatch.to_json() for mismatch in self._mismatches.values()]


def _type_of(value: object) -> str | None:
    # null does not determine a type.
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if value is None:
        return None
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"
