"""Times: read in the formats of warehouses and people, written in the one format Regal accepts."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import Final

from airflow_provider_regal.events.python_values import plain, trimmed, whole

# An epoch number has the unit that puts it between 1990 and tomorrow: these ranges don't overlap.
_FIRST_EPOCH: Final = datetime(1990, 1, 1, tzinfo=UTC).timestamp()
_A_DAY_S: Final = 86_400
_UNITS: Final = (1, 1e3, 1e6, 1e9)
_EPOCH_TEXT = re.compile(r"-?\d{9,}(\.\d*)?", re.ASCII)
_SPACE_BEFORE_OFFSET = re.compile(r" (?=[+-]\d\d(:?\d\d)?$)")
_UTC_IN_WORDS = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
# As in HTTP and mail headers: Mon, 02 Mar 2026 14:05:09 GMT.
_OF_A_HEADER = re.compile(
    r"(?:[a-z]{3}, ?)?\d{1,2} [a-z]{3} \d{4} \d\d:\d\d(?::\d\d)? (?:[+-]\d{4}|GMT|UTC)", re.IGNORECASE
)
_DATE_KEYS: Final = {8: "YYYYMMDD", 10: "YYYYMMDDHH", 12: "YYYYMMDDHHMM", 14: "YYYYMMDDHHMMSS"}
_EXCEL_DAYS: Final = range(20_000, 80_000)  # 1954 to 2119

READABLE_TIMES = "ISO 8601 (2026-03-02T14:05:09Z), 'YYYY-MM-DD HH:MM:SS +00:00' or epoch seconds"


def read_time(value: object, timezone: tzinfo = UTC, *, of_day: time = time.min, latest: bool = False) -> datetime:
    """Read a time; one without a zone is in ``timezone``.

    :param value: datetime, date, ISO 8601 text (also followed by UTC or GMT), or an epoch from 1990 to tomorrow, as
        number or text, in seconds, milliseconds, microseconds or nanoseconds; also numpy's and pandas' times.
    :param of_day: which time a date alone means.
    :param latest: for a time without a zone in the hour that occurs twice when clocks change, use the later one.
    :returns: the time in UTC.
    :raises ValueError: it is none of these; the message does not contain the value.
    """
    value = plain(value)
    if isinstance(value, datetime):
        return _in_utc(value, timezone, latest=latest)
    if isinstance(value, date):
        return _in_utc(datetime.combine(value, of_day), timezone, latest=latest)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _from_epoch(value)
    if isinstance(value, str):
        text = trimmed(value)
        if _EPOCH_TEXT.fullmatch(text):
            return _from_epoch(float(text))
        moment = _parsed(text)
        if not isinstance(moment, datetime):
            moment = datetime.combine(moment, of_day)
        return _in_utc(moment, timezone, latest=latest)
    raise ValueError(f"a time cannot be a {type(value).__name__}; write {READABLE_TIMES}")


def read_day(value: object, timezone: tzinfo = UTC) -> date:
    """Read a date, from a date, a time (in its own zone), or a date key such as 20260302.

    :raises ValueError: it is none of these; the message does not contain the value.
    """
    value = plain(value)
    if isinstance(value, (int, float, Decimal)) and (number := whole(value)) is not None:
        value = str(number)
    if isinstance(value, str) and not _EPOCH_TEXT.fullmatch(text := trimmed(value)):
        value = _parsed(text)
    if not isinstance(value, date):
        value = read_time(value, timezone).astimezone(timezone)
    return value.date() if isinstance(value, datetime) else value


def write_time(value: datetime) -> str:
    """Format a time for Regal: UTC, ``YYYY-MM-DD HH:MM:SS +00:00``, without fractions of a second."""
    return value.astimezone(UTC).isoformat(" ", "seconds").replace("+00:00", " +00:00")


def _parsed(text: str) -> datetime | date:
    """Parse a text as a time, or as a date if it has no time.

    :raises ValueError: it is neither.
    """
    with suppress(ValueError):
        return date.fromisoformat(text)
    with suppress(ValueError):
        return datetime.fromisoformat(_SPACE_BEFORE_OFFSET.sub("", text))
    if _OF_A_HEADER.fullmatch(text):
        from email.utils import parsedate_to_datetime

        with suppress(ValueError):
            return parsedate_to_datetime(text)
    elif (short := _UTC_IN_WORDS.sub("", text)) != text:
        with suppress(ValueError):
            moment = datetime.fromisoformat(_SPACE_BEFORE_OFFSET.sub("", short))
            if not moment.utcoffset():  # "+02:00 UTC" contradicts itself
                return moment.replace(tzinfo=UTC)
    raise ValueError(f"not a readable time; write {READABLE_TIMES}")


def _in_utc(value: datetime, timezone: tzinfo, *, latest: bool) -> datetime:
    try:
        if value.utcoffset() is not None:
            return value.astimezone(UTC)
        aware = value.replace(tzinfo=timezone)
        return max(aware.replace(fold=fold).astimezone(UTC) for fold in (0, 1)) if latest else aware.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from None


def _from_epoch(number: float | Decimal) -> datetime:
    tomorrow = datetime.now(UTC).timestamp() + _A_DAY_S
    with suppress(OverflowError, ValueError):
        for unit in _UNITS:
            if _FIRST_EPOCH <= (seconds := float(number) / unit) <= tomorrow:
                return datetime.fromtimestamp(seconds, UTC)
    raise ValueError(f"as an epoch, this number gives a time outside 1990 to tomorrow{_guess(number)}")


def _guess(number: float | Decimal) -> str:
    """Return what a number that is not an epoch may be."""
    days = whole(number)
    if days is not None and (form := _DATE_KEYS.get(len(str(days)))) and str(days)[:2] in ("19", "20"):
        return f" (a date key, {form}? Send a date)"
    with suppress(OverflowError, ValueError):
        if _EXCEL_DAYS[0] <= float(number) < _EXCEL_DAYS[-1]:
            return " (a day number of Excel? Send a date)"
    return ""
