"""Text and times in a form that every database can store and compare. Does not import SQLAlchemy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

LONGEST_KEY: Final = 200
LONGEST_NAME: Final = 500
#: ``2026-11-24T02:08:07.123456Z``
TIME_LENGTH: Final = 27


def short(text: str, longest: int = LONGEST_KEY) -> str:
    """Return the text, or its SHA-256 if a database could not store or compare it unchanged."""
    if len(text) <= longest and text.isascii() and text.isprintable() and " " not in text:
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
    # Called for each consent: isoformat would take three times as long.
    second = _to_the_second(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return f"{second}.{moment.microsecond:06}Z"


@lru_cache(maxsize=16)
def _to_the_second(*parts: int) -> str:
    return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*parts)


class Moments:
    """Formats the present as a time of the ledger, a few times as fast as :func:`to_ledger_time`.

    It reads the clock once a second and adds what has passed since.

    :param now: returns the current time (aware).
    :param monotonic: returns monotonic seconds.
    """

    def __init__(self, *, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now, self._monotonic = now, monotonic
        self._second, self._began, self._ends = "", 0.0, float("-inf")

    def at(self, monotonic: float) -> str:
        """Format a moment that has just passed.

        :param monotonic: the moment, in monotonic seconds.
        """
        if monotonic >= self._ends:
            now = self._now()
            self._second, _, _ = to_ledger_time(now).partition(".")
            self._began = self._monotonic() - now.microsecond / 1e6
            self._ends = self._began + 1
        microseconds = int((monotonic - self._began) * 1e6)
        return f"{self._second}.{max(microseconds, 0):06}Z"


def from_ledger_time(text: str) -> datetime:
    """Parse a time of the ledger, in UTC."""
    return datetime.fromisoformat(text)
