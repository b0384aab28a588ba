"""What commands print: aligned tables, numbers and times for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from airflow_provider_regal.ledger.text import from_ledger_time

_HASH_SHOWN: Final = 12
_UNITS: Final = ("KB", "MB", "GB", "TB")


class Column(NamedTuple):
    """A column of a table.

    :param right: numbers stand at its right.
    """

    title: str
    right: bool = False


def draw(columns: Sequence[Column], rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> Iterable[str]:
    """Draw a table line by line, its titles first.

    :param widths: of the columns, where not all rows can be looked at.
    """
    if not widths:
        rows = list(rows)
        widths = widths_of(columns, rows)
    yield _line(columns, widths, [column.title for column in columns])
    for row in rows:
        yield _line(columns, widths, row)


def widths_of(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[int]:
    """Return how wide each column has to be."""
    widths = [len(column.title) for column in columns]
    for row in rows:
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    return widths


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    )
    return "  ".join(padded).rstrip()


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write ``1 row``, ``1,204 rows``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def time(at: str | None) -> str:
    """Write a time of the ledger without fractions: ``2026-11-29 08:00:05`` (UTC)."""
    return "-" if at is None else f"{at[:10]} {at[11:19]}"


def ago(at: str, now: datetime) -> str:
    """Write how long ago a time of the ledger was: ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    seconds = max((now - from_ledger_time(at)).total_seconds(), 0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(number: int | None) -> str:
    """Write a number of bytes: ``812 B``, ``1.4 MB``."""
    if number is None:
        return "-"
    if number < 1_000:
        return f"{number} B"
    value = float(number)
    for unit in _UNITS:
        value /= 1_000
        if value < 999.95 or unit == _UNITS[-1]:
            break
    return f"{value:,.1f} {unit}"


def identifier(text: str | None) -> str:
    """Write a phone, email or user id as it is stored; of a hash, its beginning."""
    if text is None:
        return ""
    is_hash = len(text) == 64 and all(character in "0123456789abcdef" for character in text)
    return f"{text[:_HASH_SHOWN]}..." if is_hash else text


def one_line(text: Any) -> str:
    """Write a text on one line, without characters that could change the terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def capitalized(text: str) -> str:
    """Begin a sentence with it."""
    return text[:1].upper() + text[1:]
