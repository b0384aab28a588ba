"""Check types: Regal fixes the type of every trait and property at its first value, and silently drops other types.

The ledger records the first type of each name. A value of another type makes its row invalid until the new type is
accepted with ``airflow regal contract accept``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.names import EMAILS, NAME, PHONES, PROPERTIES, TRAITS
from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.ledger.text import short

# Regal defines their type.
_NOT_FREE: Final = frozenset({PHONES, EMAILS})
# The ledger stores long names as hashes. An account has few names, and each is in many rows.
_stored = lru_cache(maxsize=4096)(short)


class TypeDrift:
    """Compares values with the types the account sent first.

    :param known: name -> type and time, as stored in the ledger; names as :func:`_stored` returns them.
    """

    def __init__(self, known: Mapping[str, tuple[str, str | None]]) -> None:
        self._known = {name: kind for name, (kind, _) in known.items()}
        self._since = {name: since for name, (_, since) in known.items()}
        self._new: dict[str, str] = {}
        # Names and types that were right: most rows are alike, so one lookup is enough.
        self._right: set[tuple[Any, ...]] = set()

    def faults_of(self, body: Mapping[str, Any]) -> list[Fault]:
        """Return the values whose type differs from the first one. If there are none, record the new types."""
        traits, properties = body.get(TRAITS, _NOTHING), body.get(PROPERTIES, _NOTHING)
        alike = (
            body.get(NAME), *traits, *map(type, traits.values()), None, *properties, *map(type, properties.values())
        )  # fmt: skip
        if alike in self._right:
            return []
        types = list(_typed(body))
        faults = [
            Fault(path_of(field), self._reason(name, first, now))
            for field, name, now in types
            if (first := self._known.get(name, now)) != now
        ]
        if not faults:
            new = {name: now for _, name, now in types if name not in self._known}
            self._known.update(new)
            self._new.update(new)
            if len(self._right) >= _MOST_ALIKE:
                self._right.clear()
            self._right.add(alike)
        return faults

    def _reason(self, name: str, first: str, now: str) -> str:
        since = self._since.get(name)
        when = "in earlier rows" if since is None else f"since {since[:10]} {since[11:16]} UTC"
        return (
            f"type_drift: is {_ARTICLES[now]}, but was sent as {_ARTICLES[first]} {when}, which Regal keeps. Cast it, "
            f"or accept the new type: airflow regal contract accept {shlex.quote(shown_key(name))} {now}"
        )

    def take_new(self) -> dict[str, str]:
        """Return the types that are new since the last call."""
        new, self._new = self._new, {}
        return new


_NOTHING: Final[Mapping[str, Any]] = {}
_MOST_ALIKE: Final = 1_000  # rows that don't come from a table may all have different columns


def _typed(body: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str, str]]:
    """Return the place, name in the account, and type of every value except null."""
    for name, value in body.get(TRAITS, {}).items():
        if name not in _NOT_FREE and (kind := _type_of(value)) is not None:
            yield (TRAITS, name), _stored(f"{TRAITS}.{name}"), kind
    event = body.get(NAME)
    for name, value in body.get(PROPERTIES, {}).items():
        if (kind := _type_of(value)) is not None:
            yield (PROPERTIES, name), _stored(f"{event}: {name}"), kind


_TYPES: Final[Mapping[type, str | None]] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "list",
    dict: "object",
    type(None): None,
}
_ARTICLES: Final[Mapping[str, str]] = {
    "text": "text",
    "number": "a number",
    "boolean": "a boolean",
    "list": "a list",
    "object": "an object",
}


def _type_of(value: object) -> str | None:
    return _TYPES.get(type(value), "object")
