"""The rows of a snapshot, exactly as the source gave them, so that a position means the same row on every try.

A line is a row, as an object of JSON. One that starts with ``[`` has the columns of the last object before it::

    {"user_id":7,"email":"ann@example.com"}
    [8,"bob@example.com"]
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from airflow_provider_regal.events.python_values import plain

ROWS_PER_CHUNK: Final = 1_000
BYTES_PER_CHUNK: Final = 2 * 1024 * 1024
_COMPRESSION: Final = 1
_TAG: Final = "$"
_TAGGED: Final = f'"{_TAG}'
_OTHER: Final = "$other"
_DEEPEST: Final = 64
_MOST_VALUES: Final = 200_000
_MOST_BITS: Final = 4_000  # about 1,200 digits; Python refuses to write 4,300
_MOST_DIGITS: Final = 1_200
_AS_THEY_ARE: Final = frozenset({str, float, bool, type(None)})
_SCALARS: Final = _AS_THEY_ARE | {int}
_LEAVES: Final = _SCALARS | {datetime, date, Decimal, UUID, bytes}
_TEXT_ONLY: Final = frozenset({str})

Columns = tuple[str, ...] | None

# Types JSON lacks: tag -> (type, to text, from text). datetime before date: it is a kind of date.
_CODECS: Final[dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]]] = {
    "$datetime": (datetime, lambda value: value.isoformat(), datetime.fromisoformat),
    "$date": (date, lambda value: value.isoformat(), date.fromisoformat),
    "$decimal": (Decimal, str, Decimal),
    "$uuid": (UUID, str, UUID),
    "$bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
}


class Unstorable:
    """Stands for a value no row can carry; its class is named as that value's, so that a fault names it."""


@lru_cache(maxsize=256)
def _unstorable(kind: str) -> type[Unstorable]:
    return type(kind, (Unstorable,), {})


def encode_row(row: Mapping[str, Any]) -> str:
    """Write a row as one line of JSON; types JSON lacks are tagged.

    Any value can be written, so that mapping refuses it, with its reason.
    """
    return _line(row, None)[0]


def _line(row: Mapping[str, Any], before: Columns) -> tuple[str, Columns]:
    """Write a row as one line: without its columns, where they are those of the line before.

    :param before: these, if that line was of plain values.
    :returns: the line, and what the next one may leave out.
    """
    columns, values = (*row,), [*row.values()]
    if len(columns) > 1 and _TEXT_ONLY.issuperset(map(type, columns)):
        line = _plain(values if columns == before else row, values)
        if line is not None:
            return line, columns
    return _ENCODER.encode(storable(row)), None


def _plain(what: Any, values: Iterable[Any]) -> str | None:
    """Write what has no other values than plain ones, which is usual, and quicker; None for all else."""
    types = {*map(type, values)}
    if types <= _LEAVES:
        with suppress(ValueError):
            if types <= _SCALARS:  # pydantic's writer takes 1 us for ten columns, where json takes 5
                line = to_json(what, inf_nan_mode="constants").decode()
                # pydantic writes numbers of any length, and reads none of more than 4,300 digits.
                return line if len(line) <= _MOST_DIGITS or not any(map(_is_too_long, values)) else None
            return _ENCODER.encode(what)
    return None


