"""Format the ledger's numbers, times and identifiers for people."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any, Final

from airflow_provider_regal.ledger.text import from_ledger_time

_HASH_SHOWN: Final = 12
_DEFAULT_CONN_ID: Final = "regal_default"
_SPANS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))


def plural(number: int, one: str, many: str | None = None) -> str:
    """Format a count: ``1 row``, ``1,204 rows``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def time(at: str | None) -> str:
    """Write a time of the ledger without fractions: ``2026-11-29 08:00:05`` (UTC)."""
    return f"{at[:10]} {at[11:19]}" if at else "-"


def ago(at: str, now: datetime) -> str:
    """Format the age of a ledger time: ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    return duration(seconds_since(at, now))


def seconds_since(at: str, now: datetime) -> float:
    """Return the age of a ledger time in seconds."""
    return max((now - from_ledger_time(at)).total_seconds(), 0.0)


def duration(seconds: float) -> str:
    """Format seconds as ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    for unit, size in _SPANS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def identifier(text: str | None) -> str:
    """Format a stored phone, email or user id; shorten a hash to its beginning."""
    if text is None:
        return ""
    is_hash = len(text) == 64 and all(character in "0123456789abcdef" for character in text)
    return f"{text[:_HASH_SHOWN]}..." if is_hash else text


def one_line(text: Any) -> str:
    """Reduce a text to one line, without characters that could affect the terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def task_name(dag_id: str | None, task_id: str | None, map_index: int | None) -> str | None:
    """Format a task instance as ``dag_id.task_id[map_index]``; None outside a task."""
    name = ".".join(part for part in (dag_id, task_id) if part)
    if not name:
        return None
    return f"{name}[{map_index}]" if map_index is not None and map_index >= 0 else name


def redeliver_command(delivery: int, conn_id: str, *more: str) -> str:
    """Return the command that redelivers rows of a delivery.

    :param conn_id: the connection to send with; included only if it is not the command's default.
    """
    connection = () if conn_id == _DEFAULT_CONN_ID else ("--conn-id", conn_id)
    return shlex.join(("airflow", "regal", "redeliver", str(delivery), *more, *connection))
