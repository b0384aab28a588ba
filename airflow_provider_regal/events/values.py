"""Traits and properties: any Python value to JSON.

Regal freezes the type of each attribute with its first value, account-wide, so the types are decided here and
nowhere else. Every fault is collected with its path; values never enter a message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationInfo

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.times import read_time, write_time

# Beyond 2^53 a JSON reader that uses doubles rounds whole numbers without a word.
_LARGEST_EXACT: Final = 2**53
_DEEPEST: Final = 32


@dataclass(frozen=True, slots=True)
class Reading:
    """How values are read; the context of every validation.

    :param timezone: the zone of times that name none.
    :param send_nulls: send null for None, NaN and NaT instead of leaving them out.
    """

    timezone: tzinfo = UTC
    send_nulls: bool = False

    @classmethod
    def of(cls, info: ValidationInfo) -> Reading:
        """Return the reading a validation runs under."""
        return info.context if isinstance(info.context, Reading) else _USUAL


_USUAL: Final = Reading()


class _LeftOut:
    """Marks a value that is not sent: null, NaN, NaT, infinity."""


LEFT_OUT: Final = _LeftOut()


def plain(value: Any) -> Any:
    """Turn a numpy or pandas value into Python's own; their ways to say "nothing" become None.

    Neither library is imported: their values are known by the module of their type.
    """
    kind = type(value)
    if kind.__module__.partition(".")[0] not in ("numpy", "pandas"):
        return value
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__name__ == "datetime64":
        return value.astype("datetime64[us]").item()  # None for numpy's NaT
    for convert in ("to_pydatetime", "tolist"):
        if hasattr(value, convert):
            return getattr(value, convert)()
    return value


class JsonWriter:
    """Writes values as JSON, collecting the faults of all of them."""

    def __init__(self, reading: Reading = _USUAL) -> None:
        self._timezone = reading.timezone
        self._null: None | _LeftOut = None if reading.send_nulls else LEFT_OUT
        self.faults: list[Fault] = []

    def members(self, values: Mapping[object, object], path: str, depth: int = 0) -> dict[str, object]:
        """Write the members of an object; those left out are not in the result."""
        written: dict[str, object] = {}
        for key, value in values.items():
            if not isinstance(key, str) or not key:
                self._fault(path, "a key is not text, or is empty; names must be text")
                continue
            self._text(key, f"{path}: the name of a member")
            result = self.value(value, f"{path}.{key}", depth)
            if result is not LEFT_OUT:
                written[key] = result
        return written

    def value(self, value: object, path: str, depth: int = 0) -> object:
        """Write one value; ``LEFT_OUT`` if it is not sent."""
        if isinstance(value, str) and not isinstance(value, Enum):
            return self._text(value, path)
        value = plain(value)
        if value is None:
            return self._null
        if isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.value(value.value, path, depth)
        if isinstance(value, int):
            return self._whole(value, path)
        if isinstance(value, float):
            return value if math.isfinite(value) else self._null
        if isinstance(value, Decimal):
            return self._decimal(value, path)
        return self._structured(value, path, depth)

    def _structured(self, value: object, path: str, depth: int) -> object:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, datetime):
            return self._time(value, path)
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, Mapping) or isinstance(value, (list, tuple)):
            if depth >= _DEEPEST:
                return self._fault(path, f"nested deeper than {_DEEPEST} levels; flatten it")
            if isinstance(value, Mapping):
                return self.members(value, path, depth + 1)
            written = (self.value(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))
            return [item for item in written if item is not LEFT_OUT]
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._fault(path, "bytes have no JSON form; decode them to text first")
        kind = type(value).__name__
        return self._fault(path, f"a {kind} has no JSON form; send text, a number, a boolean or a time")

    def _text(self, value: str, path: str) -> object:
        try:
            value.encode()
        except UnicodeEncodeError:
            return self._fault(path, "the text is not valid Unicode (half of a surrogate pair)")
        return value

    def _whole(self, value: int, path: str) -> object:
        if abs(value) > _LARGEST_EXACT:
            return self._fault(path, "a whole number beyond 2^53 would be rounded by JSON readers; send it as text")
        return int(value)

    def _decimal(self, value: Decimal, path: str) -> object:
        if not value.is_finite():
            return self._null
        if value == value.to_integral_value() and value.as_tuple().exponent == 0:
            return self._whole(int(value), path)
        number = float(value)
        return number if math.isfinite(number) else self._fault(path, "the number is too large for JSON")

    def _time(self, value: datetime, path: str) -> object:
        try:
            return write_time(read_time(value, self._timezone))
        except ValueError as error:
            return self._fault(path, str(error))

    def _fault(self, path: str, reason: str) -> _LeftOut:
        self.faults.append(Fault(path, reason))
        return LEFT_OUT
