"""Points in time: read from what warehouses and people write, written in the one form Regal gets."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal

from airflow_provider_regal.events.python_values import plain

# Above this an epoch number is milliseconds: 1e11 seconds would be the year 5138.
_MILLISECONDS_ABOVE = 1e11
_EPOCH_TEXT = re.compile(r"-?\d{9,}(\.\d+)?")
_SPACE_BEFORE_OFFSET = re.compile(r" (?=[+-]\d\d:?\d\d$)")

READABLE_TIMES = "ISO 8601 (2026-03-02T14:05:09Z), 'YYYY-MM-DD HH:MM:SS +00:00' or epoch seconds"
_NO_EPOCH = "the epoch number lies outside the years 1 to 9999"


def read_time(value: object, timezone: tzinfo = UTC, *, of_day: time = time.min, latest: bool = False) -> datetime:
    """Read a point in time; a naive one is taken to be in ``timezone``.

    :param value: datetime, date, ISO 8601 text, or epoch as number or text (seconds; milliseconds above 1e11);
        numpy's and pandas' times too.
    :param of_day: what a date alone stands for.
    :param latest: of a time without zone in the hour that a clock shows twice, take the later one.
    :returns: the time in UTC.
    :raises ValueError: it is none of these; the message does not hold the value.
    """
    value = plain(value)
    if isinstance(value, datetime):
        return _in_utc(value, timezone, latest=latest)
    if isinstance(value, date):
        return _in_utc(datetime.combine(value, of_day), timezone, latest=latest)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _from_epoch(value)
    if isinstance(value, str):
        return _from_text(value.strip(), timezone, of_day, latest=latest)
    raise ValueError(f"a time cannot be a {type(value).__name__}; write {READABLE_TIMES}")


def write_time(value: datetime) -> str:
    """Write a time as Regal gets it: UTC, ``YYYY-MM-DD HH:MM:SS +00:00``, fractions of a second cut off."""
    return value.astimezone(UTC).isoformat(" ", "seconds").replace("+00:00", " +00:00")


def _from_text(text: str, timezone: tzinfo, of_day: time, *, latest: bool) -> datetime:
    if _EPOCH_TEXT.fullmatch(text):
        return _from_epoch(float(text))
    if of_day != time.min:
        with suppress(ValueError):  # most say a time, too
            return _in_utc(datetime.combine(date.fromisoformat(text), of_day), timezone, latest=latest)
    try:
        return _in_utc(datetime.fromisoformat(_SPACE_BEFORE_OFFSET.sub("", text)), timezone, latest=latest)
    except ValueError:
        raise ValueError(f"not a readable time; write {READABLE_TIMES}") from None


def _in_utc(value: datetime, timezone: tzinfo, *, latest: bool) -> datetime:
    try:
        if value.utcoffset() is not None:
            return value.astimezone(UTC)
        aware = value.replace(tzinfo=timezone)
        return max(aware.replace(fold=fold).astimezone(UTC) for fold in (0, 1)) if latest else aware.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from None


def _from_epoch(number: float | Decimal) -> datetime:
    try:
        seconds = float(number)
        return datetime.fromtimestamp(seconds / 1000 if abs(seconds) > _MILLISECONDS_ABOVE else seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise ValueError(_NO_EPOCH) from None
