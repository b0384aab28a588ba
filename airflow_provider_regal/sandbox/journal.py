"""A record of all requests, with details of the newest."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_regal.sandbox.clock import iso
from airflow_provider_regal.sandbox.processing.findings import Finding

UNANSWERED = "unanswered"


@dataclass(kw_only=True)
class Entry:
    """One ``POST /events``.

    :param answer: the status sent, or ``dropped``, ``reset``, ``hung``, ``unanswered``.
    :param raw: the body, compact; ``None`` if it was not a JSON object or not read at all.
    :param rule: number of the fault rule that decided the answer.
    :param contact_id: its profile, once processed.
    """

    number: int
    received_at: float
    answer: int | str
    stored: bool
    raw: bytes | None
    rule: int | None = None
    name: str | None = None
    processed: bool = False
    contact_id: int | None = None
    repeats: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def body(self) -> Any:
        """The body, parsed on each access: stored as text, it needs a fraction of the memory."""
        return None if self.raw is None else json.loads(self.raw)

    def to_json(self) -> dict[str, Any]:
        """As the side API shows it."""
        return {
            "number": self.number,
            "received_at": iso(self.received_at),
            "answer": self.answer,
            "stored": self.stored,
            "processed": self.processed,
            "fault": self.rule,
            "name": self.name,
            "contact": self.contact_id,
            "duplicate_of": self.repeats,
            "findings": [finding.to_json() for finding in self.findings],
            "body": self.body,
        }


class Journal:
    """The newest requests in detail, and exact counts of all.

    :param keep: maximum number of requests kept.
    :param keep_bytes: maximum bytes of bodies kept.
    """

    def __init__(self, keep: int, keep_bytes: int) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self.forgotten = 0
        self.stored = 0
        self.by_answer: Counter[int | str] = Counter()

    def add(self, entry: Entry) -> None:
        """Store and count a request; drop the oldest if there are too many."""
        self._entries[entry.number] = entry
        self._bytes += len(entry.raw or b"")
        self.by_answer[entry.answer] += 1
        self.stored += entry.stored
        while len(self._entries) > self._keep or (self._bytes > self._keep_bytes and len(self._entries) > 1):
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest.raw or b"")
            self.forgotten += 1

    def unanswered(self, entry: Entry) -> None:
        """Record that the connection ended before the answer was sent."""
        self.by_answer[entry.answer] -= 1
        entry.answer = UNANSWERED
        self.by_answer[entry.answer] += 1

    def get(self, number: int) -> Entry | None:
        """Return the request of that number, if it is still kept."""
        return self._entries.get(number)

    def after(self, number: int) -> list[Entry]:
        """List requests with a higher number, newest last."""
        newer = []
        for entry in reversed(self._entries.values()):
            if entry.number <= number:
                break
            newer.append(entry)
        return newer[::-1]

    def newest_first(self) -> Iterator[Entry]:
        """List requests, the newest at the front."""
        return reversed(self._entries.values())

    def counts(self) -> dict[str, int]:
        """Count requests by answer."""
        return {str(answer): count for answer, count in sorted(self.by_answer.items(), key=str) if count}
