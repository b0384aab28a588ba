"""Format the output of commands: aligned tables and sizes, and everything in ``formats``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from airflow_provider_regal.ledger.formats import ago, identifier, one_line, plural, time

__all__ = ["Column", "ago", "capitalized", "draw", "identifier", "one_line", "plural", "size", "time", "widths_of"]
_UNITS: Final = ("KB", "MB", "GB", "TB")


class Column(NamedTuple):
    """A column of a table.

    :param right: right-align its values.
    """

    title: str
    right: bool = False


def draw(columns: Sequence[Column], rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> Iterable[str]:
    """Format a table line by line, the header first.

    :param widths: of the columns, if not all rows can be examined.
    """
    if not widths:
        rows = list(rows)
        widths = widths_of(columns, rows)
    yield _line(columns, widths, [column.title for column in columns])
    for row in rows:
        yield _line(columns, widths, row)


def widths_of(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of each column."""
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


def size(number: int | None) -> str:
    """Format a number of bytes: ``812 B``, ``1.4 MB``."""
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


def capitalized(text: str) -> str:
    """Capitalize the first letter of a sentence."""
    return text[:1].upper() + text[1:]
