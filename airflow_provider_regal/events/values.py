"""Convert traits and properties from any Python value to JSON.

Regal fixes the type of each attribute at its first value, for the whole account, so types are decided only here. All
faults are collected with their places; messages never contain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from airflow_provider_regal.events.faults import Location
from airflow_provider_regal.events.options import USUAL, Reading
from airflow_provider_regal.events.python_values import LARGEST_EXACT, plain, sendable, whole
from airflow_provider_regal.events.times import read_time, write_time

_DEEPEST: Final = 32
# A body of 256 KB can't contain more; this stops lists that contain each other.
_MOST_VALUES: Final = 100_000


class _LeftOut:
    """Marks a value that is not sent: null, NaN, NaT, infinity."""


LEFT_OUT: Final = _LeftOut()


class JsonWriter:
    """Converts values to JSON and collects all their faults."""

    def __init__(self, reading: Reading = USUAL) -> None:
        self._timezone = reading.timezone
        self._null: _LeftOut | None = None if reading.send_nulls else LEFT_OUT
        self._open: set[int] = set()  # the objects and lists around the current value
        self._values_left = _MOST_VALUES
        self.faults: list[tuple[Location, str]] = []

    def members(self, values: Mapping[Any, Any], where: Location = ()) -> dict[str, Any]:
        """Convert the members of an object, without those left out."""
        written: dict[str, Any] = {}
        for key, value in values.items():
            if not isinstance(key, str) or not key:
                self._fault(where, "a key is not text, or is empty; names must be text")
                continue
            here = (*where, key)
            self._text(key, here)
            result = self.value(value, here)
            if result is not LEFT_OUT:
                written[key] = result
        return written

    def value(self, value: Any, where: Location) -> object:
        """Convert one value; return ``LEFT_OUT`` if it is not sent."""
        value = plain(value)
        if isinstance(value, str):
            return self._text(value, where)
        if value is None:
            return self._null
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._whole(value, where)
        if isinstance(value, float):
            return value if math.isfinite(value) else self._null
        if isinstance(value, Decimal):
            return self._decimal(value, where)
        if isinstance(value, (Mapping, list, tuple)):
            return self._nested(value, where)
        return self._other(value, where)

    def _nested(self, value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], where: Location) -> object:
        if id(value) in self._open:
            return self._fault(where, "contains itself; JSON cannot")
        if len(self._open) >= _DEEPEST:
            return self._fault(where, f"nested deeper than {_DEEPEST} levels; flatten it")
        if self._values_left < 0:
            return LEFT_OUT
        self._values_left -= len(value)
        if self._values_left < 0:
            return self._fault(where, f"the event holds more than {_MOST_VALUES:,} values; leave some out")
        self._open.add(id(value))
        if isinstance(value, Mapping):
            written: object = self.members(value, where)
        else:
            items = (self.value(item, (*where, position)) for position, item in enumerate(value))
            written = [None if item is LEFT_OUT else item for item in items]  # otherwise the others would change places
        self._open.discard(id(value))
        return written

    def _other(self, value: object, where: Location) -> object:
        if isinstance(value, datetime):
            return self._time(value, where)
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._fault(where, "bytes have no JSON form; decode them to text first")
        kind = type(value).__name__
        return self._fault(where, f"a {kind} has no JSON form; send text, a number, a boolean or a time")

    def _text(self, value: str, where: Location) -> object:
        try:
            return sendable(value)
        except ValueError as error:
            return self._fault(where, str(error))

    def _whole(self, value: int, where: Location) -> object:
        if abs(value) > LARGEST_EXACT:
            return self._fault(where, "a whole number beyond 2^53 would be rounded by JSON readers; send it as text")
        return int(value)

    def _decimal(self, value: Decimal, where: Location) -> object:
        if not value.is_finite():
            return self._null
        if not -LARGEST_EXACT <= value <= LARGEST_EXACT:  # abs() overflows at 1E+999999
            return self._fault(where, "a Decimal beyond 2^53 would be rounded by JSON readers; send it as text")
        return float(value) if (number := whole(value)) is None else number

    def _time(self, value: datetime, where: Location) -> object:
        try:
            return write_time(read_time(value, self._timezone))
        except ValueError as error:
            return self._fault(where, str(error))

    def _fault(self, where: Location, reason: str) -> _LeftOut:
        self.faults.append((where, reason))
        return LEFT_OUT
