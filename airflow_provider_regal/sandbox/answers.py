"""The answers on the wire: plain acceptance, refusals, and the results of scripted faults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from math import ceil
from typing import Literal

from airflow_provider_regal.sandbox.faults import Do

Way = Literal["answer", "slow_body", "drop", "reset", "hang"]
_LABELS: dict[Way, str] = {"drop": "dropped", "reset": "reset", "hang": "hung"}
_OK = b'{"message":"ok"}'
_JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, or the way in which it is missing."""

    status: int = 200
    body: bytes = _OK
    content_type: str = _JSON
    retry_after: str | None = None
    way: Way = "answer"
    delay_ms: float = 0
    store: bool = True
    rule: int | None = None

    @property
    def label(self) -> int | str:
        """The label for counting: the status, or a word if no status was sent."""
        return _LABELS.get(self.way, self.status)

    @property
    def accepted(self) -> bool:
        """Whether it counts against the rate limit: everything that was not refused with a 4xx."""
        return self.way != "answer" or not 400 <= self.status < 500


def refused(status: int, *, retry_after: int | None = None) -> Answer:
    """Refuse a request as documented: 400 and 401 without a body, the others with JSON."""
    body, content_type = body_of("empty" if status in (400, 401) else "json", status)
    return Answer(
        status=status,
        body=body,
        content_type=content_type,
        retry_after=None if retry_after is None else str(retry_after),
        store=False,
    )


def scripted(do: Do, rule: int, *, wall: float) -> Answer:
    """Convert a rule's action into an answer.

    :param wall: the current time, for a ``Retry-After`` that is a date.
    """
    delay_ms = do.delay_ms or 0
    if do.drop:
        return Answer(way="drop", store=do.store is not False, delay_ms=delay_ms, rule=rule)
    if do.reset:
        return Answer(way="reset", store=False, delay_ms=delay_ms, rule=rule)
    if do.hang:
        return Answer(way="hang", store=bool(do.store), delay_ms=delay_ms, rule=rule)
    if do.slow_body:
        return Answer(way="slow_body", store=do.store is not False, delay_ms=do.delay_ms or 200, rule=rule)
    status = do.status or 200
    good = 200 <= status < 300
    body, content_type = body_of(do.body or ("empty" if status in (400, 401) else "json"), status)
    return Answer(
        status=status,
        body=body,
        content_type=content_type,
        retry_after=_retry_after(do.retry_after, wall),
        delay_ms=delay_ms,
        store=good if do.store is None else do.store,
        rule=rule,
    )


def body_of(kind: str, status: int) -> tuple[bytes, str]:
    """Make the body and content type of a status, in one of the shapes seen on Regal's endpoints."""
    phrase = _phrase(status)
    good = 200 <= status < 300
    gateway = _OK if good else _dumps({"message": phrase})
    if kind.startswith("text:"):
        return kind.removeprefix("text:").encode(errors="replace"), "text/plain"
    if kind == "empty":
        return b"", "text/plain"
    if kind == "html":
        page = f"<html><head><title>{status} {phrase}</title></head><body><h1>{status} {phrase}</h1></body></html>"
        return page.encode(), "text/html"
    if kind == "list":
        return _dumps({"statusCode": status, "message": [phrase], "error": phrase}), _JSON
    if kind == "quoted":
        return _dumps(gateway.decode()), _JSON
    if status == 403:
        return _dumps({"statusCode": 403, "message": "Invalid API Key", "error": "Forbidden"}), _JSON
    return gateway, _JSON


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _retry_after(value: int | str | None, wall: float) -> str | None:
    if isinstance(value, str):
        # An HTTP date has whole seconds only; rounded up, so that it never asks for less than was scripted.
        return formatdate(ceil(wall + int(value.removeprefix("http-date:"))), usegmt=True)
    return None if value is None else str(value)
