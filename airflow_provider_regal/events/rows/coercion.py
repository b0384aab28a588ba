r"""Type conversions that a user requests: read a column's value as the type, or reject it.

Empty values (None, NaN; except for text also white space, ``NULL``, ``\N``) stay empty, whatever the type.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn
from uuid import UUID

from airflow_provider_regal.events.options import ColumnType
from airflow_provider_regal.events.python_values import is_missing, is_nothing, plain, read_truth, trimmed, whole
from airflow_provider_regal.events.times import read_day, read_time


def coerce(value: Any, kind: ColumnType, timezone: tzinfo) -> Any:
    """Read a value as a type.

    :param kind: one of :data:`COERCIONS`.
    :param timezone: the zone of times without one.
    :raises ValueError: it can't be converted; the message does not contain the value.
    """
    value = plain(value)
    if is_nothing(value) or (kind is not str and is_missing(value)):
        return None
    try:
        return COERCIONS[kind](value, timezone)
    except (ValueError, TypeError, InvalidOperation, OverflowError, RecursionError):
        pass
    raise ValueError(
        f"cannot be read as {kind if isinstance(kind, str) else kind.__name__}"
    )  # outside the handler, because its error contains the value


_FEWEST, _MOST = -40, 40  # powers of ten of numbers that are written in full


def _text(value: Any, _: tzinfo) -> str:
    if isinstance(value, (float, Decimal)):  # whole numbers have no exponent
        if (number := whole(value)) is not None:
            return str(number)
        decimal = Decimal(str(value))
        if not _FEWEST <= decimal.adjusted() <= _MOST:
            raise ValueError
        return format(decimal, "f")
    if isinstance(value, (str, bool, int, date, UUID)):
        return str(value)
    raise ValueError


def _number(value: Any) -> str:
    # Python accepts digits of all scripts, and 1_000; tables use neither.
    text = trimmed(str(value))
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


def _json(value: Any, _: tzinfo) -> Any:
    return json.loads(value, parse_constant=_refuse) if isinstance(value, str) else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


COERCIONS: Final[dict[ColumnType, Callable[[Any, tzinfo], Any]]] = {
    str: _text,
    int: _whole,
    float: _fraction,
    bool: lambda value, _: read_truth(value),
    date: read_day,
    datetime: read_time,
    "json": _json,
}
