"""Points in time: read from what warehouses and people write, written in the one form Regal gets."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal

# Above this an epoch number is milliseconds: 1e11 seconds would be the year 5138.
_MILLISECONDS_ABOVE = 1e11
_EPOCH_TEXT = re.compile(r"-?\d{9,}(\.\d+)?")

READABLE_TIMES = "ISO 8601 (2026-03-02T14:05:09Z), 'YYYY-MM-DD HH:MM:SS +00:00' or epoch seconds"


def read_time(value: object, timezone: tzinfo = UTC) -> datetime:
    """Read a point in time; a naive one is taken to be in ``timezone``.

    :param value: datetime, date, ISO 8601 text, or epoch as number or text (seconds; milliseconds above 1e11).
    :returns: the time in UTC.
    :raises ValueError: it is none of these; the message does not hold the value.
    """
    if isinstance(value, datetime):
        return _in_utc(value, timezone)
    if isinstance(value, date):
        return _in_utc(datetime(value.year, value.month, value.day), timezone)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _from_epoch(float(value))
    if isinstance(value, str):
        text = value.strip()
        if _EPOCH_TEXT.fullmatch(text):
            return _from_epoch(float(text))
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"not a readable time; write {READABLE_TIMES}") from None
        return _in_utc(parsed, timezone)
    raise ValueError(f"a time cannot be a {type(value).__name__}; write {READABLE_TIMES}")


def write_time(value: datetime) -> str:
    """Write a time as Regal gets it: UTC, ``YYYY-MM-DD HH:MM:SS +00:00``, fractions of a second cut off."""
    return value.astimezone(UTC).isoformat(" ", "seconds").replace("+00:00", " +00:00")


def _in_utc(value: datetime, timezone: tzinfo) -> datetime:
    if value != value:  # pandas' NaT is a datetime that equals nothing
        raise ValueError(f"not a time (NaT); write {READABLE_TIMES}, or leave it out")
    aware = value if value.tzinfo else value.replace(tzinfo=timezone)
    try:
        return aware.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from None


def _from_epoch(seconds: float) -> datetime:
    if abs(seconds) > _MILLISECONDS_ABOVE:
        seconds /= 1000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise ValueError("the epoch number lies outside the years 1 to 9999") from None
