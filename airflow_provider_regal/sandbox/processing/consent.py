"""Consent of one phone or email on one channel: current status, evidence, and history."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_regal.sandbox.clock import iso

_KEEP_HISTORY = 100
_EVIDENCE = ("status", "timestamp", "ip", "text", "source", "form", "received_at", "event")


@dataclass(frozen=True, kw_only=True)
class Consent:
    """One statement about consent, with its evidence.

    :param subscribed: yes or no.
    :param form: ``map`` (phones, emails) or ``legacy`` (the optIn array).
    """

    subscribed: bool
    timestamp: str | None = None
    ip: str | None = None
    text: str | None = None
    source: str | None = None
    form: str = "map"


@dataclass(frozen=True)
class Recorded:
    """A statement, with the time and number of its request."""

    consent: Consent
    received_at: float
    event: int

    def to_json(self) -> dict[str, Any]:
        """As the side API shows it."""
        given = self.consent
        return {
            "status": label(given.subscribed),
            "timestamp": given.timestamp,
            "ip": given.ip,
            "text": given.text,
            "source": given.source,
            "form": given.form,
            "received_at": iso(self.received_at),
            "event": self.event,
        }


def label(subscribed: bool | None) -> str:
    """Regal's terms for a status."""
    return {None: "No Status", True: "Subscribed", False: "Unsubscribed"}[subscribed]


@dataclass
class Channel:
    """The statement *received* last applies, whatever its date: how Regal compares dates is not documented."""

    history: deque[Recorded] = field(default_factory=lambda: deque(maxlen=_KEEP_HISTORY))
    _since: Recorded | None = None

    @property
    def subscribed(self) -> bool | None:
        """Yes, no, or never stated."""
        return self.history[-1].consent.subscribed if self.history else None

    def record(self, recorded: Recorded) -> bool:
        """Record a statement; return whether it is older, by its own date, than the one it replaces."""
        before = self.history[-1].consent if self.history else None
        if before is None or before.subscribed != recorded.consent.subscribed:
            self._since = recorded
        self.history.append(recorded)
        return before is not None and is_older(recorded.consent, before)

    def to_json(self) -> dict[str, Any]:
        """As the side API shows it: status, evidence, history (newest last)."""
        if not self.history or self._since is None:
            return {**dict.fromkeys(_EVIDENCE), "status": label(None), "since": None, "history": []}
        return {
            **self.history[-1].to_json(),
            "since": self._since.consent.timestamp or iso(self._since.received_at),
            "history": [recorded.to_json() for recorded in self.history],
        }


def is_older(new: Consent, old: Consent) -> bool:
    """Return whether a statement is older than another, by their own dates."""
    given, held = moment(new.timestamp), moment(old.timestamp)
    return given is not None and held is not None and given < held


def moment(text: str | None) -> datetime | None:
    """Parse a timestamp in any documented form; without a zone it is in UTC."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
