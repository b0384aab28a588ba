"""Convert values of any driver or library to Python types, and recognize missing values, whole numbers and decisions.

Every value of every source passes through here. No library is imported: values are recognized by the module of their
type.
"""

from __future__ import annotations

import math
import re
import struct
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Strict

_PYTHONS_OWN: Final = frozenset(
    {str, int, float, bool, type(None), dict, list, tuple, bytes, datetime, date, Decimal, UUID}
)
_TRUTHS: Final = dict.fromkeys(("true", "t"), True) | dict.fromkeys(("false", "f", "no", "n", "off"), False)
_NOES: Final = frozenset({"unsubscribed", "unsubscribe", "optedout", "optout", "stop", "revoked", "revoke", "denied"})
_BETWEEN_WORDS: Final = re.compile(r"[\s_-]+")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# White space and invisible characters: zero-width and direction marks, byte order marks, control characters.
_INVISIBLE: Final = "".join(
    chr(code)
    for first, last in (
        (0, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x61C, 0x61C), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200F),
        (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB),
    )
    for code in range(first, last + 1)
)  # fmt: skip
#: A missing value that something has converted to text.
MISSING_TEXTS: Final = frozenset(
    {
        "none", "null", "(null)", "<null>", "[null]", "nil", "nan", "nat", "na", "n/a", "#n/a", "<na>", "\\n",
        "undefined",
    }
)  # fmt: skip
_LONGEST_MISSING: Final = max(map(len, MISSING_TEXTS))
# Above 2^53, a double can't represent all whole numbers.
LARGEST_EXACT: Final = 2**53
_LONGEST_BIT: Final = 8
_MOST_DIGITS: Final = 10**40


def plain(value: Any) -> Any:
    """Convert a value of numpy, pandas, pyarrow or ipaddress, or a member of an Enum, to a Python type.

    NA and NaT become None; a 32-bit float becomes its shortest form (19.99, not 19.989999771118164).
    """
    kind = type(value)
    if kind in _PYTHONS_OWN:
        return value
    if issubclass(kind, Enum):
        return plain(value.value)
    library = str(kind.__module__).partition(".")[0]
    if library == "ipaddress":
        return address_alone(str(value))
    if library not in ("numpy", "pandas", "pyarrow"):
        return value
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__name__ == "Timestamp":
        return value.to_pydatetime(warn=False)  # nanoseconds are dropped, as all fractions are when written
    if kind.__name__ in ("float32", "float16"):
        return float(str(value))
    if hasattr(value, "as_py"):
        return shortest(value.as_py()) if kind.__name__ == "FloatScalar" else plain(value.as_py())
    dtype = getattr(value, "dtype", None)
    if (unit := getattr(dtype, "kind", "")) in ("M", "m") and library == "numpy" and not str(dtype).endswith("[D]"):
        value = value.astype(f"{unit}8[us]")  # in nanoseconds, tolist() would return plain integers
    if str(dtype) in ("float32", "float16"):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def shortest(number: float | None) -> float | None:
    """Return the shortest number that a 32-bit float represents."""
    if number is None or not math.isfinite(number):
        return number
    return next(short for digits in range(1, 18) if _as_32_bits(short := float(f"{number:.{digits}g}")) == number)


def _as_32_bits(number: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.inf


def address_alone(text: str) -> str:
    """Return an IP address without a prefix length that covers only this address (``/32``, ``/128``)."""
    return text.removesuffix("/128" if ":" in text else "/32")


def trimmed(text: str) -> str:
    """Strip white space and invisible characters from a text."""
    return text.strip(_INVISIBLE)


def whole(number: float | Decimal) -> int | None:
    """Return a whole number of any type as an int; None if it is a fraction or its digits are not exact."""
    if isinstance(number, int):
        return number if -_MOST_DIGITS < number < _MOST_DIGITS else None
    if isinstance(number, float):
        return int(number) if number.is_integer() and abs(number) <= LARGEST_EXACT else None
    if not number.is_finite() or not -_MOST_DIGITS < number < _MOST_DIGITS:
        return None
    return int(number) if number == number.to_integral_value() else None


def is_nothing(value: Any) -> bool:
    """Return whether a value means "none": None, NaN, NA or NaT."""
    value = plain(value)
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None


def is_blank(value: Any) -> bool:
    """Return whether a value is empty: "none", or a text without visible characters."""
    return not trimmed(value) if isinstance(value, str) else is_nothing(value)


def is_missing(value: Any) -> bool:
    """Return whether an identifier is missing: empty, or "none" converted to text, such as ``None`` or ``NULL``."""
    if not isinstance(value, str):
        return is_nothing(value)
    if len(value) > _LONGEST_MISSING and "!" <= value[0] <= "~" and "!" <= value[-1] <= "~":
        return False  # the common case, and faster
    text = trimmed(value)
    return not text or (len(text) <= _LONGEST_MISSING and text.casefold() in MISSING_TEXTS)


#: The reason for a value that is not a boolean.
NO_TRUTH: Final = "must be true or false"


def read_truth(value: Any) -> bool:
    """Read a boolean: true or false, a number equal to 1 or 0 (of any type, or as text), or a word.

    A no is accepted in every usual spelling, a yes only as true, t or 1.

    :raises ValueError: anything else, so that no stray text subscribes anyone.
    """
    value = plain(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)) and not is_nothing(value) and value in (0, 1):
        return bool(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        bits = bytes(value)
        if 0 < len(bits) <= _LONGEST_BIT and int.from_bytes(bits) in (0, 1):  # MariaDB's BIT
            return bool(int.from_bytes(bits))
    if isinstance(value, str):
        text = trimmed(value).lower()
        if text in _TRUTHS:
            return _TRUTHS[text]
        if (number := _NUMBER.fullmatch(text)) is not None and float(text) in ((0,) if number[2] else (0, 1)):
            return bool(float(text))  # with an exponent only 0E-10 (a no) is accepted: no stray text subscribes anyone
    raise ValueError(NO_TRUTH)


def read_decision(value: Any) -> bool:
    """Read a decision: a boolean, or a no as a status such as ``unsubscribed``, ``opted-out``, ``STOP``.

    :raises ValueError: neither, so that no stray text subscribes anyone.
    """
    value = plain(value)
    if isinstance(value, str) and _BETWEEN_WORDS.sub("", trimmed(value).casefold()) in _NOES:
        return False
    return read_truth(value)


def sendable(text: str) -> str:
    """Return the text if it can be encoded as UTF-8.

    :raises ValueError: it contains half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = "the text is not valid Unicode (half of a surrogate pair)"
    else:
        return text
    raise ValueError(problem)  # outside the handler, because its error contains the text


# Strict, because pydantic would otherwise read bytes as text.
Text = Annotated[str, Strict(), BeforeValidator(plain), AfterValidator(sendable)]
