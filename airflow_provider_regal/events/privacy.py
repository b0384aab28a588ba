"""Personal data: what must not reach a log, an error or Airflow's database, and what is shown in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MASK: Final = "***"
_EMAIL = r"[^\s@\"'<>(),;:]+@[^\s@\"'<>(),;:]+"
_PHONE = r"\+?\(?\d[\d\s().\-/]{5,}\d"
_IP4 = r"\b\d{1,3}(?:\.\d{1,3}){3}\b"
_IP6 = r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"
_PERSONAL = re.compile("|".join((_EMAIL, _IP4, _IP6, _PHONE)))
_SHORTEST_SECRET: Final = 3


class KeysOnly(str):
    """What stands in a rendered field instead of its values."""

    __slots__ = ()


def keys_only(value: Any) -> Any:
    """Describe a payload field by its keys: ``{firstName, optIn: [2], phone}``; None stays None."""
    if value is None or isinstance(value, KeysOnly):
        return value
    return KeysOnly(_outline(value))


def _outline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(_member(str(key), item) for key, item in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{len(value)}]"
    return MASK


def _member(key: str, value: Any) -> str:
    # A phones map has the numbers themselves as keys.
    shown = _PERSONAL.sub(MASK, key)
    return f"{shown}: {_outline(value)}" if isinstance(value, (Mapping, list, tuple)) else shown


def contact_values(value: Any) -> set[str]:
    """Collect what looks like a phone, an email or an IP address, anywhere inside a value, keys included."""
    return {found.group().strip() for text in _texts(value) for found in _PERSONAL.finditer(text)}


def scrub(text: str, sent: Any) -> str:
    """Take out of a text (Regal's own words) everything we sent and everything that looks personal."""
    for value in sorted(set(_texts(sent)), key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, MASK)
    return _PERSONAL.sub(MASK, text)


def _texts(value: Any) -> Iterator[str]:
    """Every text and number inside a value; of a mapping's keys those that look personal."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _PERSONAL.fullmatch(str(key)):
                yield str(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        yield str(value)
