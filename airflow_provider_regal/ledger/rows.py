"""Encode the rows of a snapshot exactly as the source returned them, so that a position is the same row in every try.

A line is a row, as a JSON object. A line that starts with ``[`` has the columns of the last object before it::

    {"user_id":7,"email":"ann@example.com"}
    [8,"bob@example.com"]
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.python_values import plain

ROWS_PER_CHUNK: Final = 1_000
BYTES_PER_CHUNK: Final = 2 * 1024 * 1024
_COMPRESSION: Final = 1
_TAG: Final = "$"
_TAGGED: Final = f'"{_TAG}'
_OTHER: Final = "$other"
_DEEPEST: Final = 64
#: The maximum an event can contain.
MOST_VALUES: Final = 100_000
_MOST_BITS: Final = 4_000  # about 1,200 digits; Python refuses to write 4,300
_MOST_DIGITS: Final = 1_200
_LONGEST_TEXT: Final = 256 * 1024  # longer than any text in an event that is sent
_LONGEST_LINE: Final = 4 * _LONGEST_TEXT
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_LEAVES: Final = _SCALARS | {datetime, date, Decimal, UUID, bytes}
_ZONES: Final = frozenset({type(None), timezone, ZoneInfo})
_TEXT_ONLY: Final = frozenset({str})

Columns = tuple[str, ...] | None

# Types that JSON lacks: tag -> (type, to text, from text). datetime before date, its base class. Uses the methods of
# exactly these types, whatever a subclass overrides.
_CODECS: Final[dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]]] = {
    "$datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "$date": (date, date.isoformat, date.fromisoformat),
    "$decimal": (Decimal, Decimal.__str__, Decimal),
    "$uuid": (UUID, lambda value: str(UUID(int=value.int)), UUID),
    "$bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
}


#: The original name of a class, even if it reports another one.
name_of: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


class Unstorable:
    """Replaces a value that no row can contain; its class is named after the value's type, so that faults show it."""


@lru_cache(maxsize=256)
def _unstorable(kind: str) -> type[Unstorable]:
    return type(kind, (Unstorable,), {})


def as_stored(row: Any) -> dict[str, Any] | str:
    """Convert an item of a source to a row of plain Python types, as the snapshot will return it.

    :returns: the row, or the name of the item's type if it can't be read as a row.
    """
    if type(row) is dict and _TEXT_ONLY.issuperset(map(type, row)) and _is_plain({*map(type, row.values())}, row):
        return row
    stored = _decode(_ENCODER.encode(storable(row)))
    return stored if type(stored) is dict else name_of(type(stored))


def _is_plain(types: set[type], row: dict[str, Any]) -> bool:
    """Return whether all values, and the zones of times, are of plain types, which can't raise when encoded."""
    if not types <= _LEAVES:
        return False
    if int in types and any(map(_is_too_long, [value for value in row.values() if type(value) is int])):
        return False
    return datetime not in types or all(
        type(value.tzinfo) in _ZONES for value in row.values() if type(value) is datetime
    )


def encode_row(row: Mapping[str, Any]) -> str:
    """Encode a row as one line of JSON; types that JSON lacks are tagged.

    Any value can be encoded, so that mapping can reject it with a reason.
    """
    return _line(row, None)[0]


def _line(row: Mapping[str, Any], before: Columns) -> tuple[str, Columns]:
    """Encode a row as one line, without its columns if they are those of the previous line.

    :param before: the columns of the previous line, if its values were plain.
    :returns: the line, and the columns that the next one may omit.
    """
    columns, values = (*row,), [*row.values()]
    if len(columns) > 1 and _TEXT_ONLY.issuperset(map(type, columns)):
        line = _plain(values if columns == before else row, values)
        if line is not None:
            return line, columns
    return _ENCODER.encode(storable(row)), None


def _plain(what: Any, values: Iterable[Any]) -> str | None:
    """Encode values that are all plain: the common case, and faster. Return None for all others."""
    types = {*map(type, values)}
    if not types <= _LEAVES:
        return None
    try:
        if types <= _SCALARS:  # pydantic's writer takes 1 us for ten columns, json 5
            line = to_json(what, inf_nan_mode="constants").decode()
            # pydantic writes numbers of any length, but does not read more than 4,300 digits.
            if len(line) > _MOST_DIGITS and any(map(_is_too_long, values)):
                return None
        else:
            line = _ENCODER.encode(what)
    except ValueError:
        return None
    return line if len(line) <= _LONGEST_LINE else None


def _is_too_long(value: Any) -> bool:
    return type(value) is int and value.bit_length() > _MOST_BITS


def decode_row(line: str) -> dict[str, Any]:
    """Decode a row."""
    row: dict[str, Any] = _decode(line)
    return row


def _decode(line: str) -> Any:
    if "\\" not in line and _TAGGED not in line:  # older versions of pydantic misread some escapes
        return from_json(line)
    return json.loads(line, object_hook=untagged)


class _TooMuchError(Exception):
    pass


class _Walk:
    """A traversal of a row's values: a list may contain itself, repeat another many times, or be endless."""

    def __init__(self) -> None:
        self._left = MOST_VALUES
        self.open: set[int] = set()  # the objects and lists around the current value

    def take(self, values: Iterable[Any]) -> list[Any]:
        """Return the items of a collection.

        :raises _TooMuchError: there are more than a row may contain.
        """
        taken = [*islice(values, self._left + 1)]  # don't rely on its length, which may be wrong
        self._left = max(self._left - len(taken), 0)
        if not self._left:
            raise _TooMuchError
        return taken


