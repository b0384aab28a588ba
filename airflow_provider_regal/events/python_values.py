"""Values before they are judged: Python's own types, what counts as nothing and as a yes, text that can be sent.

Neither numpy nor pandas is imported: their values are known by the module of their type.
"""

from __future__ import annotations

import math
import re
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
_BITS: Final = {b"\0": False, b"\1": True}  # MariaDB's BIT(1)
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


def plain(value: Any) -> Any:
    """Turn a numpy or pandas value, or a member of an Enum, into Python's own; NA and NaT become None."""
    kind = type(value)
    if kind in _PYTHONS_OWN:
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    library = str(kind.__module__).partition(".")[0]
    if library not in ("numpy", "pandas"):
        return value
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__name__ == "Timestamp":
        return value.to_pydatetime(warn=False)  # nanoseconds are cut off, as all fractions are when written
    if library == "numpy" and (unit := getattr(getattr(value, "dtype", None), "kind", "")) in ("M", "m"):
        value = value.astype(f"{unit}8[us]")  # in nanoseconds tolist() would give bare numbers
    return value.tolist() if hasattr(value, "tolist") else value


def is_nothing(value: Any) -> bool:
    """Whether a value says that there is none: None, NaN, NA or NaT."""
    value = plain(value)
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None


def is_blank(value: Any) -> bool:
    """Whether an identifier or a piece of evidence is simply not there: nothing, or only white space."""
    return not value.strip() if isinstance(value, str) else is_nothing(value)


def read_truth(value: Any) -> bool:
    """Read a boolean: true or false, a number equal to 1 or 0 (of any type, or as text), or a word.

    A no is taken in every usual spelling, a yes only as true, t or 1.

    :raises ValueError: anything else, so that no stray text subscribes anyone.
    """
    value = plain(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)) and not is_nothing(value) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _TRUTHS:
            return _TRUTHS[text]
        if _NUMBER.fullmatch(text) and float(text) in (0, 1):
            return bool(float(text))
    if isinstance(value, (bytes, bytearray, memoryview)) and (bit := bytes(value)) in _BITS:
        return _BITS[bit]
    raise ValueError("must be true or false")


def sendable(text: str) -> str:
    """Return the text if UTF-8 can carry it.

    :raises ValueError: it holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = "the text is not valid Unicode (half of a surrogate pair)"
    else:
        return text
    raise ValueError(problem)  # outside of the handler, whose error carries the text


# Strict, since pydantic would else read bytes as text.
Text = Annotated[str, Strict(), BeforeValidator(plain), AfterValidator(sendable)]
