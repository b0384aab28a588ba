"""Read a body as leniently as Regal does: what can't be used is left out, and becomes a finding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_regal.sandbox.processing.consent import Consent
from airflow_provider_regal.sandbox.processing.findings import Finding
from airflow_provider_regal.sandbox.processing.phones import e164

_MAP_CHANNELS = {"phone": {"smsOptIn": "sms", "voiceOptIn": "voice"}, "email": {"emailOptIn": "email"}}
_LEGACY_CHANNELS = {"sms": "phone", "voice": "phone", "email": "email"}
_NOT_ATTRIBUTES = {"phones", "emails", "phone", "email", "optIn"}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass
class Mention:
    """A usable phone or email of a body.

    :param promote: it becomes the primary one.
    :param legacy: it came as ``phone`` or ``email``.
    """

    value: str
    label: str | None = None
    promote: bool = False
    legacy: bool = False
    consents: list[tuple[str, Consent]] = field(default_factory=list)


@dataclass
class Reading:
    """A parsed body."""

    user_id: str | None = None
    name: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    mentions: dict[str, dict[str, Mention]] = field(default_factory=lambda: {"phone": {}, "email": {}})
    findings: list[Finding] = field(default_factory=list)

    @property
    def identifies(self) -> bool:
        """Whether it has an identifier."""
        return self.user_id is not None or any(self.mentions.values())

    def found(self, kind: str, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, text))


def read(body: dict[str, Any]) -> Reading:
    """Parse a body: its identifiers, attributes, consents and event."""
    traits = _object(body.get("traits"))
    reading = Reading(
        user_id=_text(body.get("userId")),
        name=_text(body.get("name")),
        attributes={key: value for key, value in traits.items() if key not in _NOT_ATTRIBUTES},
        properties=_object(body.get("properties")),
    )
    for kind in ("phone", "email"):
        _read_map(reading, kind, _object(traits.get(f"{kind}s")))
        _read_legacy_point(reading, kind, _text(traits.get(kind)))
    _read_legacy_consents(reading, traits.get("optIn"))
    return reading


def _read_map(reading: Reading, kind: str, given: dict[str, Any]) -> None:
    for text, info in given.items():
        details = _object(info)
        statements = list(_map_statements(kind, details))
        value = _usable(reading, kind, text)
        if value is None:
            for channel, _ in statements:
                if kind == "phone":
                    reading.found("opt_in_on_invalid_number", f"{channel} opt-in on an invalid number: {text}")
            continue
        mention = reading.mentions[kind].setdefault(value, Mention(value))
        mention.label = _text(details.get("label")) or mention.label
        mention.promote = mention.promote or details.get("isPrimary") is True
        for channel, statement in statements:
            _read_consent(reading, mention, channel, statement, form="map")


def _map_statements(kind: str, details: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, channel in _MAP_CHANNELS[kind].items():
        if key in details:
            yield channel, _object(details[key])


def _read_legacy_point(reading: Reading, kind: str, text: str | None) -> None:
    value = None if text is None else _usable(reading, kind, text)
    if value is not None:
        mention = reading.mentions[kind].setdefault(value, Mention(value))
        mention.promote = mention.legacy = True


def _read_legacy_consents(reading: Reading, given: object) -> None:
    for entry in given if isinstance(given, list) else []:
        statement = _object(entry)
        channel = statement.get("channel")
        kind = _LEGACY_CHANNELS.get(channel) if isinstance(channel, str) else None
        if kind is None or not isinstance(channel, str):
            reading.found("opt_in_ignored", "legacy opt-in ignored: its channel is none of sms, voice, email")
        elif _text(statement.get("timestamp")) is None:
            reading.found("opt_in_without_timestamp", f"legacy {channel} opt-in without timestamp: ignored")
        else:
            # It belongs to the phone or email of the same call: the legacy one if there is one, else those of the map.
            mentions = list(reading.mentions[kind].values())
            targets = [mention for mention in mentions if mention.legacy] or mentions
            if not targets:
                reading.found("opt_in_ignored", f"legacy {channel} opt-in ignored: no {kind} in the same call")
            for mention in targets:
                _read_consent(reading, mention, channel, statement, form="legacy")


def _read_consent(reading: Reading, mention: Mention, channel: str, statement: dict[str, Any], *, form: str) -> None:
    subscribed = statement.get("subscribed")
    if not isinstance(subscribed, bool):
        reading.found("opt_in_ignored", f"{channel} opt-in of {mention.value} ignored: subscribed is not a boolean")
        return
    consent = Consent(
        subscribed=subscribed,
        timestamp=_text(statement.get("timestamp")),
        ip=_text(statement.get("ip")),
        text=_text(statement.get("text")),
        source=_text(statement.get("source")),
        form=form,
    )
    mention.consents.append((channel, consent))
    # Only a subscription needs evidence; an opt-out needs none.
    if subscribed and consent.timestamp is None:
        reading.found("opt_in_without_timestamp", f"{channel} opt-in of {mention.value} without timestamp")
    if subscribed and consent.ip is None:
        reading.found("opt_in_without_ip", f"{channel} opt-in of {mention.value} without ip")


def _usable(reading: Reading, kind: str, text: str) -> str | None:
    if kind == "phone":
        number = e164(text)
        if number is None:
            reading.found("number_dropped", f"dropped, not a valid phone number: {text}")
        return number
    address = text.strip().lower()
    if _EMAIL.fullmatch(address):
        return address
    reading.found("email_dropped", f"dropped, not an email address: {text}")
    return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