def storable(value: Any, depth: int = 0, walk: _Walk | None = None) -> Any:
    """Convert any value to one that JSON supports; an unreadable value is replaced by the name of its type."""
    try:
        return _storable(plain(value), depth, walk or _Walk())
    except _TooMuchError:
        if depth > 1:  # makes the whole column unusable
            raise
        return {_OTHER: f"value with more than {MOST_VALUES:,} parts"}
    except Exception:  # noqa: BLE001 - an object of a source can raise anything
        return {_OTHER: name_of(type(value))}


def _storable(value: Any, depth: int, walk: _Walk) -> Any:
    kind = type(value)  # what isinstance() relies on may be wrong
    if value is None or kind is bool:
        return value
    if issubclass(kind, str):
        text = str.__str__(value)
        return text if len(text) <= _LONGEST_TEXT else {_OTHER: f"text of more than {_LONGEST_TEXT:,} characters"}
    if issubclass(kind, int):
        number = int.__int__(value)
        return {_OTHER: "number of so many digits"} if _is_too_long(number) else number
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, (BaseModel, Fault)):
        value, kind = members_of(value), dict
    if issubclass(kind, (Mapping, list, tuple, set, frozenset)):
        return _collection(value, kind, depth, walk)
    if issubclass(kind, (bytes, bytearray, memoryview)):
        value, kind = bytes(value), bytes if len(value) <= _LONGEST_TEXT else memoryview
    for tag, (tagged, write, _) in _CODECS.items():
        if issubclass(kind, tagged):
            return {tag: write(value)}
    return {_OTHER: name_of(kind)}


def members_of(model: BaseModel | Fault) -> dict[str, Any]:
    """Return the members of an event or a part of one; pydantic would traverse them, including endless ones."""
    return {"field": model.field, "reason": model.reason} if isinstance(model, Fault) else dict(vars(model))


def _collection(value: Any, kind: type, depth: int, walk: _Walk) -> Any:
    if id(value) in walk.open:
        return {_OTHER: "value that contains itself"}
    if depth >= _DEEPEST:
        return {_OTHER: f"value nested deeper than {_DEEPEST} levels"}
    walk.open.add(id(value))
    try:
        if issubclass(kind, Mapping):
            return _members(walk.take(value.items()), depth, walk)
        return [storable(item, depth + 1, walk) for item in walk.take(value)]
    finally:
        walk.open.discard(id(value))


def _members(pairs: Sequence[tuple[Any, Any]], depth: int, walk: _Walk) -> Any:
    stored: dict[str, Any] = {}
    for key, item in pairs:
        if not issubclass(type(key), str):
            if depth:
                return {_OTHER: "object with a key that is not text"}
            # The row stays a row: mapping rejects this column.
            stored["(not text)"] = {_OTHER: "column whose name is not text"}
        elif (name := str.__str__(key)) in stored:
            stored[name] = {_OTHER: "value whose name is given twice"}
        else:
            stored[name] = storable(item, depth + 1, walk)
    if len(stored) == 1:
        ((key, item),) = stored.items()
        if key.startswith(_TAG):  # not one of our tags
            return {_TAG + key: item}
    return stored


def untagged(found: dict[str, Any]) -> Any:
    """Decode a JSON object; an object hook for ``json.loads``."""
    if len(found) == 1:
        ((key, inside),) = found.items()
        if key.startswith(_TAG + _TAG):
            return {key.removeprefix(_TAG): inside}
        if key == _OTHER:
            return _unstorable(inside)()
        if key in _CODECS:
            return _CODECS[key][2](inside)
    return found


_ENCODER: Final = json.JSONEncoder(default=storable)  # afterwards only types that JSON lacks are left to name


class RowChunk:
    """Rows that are written together: up to :data:`ROWS_PER_CHUNK`, or fewer if they are large."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._source_rows: list[int] = []
        self._size = 0
        self._columns: Columns = None

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def is_full(self) -> bool:
        """Whether the next row belongs in another chunk."""
        return len(self._lines) >= ROWS_PER_CHUNK or self._size >= BYTES_PER_CHUNK

    def add(self, source_row: int, row: Mapping[str, Any]) -> None:
        """Add a row.

        :param source_row: its number in the source, from 1.
        """
        line, self._columns = _line(row, self._columns)
        self._lines.append(line)
        self._source_rows.append(source_row)
        self._size += len(line)

    def encoded(self) -> bytes:
        """Return the chunk as bytes: the rows' numbers in the source, then one row per line, compressed."""
        first, last = self._source_rows[0], self._source_rows[-1]
        one_by_one = last - first + 1 == len(self._source_rows)
        head = json.dumps([first] if one_by_one else self._source_rows, separators=(",", ":"))
        return zlib.compress("\n".join((head, *self._lines)).encode("utf-8", "surrogatepass"), _COMPRESSION)


def decode_chunk(
    encoded: bytes, *, without: Callable[[int], bool] = lambda number: False
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Decode the rows of a chunk: number in the chunk, number in the source, row.

    :param without: returns whether the row with a number in the chunk is not needed; skipping it costs almost nothing.
    """
    head, *lines = zlib.decompress(encoded).decode("utf-8", "surrogatepass").split("\n")
    source_rows = json.loads(head)
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
        yield number, source_rows[number] if len(source_rows) > 1 else source_rows[0] + number, row
