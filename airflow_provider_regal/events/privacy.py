"""Personal data: what must not reach a log, an error or Airflow's database, and what to show instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MASK: Final = "***"
_EMAIL = r"[^\s@\"'<>(),;:]{1,64}@[^\s\"'<>(),;:]+"
_PHONE = r"\+?\(?\d[\d\s().\-/]{5,}\d"
_IP4 = r"\b\d{1,3}(?:\.\d{1,3}){3}\b"
_IP6 = r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"
_PERSONAL = re.compile("|".join((_EMAIL, _IP4, _IP6, _PHONE)))
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_NAME = re.compile(
    r"""\b((?:column|table|relation|function|schema|database|type)\s+)["'`]([\w.]+)["'`]""", re.IGNORECASE
)
_QUOTED = re.compile(r"""["'`].*["'`]|["'`].*$""")  # up to the last quote: quoted text may contain quotes
_SHORTEST_SECRET: Final = 3
_LONGEST_KEY: Final = 100
_DEEPEST: Final = 8


class KeysOnly(str):
    """Shown in a rendered field instead of its values."""

    __slots__ = ()


def keys_only(value: Any) -> Any:
    """Describe a payload field by its keys: ``{firstName, optIn: [2], phone}``; None stays None."""
    if value is None or isinstance(value, KeysOnly):
        return value
    return KeysOnly(_outline(value))


def shown_key(key: str) -> str:
    """Format a key so that a message may contain it: nothing personal, limited length, printable."""
    if len(key) > _LONGEST_KEY:
        return f"(a name of {len(key)} characters)"
    masked = _PERSONAL.sub(MASK, key)
    return "".join(character if character.isprintable() else "?" for character in masked)


def _outline(value: Any, depth: int = 0) -> str:
    if isinstance(value, Mapping):
        if depth >= _DEEPEST:
            return "{...}"
        return "{" + ", ".join(sorted(_member(str(key), item, depth) for key, item in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{len(value)}]"
    return MASK


def _member(key: str, value: Any, depth: int) -> str:
    # The keys of a phones map are the numbers themselves.
    shown = shown_key(key)
    return f"{shown}: {_outline(value, depth + 1)}" if isinstance(value, (Mapping, list, tuple)) else shown


def contact_values(value: Any) -> set[str]:
    """Collect what looks like a phone, an email or an IP address anywhere in a value, including keys."""
    found = (match.group().strip() for text in _texts(value) for match in _PERSONAL.finditer(text))
    return {value for value in found if not _DATE.match(value)}  # otherwise every log line of that day would be masked


def scrub(text: str, sent: Any) -> str:
    """Remove everything we sent and everything that looks personal from a text (Regal's message)."""
    for value in sorted(set(_texts(sent)), key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, MASK)
    return _PERSONAL.sub(MASK, text)


def without_values(message: str) -> str:
    """Return the first line of a database error without quoted text, except names of columns and tables."""
    line = message.strip().partition("\n")[0]
    return _PERSONAL.sub(MASK, _QUOTED.sub(MASK, _NAME.sub(r"\1\2", line)))


def _texts(value: Any) -> Iterator[str]:
    """Return every text and number in a value, and keys of mappings that look personal."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) or (isinstance(item, (int, float)) and not isinstance(item, bool)):
            yield str(item)
        elif isinstance(item, (Mapping, list, tuple, set)) and id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, Mapping):
                yield from (str(key) for key in item if _PERSONAL.fullmatch(str(key)))
                item = item.values()
            waiting += item
