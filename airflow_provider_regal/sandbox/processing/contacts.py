"""A profile as Regal stores it: identifiers, attributes, and the consent of every phone and email."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_regal.sandbox.clock import iso
from airflow_provider_regal.sandbox.processing.consent import Channel

PHONE_CHANNELS = ("sms", "voice")
EMAIL_CHANNELS = ("email",)
_KEEP_ACTIVITY = 200


@dataclass
class Point:
    """A phone or an email of a profile, with one consent per channel.

    :param channels: ``sms`` and ``voice`` for a phone, ``email`` for an email.
    """

    value: str
    added_at: float
    channels: dict[str, Channel]
    label: str | None = None

    def to_json(self, *, is_primary: bool) -> dict[str, Any]:
        """As the side API shows it."""
        return {
            "label": self.label,
            "is_primary": is_primary,
            "added_at": iso(self.added_at),
            **{name: channel.to_json() for name, channel in self.channels.items()},
        }


def new_point(kind: str, value: str, now: float) -> Point:
    """Make a phone or email without any data."""
    names = PHONE_CHANNELS if kind == "phone" else EMAIL_CHANNELS
    return Point(value=value, added_at=now, channels={name: Channel() for name in names})


@dataclass
class Contact:
    """One profile; a *contact* once it has a phone or an email, hidden until then."""

    id: int
    created_at: float
    changed_at: float
    user_id: str | None = None
    former_user_ids: list[str] = field(default_factory=list)
    traits: dict[str, Any] = field(default_factory=dict)
    points: dict[str, dict[str, Point]] = field(default_factory=lambda: {"phone": {}, "email": {}})
    primary: dict[str, str | None] = field(default_factory=lambda: {"phone": None, "email": None})
    activity: deque[int] = field(default_factory=lambda: deque(maxlen=_KEEP_ACTIVITY))

    @property
    def visible(self) -> bool:
        """Whether it is shown in the Audience."""
        return any(self.points.values())

    @property
    def name(self) -> str:
        """First and last name if known, else a trait called name."""
        parts = [self.traits.get("firstName"), self.traits.get("lastName")]
        known = " ".join(part for part in parts if isinstance(part, str) and part)
        other = self.traits.get("name")
        return known or (other if isinstance(other, str) else "")

    def primary_point(self, kind: str) -> Point | None:
        """Return the phone or email that journeys use."""
        value = self.primary[kind]
        return None if value is None else self.points[kind][value]

    def to_json(self) -> dict[str, Any]:
        """As the side API shows it."""
        return {
            "id": self.id,
            "visible": self.visible,
            "name": self.name,
            "user_id": self.user_id,
            "former_user_ids": list(self.former_user_ids),
            "primary_phone": self.primary["phone"],
            "primary_email": self.primary["email"],
            "phones": self._points_json("phone"),
            "emails": self._points_json("email"),
            "traits": dict(self.traits),
            "created_at": iso(self.created_at),
            "changed_at": iso(self.changed_at),
            "events": list(self.activity),
        }

    def _points_json(self, kind: str) -> dict[str, Any]:
        primary = self.primary[kind]
        return {value: point.to_json(is_primary=value == primary) for value, point in self.points[kind].items()}