def _is_too_long(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > _MOST_BITS


def decode_row(line: str) -> dict[str, Any]:
    """Read a row back."""
    row: dict[str, Any] = _decode(line)
    return row


def _decode(line: str) -> Any:
    if "\\" not in line and _TAGGED not in line:  # older versions of pydantic misread some escapes
        return from_json(line)
    return json.loads(line, object_hook=untagged)


class _Budget:
    """How many values one row may hold yet: a list can hold itself, or one other many times over."""

    def __init__(self) -> None:
        self.left = _MOST_VALUES

    def take(self, count: int) -> bool:
        self.left -= count
        return self.left >= 0


def storable(value: Any, depth: int = 0, budget: _Budget | None = None) -> Any:
    """Turn any value into one that JSON has."""
    if type(value) in _AS_THEY_ARE:
        return value
    value = plain(value)
    if isinstance(value, int):
        return {_OTHER: "number of so many digits"} if _is_too_long(value) else value
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return _nested(value, depth, budget or _Budget())
    if isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    for tag, (kind, write, _) in _CODECS.items():
        if isinstance(value, kind):
            return {tag: write(value)}
    return {_OTHER: type(value).__name__}


def _nested(value: Any, depth: int, budget: _Budget) -> Any:
    if not budget.take(len(value)):
        return {_OTHER: f"value with more than {_MOST_VALUES} parts"}
    if depth >= _DEEPEST:
        return {_OTHER: f"value nested deeper than {_DEEPEST} levels"}
    if not isinstance(value, Mapping):
        return [storable(item, depth + 1, budget) for item in value]
    if not all(isinstance(key, str) for key in value):
        if depth:
            return {_OTHER: "object with a key that is not text"}
        # A row stays a row: mapping refuses this column.
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        return {**_nested(named, 0, budget), "(not text)": {_OTHER: "column whose name is not text"}}
    stored = {str(key): storable(item, depth + 1, budget) for key, item in value.items()}
    if len(stored) == 1:
        ((key, item),) = stored.items()
        if key.startswith(_TAG):  # no tag of ours
            return {_TAG + key: item}
    return stored


def untagged(found: dict[str, Any]) -> Any:
    """Read back an object of JSON: a hook for ``json.loads``."""
    if len(found) == 1:
        ((key, inside),) = found.items()
        if key.startswith(_TAG + _TAG):
            return {key.removeprefix(_TAG): inside}
        if key == _OTHER:
            return _unstorable(inside)()
        if key in _CODECS:
            return _CODECS[key][2](inside)
    return found


_ENCODER: Final = json.JSONEncoder(default=storable)  # which leaves only has to name what JSON lacks


class RowChunk:
    """Rows that are written together: :data:`ROWS_PER_CHUNK` of them, or fewer where they are large."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._positions: list[int] = []
        self._size = 0
        self._columns: Columns = None

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def is_full(self) -> bool:
        """Whether the next row belongs into another chunk."""
        return len(self._lines) >= ROWS_PER_CHUNK or self._size >= BYTES_PER_CHUNK

    def add(self, position: int, row: Mapping[str, Any]) -> None:
        """Take a row in.

        :param position: its number in the source, from 1.
        """
        line, self._columns = _line(row, self._columns)
        self._lines.append(line)
        self._positions.append(position)
        self._size += len(line)

    def encoded(self) -> bytes:
        """Return the chunk as bytes: where its rows are in the source, then one row a line, compressed."""
        first, last = self._positions[0], self._positions[-1]
        one_by_one = last - first + 1 == len(self._positions)
        head = json.dumps([first] if one_by_one else self._positions, separators=(",", ":"))
        return zlib.compress("\n".join((head, *self._lines)).encode("utf-8", "surrogatepass"), _COMPRESSION)


def decode_chunk(
    encoded: bytes, *, without: Callable[[int], bool] = lambda number: False
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Read the rows of a chunk back: the number in the chunk, the number in the source, the row.

    :param without: whether the row of a number in the chunk is not needed; it costs next to nothing then.
    """
    head, *lines = zlib.decompress(encoded).decode("utf-8", "surrogatepass").split("\n")
    positions = json.loads(head)
    whole, columns = "", None
    for number, line in enumerate(lines):
        if line.startswith("{"):
            whole, columns = line, None
            if without(number):
                continue
            row = decode_row(line)
        elif without(number):
            continue
        else:
            columns = columns or (*decode_row(whole),)
            row = dict(zip(columns, _decode(line), strict=True))
        yield number, positions[number] if len(positions) > 1 else positions[0] + number, row
