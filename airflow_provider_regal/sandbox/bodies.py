"""Request bodies: parsed as strict JSON, stored compactly, and recognized when repeated."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from typing import Any

MAX_DEPTH = 100
_KEEP_HASHES = 200_000


def read_object(raw: bytes) -> dict[str, Any] | None:
    """Parse the JSON object in a body; ``None`` if it is not one (empty, truncated, NaN, a list, nested too deep)."""
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and _depth_ok(document) else None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number beyond what a double can hold could not be written as JSON again")
    return number


def _depth_ok(document: object) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        level = [child for node in level for child in _children(node)]
    return False


def _children(node: object) -> list[Any]:
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [value for value in values if isinstance(value, (dict, list))]


def compact(document: dict[str, Any]) -> bytes:
    """Serialize a body in its shortest form, with members in the order sent."""
    return json.dumps(document, separators=(",", ":")).encode()


def canonical(document: dict[str, Any]) -> bytes:
    """Serialize a body in a form that does not depend on white space or the order of members."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


class Repeats:
    """Recognizes repeated bodies by hash; remembers a limited number of the newest."""

    def __init__(self, keep: int = _KEEP_HASHES) -> None:
        self._keep = keep
        self._first_seen: OrderedDict[bytes, int] = OrderedDict()

    def seen(self, document: dict[str, Any], number: int) -> int | None:
        """Return the first request with the same body, or ``None`` if ``number`` is the first."""
        key = hashlib.blake2b(canonical(document), digest_size=16).digest()
        first = self._first_seen.setdefault(key, number)
        self._first_seen.move_to_end(key)
        if len(self._first_seen) > self._keep:
            self._first_seen.popitem(last=False)
        return None if first == number else first
