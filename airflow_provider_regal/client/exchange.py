"""What the result of a send attempt means, whether to retry it, and how long to wait. Does no I/O.

====================================================  ===============  ==========================
what happened                                         meaning          sent again
====================================================  ===============  ==========================
2xx                                                   acknowledged     no
401, 403                                              unauthorized     no, everything stops
400, 404, 405, 413, 415, 422                          refused          no
429; 503 with Retry-After; failed before the body     not applied      always
anything else: 5xx, odd codes, no or half an answer   unknown          only under at_least_once
====================================================  ===============  ==========================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.client.redact import one_line

_REFUSED: Final = frozenset({400, 404, 405, 413, 415, 422})
_UNAUTHORIZED: Final = frozenset({401, 403})
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503

# Full jitter, doubling: 0-1 s, 0-2 s, ... 0-60 s, so the first retry comes quickly.
_BASE_S: Final = 1.0
_LONGEST_S: Final = 60.0
# Cap for the header; the caller's patience may end the wait sooner.
LONGEST_RETRY_AFTER_S: Final = 300.0
_LONGEST_BELIEVED_S: Final = 86_400.0
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")

# Longer than what is shown: personal data must be found and masked before the text is cut.
_LONGEST_MESSAGE: Final = 2_000
_DEEPEST_MESSAGE: Final = 5


class Meaning(StrEnum):
    """What became of the event."""

    ACKNOWLEDGED = "acknowledged"
    NOT_APPLIED = "not_applied"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """Regal answered.

    :param headers: with lower-case names.
    :param excerpt: the start of the body, any shape.
    """

    status: int
    headers: Mapping[str, str]
    excerpt: bytes = b""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Regal did not answer.

    :param before_body: nothing of the event had been written, so it can't have been applied.
    :param reason: what happened, in words.
    :param cause: the operating system's error, for the traceback.
    :param held_back: the event was held back on our side, so no answer was possible.
    """

    before_body: bool
    reason: str
    cause: OSError | None = None
    held_back: bool = False


Attempt = Answer | NoAnswer


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do after an attempt.

    :param retry: whether the same event may be sent again.
    :param wait_s: seconds to wait before that.
    :param reason: what happened, in words and without personal data; Regal's own message is in ``said``.
    :param said: Regal's message; it may echo what we sent, so pass it through ``redact`` before showing it.
    :param retry_after_s: the wait Regal asked for, if any; at most a day. ``wait_s`` follows it up to 300 s.
    :param pauses: whether all senders of this connection must wait (429).
    :param cause: the operating system's error, if there was no answer.
    """

    meaning: Meaning
    reason: str
    retry: bool = False
    wait_s: float = 0.0
    said: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    pauses: bool = False
    cause: OSError | None = None


def acknowledges(attempt: Attempt) -> bool:
    """Return whether Regal acknowledged the event, so that nothing is left to decide."""
    return isinstance(attempt, Answer) and 200 <= attempt.status < 300


def decide(attempt: Attempt, *, guarantee: Guarantee, tries: int, jitter: float, now: datetime) -> Decision:
    """Decide what an attempt means and what to do next.

    :param guarantee: whether an event that may have arrived may be sent again.
    :param tries: attempts so far, including this one.
    :param jitter: a random number from 0 to 1.
    :param now: the current time (aware), for a ``Retry-After`` that is a date.
    """
    if isinstance(attempt, NoAnswer):
        meaning = Meaning.NOT_APPLIED if attempt.before_body else Meaning.UNKNOWN
        return _decision(meaning, attempt.reason, guarantee, tries, jitter, cause=attempt.cause)
    if acknowledges(attempt):
        return Decision(Meaning.ACKNOWLEDGED, f"HTTP {attempt.status}", status=attempt.status)
    retry_after_s = read_retry_after(attempt.headers.get("retry-after"), now)
    meaning = _meaning(attempt.status, asked_to_wait=retry_after_s is not None)
    return _decision(
        meaning,
        f"HTTP {attempt.status}",
        guarantee,
        tries,
        jitter,
        said=read_message(attempt.excerpt),
        status=attempt.status,
        retry_after_s=retry_after_s,
    )


def _meaning(status: int, *, asked_to_wait: bool) -> Meaning:
    if status in _UNAUTHORIZED:
        return Meaning.UNAUTHORIZED
    if status in _REFUSED:
        return Meaning.REFUSED
    if status == _TOO_MANY or (status == _UNAVAILABLE and asked_to_wait):
        return Meaning.NOT_APPLIED
    return Meaning.UNKNOWN


def _decision(
    meaning: Meaning,
    reason: str,
    guarantee: Guarantee,
    tries: int,
    jitter: float,
    *,
    said: str = "",
    status: int | None = None,
    retry_after_s: float | None = None,
    cause: OSError | None = None,
) -> Decision:
    retry = meaning is Meaning.NOT_APPLIED or (meaning is Meaning.UNKNOWN and guarantee == "at_least_once")
    back_off_s = jitter * min(_LONGEST_S, _BASE_S * 2 ** min(tries - 1, 10))
    return Decision(
        meaning=meaning,
        reason=reason,
        retry=retry,
        wait_s=max(back_off_s, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S)) if retry else 0.0,
        said=said,
        status=status,
        retry_after_s=retry_after_s,
        pauses=status == _TOO_MANY,
        cause=cause,
    )


def read_retry_after(header: str | None, now: datetime) -> float | None:
    """Parse ``Retry-After``: seconds or an HTTP date. None if absent or unreadable; capped at a day."""
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_BELIEVED_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):  # all of these come from the standard library's parser
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max((when - now).total_seconds(), 0.0), _LONGEST_BELIEVED_S)


def read_message(excerpt: bytes) -> str:
    """Extract Regal's message from any body: either error envelope, a list, a quoted string, HTML, nothing."""
    text = excerpt.decode("utf-8-sig", "replace").strip()
    try:
        body: Any = json.loads(text)
        if isinstance(body, str) and body.lstrip().startswith(("{", "[")):  # a JSON document inside a JSON string
            body = json.loads(body)
    except (ValueError, RecursionError):
        return "an HTML page" if text.startswith("<") else one_line(text, _LONGEST_MESSAGE)
    return one_line(_words_of(body), _LONGEST_MESSAGE)


def _words_of(body: Any, depth: int = 0) -> str:
    if body is None or depth > _DEEPEST_MESSAGE:
        return ""
    if isinstance(body, list):
        words = [_words_of(item, depth + 1) for item in body[:5]]
        return "; ".join(word for word in words if word)
    if isinstance(body, dict):
        words = [_words_of(body.get(key), depth + 1) for key in ("message", "error")]
        return ", ".join(word for word in words if word)
    return str(body)
