"""The content of the page of one contact, computed from the account; no HTML here."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.pages.words import CHANNEL_NAMES, TONES, badge, clock_time, event_row, glance, who
from airflow_provider_regal.sandbox.processing.consent import Channel, is_older
from airflow_provider_regal.sandbox.processing.contacts import Contact, Point

_STANDARD = {"firstName": "First name", "lastName": "Last name", "address": "Address", "subBrand": "Sub-brand"}


def contact(account: Account, found: Contact) -> dict[str, Any]:
    """Fill the page of one contact."""
    now = account.clock.wall()
    entries = [account.journal.get(number) for number in reversed(found.activity)]
    kept = [event_row(account, entry, now) for entry in entries if entry is not None]
    return {
        "active": "audience",
        "title": who(found),
        "contact": found,
        "visible": found.visible,
        "badges": [badge(name, channel) for name, channel in glance(found).items() if channel is not None],
        "created": clock_time(found.created_at, 0),
        "changed": clock_time(found.changed_at, 0),
        "traits": [_trait(name, value) for name, value in found.traits.items()],
        "points": _points(found),
        "entries": kept,
        "not_shown": len(found.activity) - len(kept),
    }


def _points(contact: Contact) -> list[dict[str, Any]]:
    points = [(kind, point) for kind, known in contact.points.items() for point in known.values()]
    # Phones before emails, the primary one of each first.
    points.sort(key=lambda item: (item[0] == "email", item[1].value != contact.primary[item[0]]))
    return [_point(kind, point, point.value == contact.primary[kind]) for kind, point in points]


def _trait(name: str, value: object) -> dict[str, str]:
    if isinstance(value, str):
        text = value
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    elif name == "address" and isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        text = ", ".join(value.values())
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    return {"name": _STANDARD.get(name, name), "key": name, "value": text}


def _point(kind: str, point: Point, is_primary: bool) -> dict[str, Any]:
    return {
        "kind": "Phone" if kind == "phone" else "Email",
        "value": point.value,
        "label": point.label,
        "is_primary": is_primary,
        "channels": [
            {"name": CHANNEL_NAMES[name], "badge": badge(name, channel), "history": _history(channel)}
            for name, channel in point.channels.items()
        ],
    }


def _history(channel: Channel) -> list[dict[str, Any]]:
    """Return all consents that were sent, the current one first."""
    said = list(channel.history)
    before = [None, *said][: len(said)]
    return [
        {
            **recorded.to_json(),
            "yes": recorded.consent.subscribed,
            "tone": TONES[recorded.consent.subscribed],
            "older": earlier is not None and is_older(recorded.consent, earlier.consent),
        }
        for recorded, earlier in reversed([*zip(said, before, strict=True)])
    ]
