"""The types a user asks for: a value of a column read as one of them, or refused.

What says nothing (None, NaN; for all but text also white space) stays nothing, whatever the type.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from airflow_provider_regal.events.python_values import is_blank, is_nothing, plain, read_truth
from airflow_provider_regal.events.times import read_time


def coerce(value: Any, kind: type, timezone: tzinfo) -> Any:
    """Read a value as a type.

    :param kind: one of :data:`COERCIONS`.
    :param timezone: the zone of times that name none.
    :raises ValueError: it cannot be; the message does not hold the value.
    """
    value = plain(value)
    if is_nothing(value) or (kind is not str and is_blank(value)):
        return None
    try:
        return COERCIONS[kind](value, timezone)
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        pass
    raise ValueError(f"cannot be read as {kind.__name__}")  # outside of the handler, whose error carries the value


def _text(value: Any, _: tzinfo) -> str:
    if isinstance(value, (str, bool, int, float, Decimal, date, UUID)):
        return str(value)
    raise ValueError


def _number(value: Any) -> str:
    # Python reads digits of all scripts, and 1_000; a table has neither.
    text = str(value).strip()
    if isinstance(value, bool) or "_" in text or not text.isascii():
        raise ValueError
    return text


def _whole(value: Any, _: tzinfo) -> int:
    number = Decimal(_number(value))
    if number % 1:
        raise ValueError
    return int(number)


def _fraction(value: Any, _: tzinfo) -> float:
    return float(_number(value))


def _date(value: Any, _: tzinfo) -> date:
    if isinstance(value, datetime):
        return value.date()
    return value if isinstance(value, date) else datetime.fromisoformat(str(value).strip()).date()


COERCIONS: Final[dict[type, Callable[[Any, tzinfo], Any]]] = {
    str: _text,
    int: _whole,
    float: _fraction,
    bool: lambda value, _: read_truth(value),
    date: _date,
    datetime: read_time,
}
