"""The snapshot: rows exactly as the source gave them, so that a position means the same row on every try."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

ROWS_PER_CHUNK: Final = 1_000
BYTES_PER_CHUNK: Final = 4 * 1024 * 1024
_TAG: Final = "$"

# Types JSON lacks: tag -> (type, to text, from text). datetime before date: it is a kind of date.
_CODECS: Final[dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]]] = {
    "datetime": (datetime, lambda value: value.isoformat(), datetime.fromisoformat),
    "date": (date, lambda value: value.isoformat(), date.fromisoformat),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
}


class Unstorable:
    """Stands for a value of a type no row can carry; mapping refuses it by the name of that type."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def encode_row(row: Mapping[str, Any]) -> str:
    """Write a row as one line of JSON; types JSON lacks are tagged."""
    return json.dumps(row, default=_tagged, ensure_ascii=True)


def decode_row(line: str) -> dict[str, Any]:
    """Read a row back."""
    row: dict[str, Any] = json.loads(line, object_hook=_untagged) if f'"{_TAG}' in line else json.loads(line)
    return row


def _tagged(value: Any) -> Any:
    if isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    for tag, (kind, write, _) in _CODECS.items():
        if isinstance(value, kind):
            return {_TAG + tag: write(value)}
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return {_TAG + "other": type(value).__name__}


def _untagged(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((key, text),) = found.items()
        if key == _TAG + "other":
            return Unstorable(text)
        if key.startswith(_TAG) and key[1:] in _CODECS and isinstance(text, str):
            return _CODECS[key[1:]][2](text)
    return found


def write_rows(folder: Path, rows: Iterable[Mapping[str, Any]], *, limit: int | None = None) -> int:
    """Write all rows into numbered chunks; they count only once ``rows.json`` says how many there are.

    :param limit: read no more than this many.
    :returns: how many rows.
    """
    count, number, lines, size = 0, 0, list[str](), 0
    for row in rows:
        if limit is not None and count >= limit:
            break
        line = encode_row(row)
        lines.append(line)
        size += len(line)
        count += 1
        if len(lines) >= ROWS_PER_CHUNK or size >= BYTES_PER_CHUNK:
            _write_chunk(folder, number, lines)
            number, lines, size = number + 1, [], 0
    if lines:
        _write_chunk(folder, number, lines)
    return count


def read_rows(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the rows back with their positions."""
    position = 0
    for chunk in sorted(folder.glob("rows-*.jsonl")):
        with chunk.open(encoding="ascii") as lines:
            for line in lines:
                yield position, decode_row(line)
                position += 1


def _write_chunk(folder: Path, number: int, lines: list[str]) -> None:
    with (folder / f"rows-{number:06d}.jsonl").open("w", encoding="ascii") as out:
        out.write("\n".join(lines) + "\n")
