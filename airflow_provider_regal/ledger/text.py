"""Text and times in a form that every database can store and compare. Does not import SQLAlchemy."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

LONGEST_KEY: Final = 200
LONGEST_NAME: Final = 500
#: ``2026-11-24T02:08:07.123456Z``
TIME_LENGTH: Final = 27


def short(text: str, longest: int = LONGEST_KEY) -> str:
    """Return the text, or its SHA-256 if a database could not store or compare it unchanged."""
    if len(text) <= longest and text.isascii() and text.isprintable() and text[:1] != " " != text[-1:]:
        return text  # which is usual, and quicker
    encoded = text.encode("utf-8", "surrogatepass")
    if len(text) <= longest and text == text.strip() and "\0" not in text and encoded.decode("utf-8", "ignore") == text:
        return text
    return hashlib.sha256(encoded).hexdigest()


def fit(text: str, longest: int) -> str:
    """Return a text for people, cut to fit a column, without characters that no database stores."""
    kept = text.encode("utf-8", "replace").decode().replace("\0", " ")
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


def to_ledger_time(moment: datetime) -> str:
    """Format a time so that it sorts as text: UTC, microseconds, always the same length.

    :raises ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time of the ledger needs a time zone")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # Called twice for each row: isoformat would take three times as long.
    second = _to_the_second(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return f"{second}.{moment.microsecond:06}Z"


@lru_cache(maxsize=16)
def _to_the_second(*parts: int) -> str:
    return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*parts)


def from_ledger_time(text: str) -> datetime:
    """Parse a time of the ledger, in UTC."""
    return datetime.fromisoformat(text)
