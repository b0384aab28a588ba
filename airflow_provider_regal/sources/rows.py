"""The rows that sources return: each has a place and contains only Python types."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from airflow_provider_regal import events
from airflow_provider_regal.ledger.rows import MOST_VALUES, as_stored, members_of, name_of
from airflow_provider_regal.sources.marks import EVENT_MARK, MARKS, ORIGIN_MARK, REJECT_MARK, ROW_MARK, Marked


def row_of(columns: Mapping[str, Any], origin: str) -> Marked:
    """Return a row that knows its place.

    :param columns: name -> value.
    :param origin: where the row comes from, such as ``lessons.csv line 7``; reports and dead letters show it.
    """
    return Marked({ORIGIN_MARK: origin, ROW_MARK: columns})


def bad_row(what: str, reason: str, origin: str, kept: Mapping[str, Any] | None = None) -> Marked:
    """Return a rejected row for a value that is not a row.

    :param what: the place of the fault, such as ``the line`` or a column.
    :param reason: what is wrong with it, without values.
    :param origin: as of :func:`row_of`.
    :param kept: what to keep of it, in addition to the reason.
    """
    return Marked({ORIGIN_MARK: origin, REJECT_MARK: [[what, reason]], ROW_MARK: dict(kept or {})})


def as_row(given: Any) -> Mapping[str, Any]:
    """Convert an item of a source into a row, so that all rows are stored in the same way.

    :param given: a dictionary, a row that knows its columns (SQLAlchemy, sqlite3, a named tuple), or an event.
    :returns: the row; a rejected row if the item is none of these or raises when it is read.
    """
    kind = type(given)
    if kind is Marked:
        row: Mapping[str, Any] = given
        return row
    is_event = kind is not dict and issubclass(kind, events.Event)
    try:
        if is_event:
            given = members_of(given)
        elif kind is not dict and not issubclass(kind, Mapping):
            given = _named(given)
        stored = as_stored(given)
    except Exception:  # noqa: BLE001 - an object of a source can raise anything
        stored = name_of(kind)
    if isinstance(stored, str):
        return Marked({REJECT_MARK: [["the row", f"{_NO_ROW}; a {stored} can't be read as one"]], ROW_MARK: {}})
    if is_event:
        return Marked({EVENT_MARK: kind.call, ROW_MARK: stored})
    return stored if MARKS.isdisjoint(stored) else {ROW_MARK: stored}


_NO_ROW: Final = "must be a dictionary of columns, or an event"


def _named(given: Any) -> Any:
    if callable(as_dict := getattr(given, "_asdict", None)):
        return as_dict()
    return {name: given[name] for name in islice(given.keys(), MOST_VALUES + 1)}
