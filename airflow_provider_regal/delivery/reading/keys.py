"""The key that identifies a contact's row in the ledger, and the hash that shows whether the row changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.python_values import is_missing, plain, sendable, trimmed, whole
from airflow_provider_regal.events.rows.mapping import RowMapper
from airflow_provider_regal.ledger.rows import encode_row
from airflow_provider_regal.sources.marks import EVENT_MARK, MARKS

_USUAL: Final = ("user_id", "phone", "email")
_HASH_BYTES: Final = 16
_MOST_SHAPES: Final = 1_000  # rows that don't come from a table may all have different columns
_PLAIN: Final = frozenset({str, int, float, bool, type(None), datetime, date, Decimal, UUID})
_ADDRESS: Final = " at 0x"  # Python's default repr, for example of a driver's time zone


class ContactKeys:
    """Finds the keys of rows.

    :param key: the column or columns that identify a contact; None for the column that becomes the user id, else the
        phone, else the email.
    """

    def __init__(self, mapper: RowMapper, key: str | Sequence[str] | None) -> None:
        self._mapper = mapper
        self._key = (key,) if isinstance(key, str) else key
        self._columns: dict[tuple[str, ...], tuple[str, ...]] = {}

    def key_of(self, columns: Mapping[str, Any]) -> str:
        """Return the key of a row.

        :raises InvalidEventError: it has none; names the column at fault.
        """
        names = tuple(columns)
        if (key_columns := self._columns.get(names)) is None:
            if len(self._columns) >= _MOST_SHAPES:
                self._columns.clear()
            key_columns = self._columns[names] = self._key_columns(columns)
        values = [_text(column, columns.get(column)) for column in key_columns]
        return values[0] if len(values) == 1 else json.dumps(values, ensure_ascii=False)

    def _key_columns(self, columns: Mapping[str, Any]) -> tuple[str, ...]:
        if self._key is not None:
            lower = {name.lower(): name for name in columns}
            return tuple(name if name in columns else lower.get(name.lower(), name) for name in self._key)
        if EVENT_MARK not in columns and not columns.keys() & MARKS:
            plan = self._mapper.plan(tuple(columns))
            for field in _USUAL:
                if (column := plan.column_of(field)) is not None:
                    return (column,)
        return _USUAL[:1]


def _text(column: str, value: Any) -> str:
    if type(value) is int:  # the common case, and faster
        return str(value)
    value = plain(value)
    if is_missing(value):
        reason = "is empty; with only_changed it is the key by which the ledger knows the contact"
    elif isinstance(value, (float, Decimal)) and (number := whole(value)) is not None:
        return str(number)
    elif isinstance(value, (Mapping, list, tuple, float)):
        reason = f"a {type(value).__name__} cannot be the key of a contact; use text or a whole number"
    else:
        try:
            return sendable(trimmed(str(value)))
        except ValueError as error:
            reason = str(error)
    raise InvalidEventError("identify", [Fault(path_of((column,)), reason)])


def hash_of_row(columns: Mapping[str, Any], ignored: frozenset[str], seed: bytes) -> str:
    """Hash a row's values into 32 characters. The seed covers the options, so other options give another hash.

    :param ignored: columns that are not sent.
    """
    told = {name: value for name, value in columns.items() if name not in ignored} if ignored else columns
    return hashes_of_rows((told,), seed)[0]


def hashes_of_rows(rows: Iterable[Mapping[str, Any]], seed: bytes) -> list[str]:
    """Hash many rows, each by its column names and values."""
    hashes, names, begun = [], None, _begun(seed, ())
    for columns in rows:
        if (these := (*columns,)) != names:  # rare
            names, begun = these, _begun(seed, these)
        hashed = begun.copy()
        hashed.update(_text_of((*columns.values(),)).encode())
        hashes.append(hashed.hexdigest())
    return hashes


def _text_of(values: tuple[Any, ...]) -> str:
    """Serialize values unambiguously: as Python does, where that is fast and the same in every process."""
    if _PLAIN.issuperset(map(type, values)) and _ADDRESS not in (text := repr(values)):
        return text
    return encode_row({"": values})


@lru_cache(maxsize=64)
def _begun(seed: bytes, names: tuple[str, ...]) -> hashlib.blake2b:
    return hashlib.blake2b(repr(names).encode(), digest_size=_HASH_BYTES, key=seed)


def hash_of_body(body: bytes, seed: bytes = b"") -> str:
    """Hash what is sent for a row."""
    return hashlib.blake2b(body, digest_size=_HASH_BYTES, key=seed).hexdigest()
