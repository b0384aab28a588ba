"""Find the person of a row as its source wrote it, by column names, before any mapping. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_NAMES: Final = {
    "user_id": re.compile(r"(^|[._])(user_?id|external_?id|customer_?id)$", re.IGNORECASE),
    "phone": re.compile(r"(^|[._])(phone|phone_?number|mobile|cell|tel|phones\.number)$", re.IGNORECASE),
    "email": re.compile(r"(^|[._])(e_?mail|mail|email_?address|emails\.address)$", re.IGNORECASE),
}
_DEEPEST: Final = 3


def identifiers_in(row: Any) -> dict[str, str | None]:
    """Return ``user_id``, ``phone`` and ``email`` of a row; None if no column has such a name."""
    values = [*_values(row)]
    return {
        name: next((value for path, value in values if pattern.search(path)), None) for name, pattern in _NAMES.items()
    }


def _values(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Return the values in a row, each with its path of names; those of the row itself come first."""
    if depth > _DEEPEST or not isinstance(value, (Mapping, list, tuple)):
        return
    inner = value.items() if isinstance(value, Mapping) else [("", one) for one in value]
    deeper = []
    for name, inside in inner:
        where = f"{path}.{name}".strip(".")
        if isinstance(inside, (Mapping, list, tuple)):
            deeper.append((where, inside))
        elif inside is not None and not isinstance(inside, bool) and str(inside).strip():
            yield where, str(inside)
    for where, inside in deeper:
        yield from _values(inside, where, depth + 1)
