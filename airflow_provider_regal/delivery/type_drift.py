"""Types: Regal fixes that of every trait and property with its first value and takes later ones without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.names import EMAILS, NAME, PHONES, PROPERTIES, TRAITS
from airflow_provider_regal.journal.ledger_text import short

# Their shape is Regal's own.
_NOT_FREE: Final = frozenset({PHONES, EMAILS})
# A long name is known to the ledger by its hash; the names of an account are few, and each stands in many rows.
_stored = lru_cache(maxsize=4096)(short)


class TypeDrift:
    """Compares what is sent with the types an account was first sent.

    :param known: name -> type, as the ledger has them; names as :func:`_stored` writes them.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = dict(known)
        self._new: dict[str, str] = {}

    def faults_of(self, body: Mapping[str, Any]) -> list[Fault]:
        """Say which values are of another type than the first; of a body without any, the types are remembered."""
        types = list(_typed(body))
        faults = [
            Fault(field, f"type_drift: is {now}, but was first sent as {first}, which Regal keeps. Cast it")
            for field, name, now in types
            if (first := self._known.get(name, now)) != now
        ]
        if not faults:
            new = {name: now for _, name, now in types if name not in self._known}
            self._known.update(new)
            self._new.update(new)
        return faults

    def take_new(self) -> dict[str, str]:
        """Give the types that were not known before, once."""
        new, self._new = self._new, {}
        return new


def _typed(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give the place, the name in the account, and the type of every value; of null none is known."""
    for name, value in body.get(TRAITS, {}).items():
        if name not in _NOT_FREE and (kind := _type_of(value)) is not None:
            yield path_of((TRAITS, name)), _stored(f"{TRAITS}.{name}"), kind
    event = body.get(NAME)
    for name, value in body.get(PROPERTIES, {}).items():
        if (kind := _type_of(value)) is not None:
            yield path_of((PROPERTIES, name)), _stored(f"{event}: {name}"), kind


def _type_of(value: object) -> str | None:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    return None if value is None else "an object"
