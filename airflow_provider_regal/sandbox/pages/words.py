"""Text shared by the pages: names, dates, badges, and the row of a request."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.clock import iso
from airflow_provider_regal.sandbox.journal import Entry
from airflow_provider_regal.sandbox.processing.consent import Channel, moment
from airflow_provider_regal.sandbox.processing.contacts import EMAIL_CHANNELS, PHONE_CHANNELS, Contact

CHANNEL_NAMES = {"sms": "SMS", "voice": "Voice", "email": "Email"}
TONES = {True: "good", False: "bad", None: "none"}


def thousands(number: int) -> str:
    """Format a number with separators: ``12,345``."""
    return f"{number:,}"


def day(text: str | None) -> str:
    """Format a timestamp as a day: ``2 Mar 2026``; unchanged if it can't be parsed."""
    read = moment(text)
    return (text or "") if read is None else f"{read.day} {read:%b %Y}"


def clock_time(wall: float, now: float) -> str:
    """Return the time of day, preceded by the day unless it is today."""
    then, today = datetime.fromtimestamp(wall, UTC), datetime.fromtimestamp(now, UTC)
    time = f"{then:%H:%M:%S}"
    return time if then.date() == today.date() else f"{then.day} {then:%b %Y}, {time}"


def who(contact: Contact) -> str:
    """Return a contact's display name: its name, else phone, email or user id."""
    return (
        contact.name
        or contact.primary["phone"]
        or contact.primary["email"]
        or contact.user_id
        or f"Contact {contact.id}"
    )


def badge(name: str, channel: Channel) -> dict[str, str]:
    """Summarize a consent: channel, status, since when."""
    status = channel.to_json()
    return {
        "channel": CHANNEL_NAMES[name],
        "status": status["status"],
        "since": f"since {day(status['since'])}" if status["since"] else "",
        "tone": TONES[channel.subscribed],
    }


def glance(contact: Contact) -> dict[str, Channel | None]:
    """Return the channels of the primary phone and the primary email; ``None`` where there is neither."""
    phone, email = contact.primary_point("phone"), contact.primary_point("email")
    return {
        **{name: phone.channels[name] if phone else None for name in PHONE_CHANNELS},
        **{name: email.channels[name] if email else None for name in EMAIL_CHANNELS},
    }


def answer_tone(answer: int | str) -> str:
    """Return whether an answer is a success."""
    text = str(answer)
    return "good" if text.startswith("2") else "bad" if text.isdecimal() and text < "500" else "warn"


def event_row(account: Account, entry: Entry, now: float) -> dict[str, Any]:
    """Return one request as the pages list it."""
    contact = None if entry.contact_id is None else account.directory.get(entry.contact_id)
    return {
        "number": entry.number,
        "time": clock_time(entry.received_at, now),
        "received_at": iso(entry.received_at),
        "name": entry.name,
        "what": entry.name or ("contact update" if entry.raw is not None else "no event"),
        "who": None if contact is None else who(contact),
        "contact_id": None if contact is None else contact.id,
        "hidden": contact is not None and not contact.visible,
        "answer": entry.answer,
        "tone": answer_tone(entry.answer),
        "stored": entry.stored,
        "rule": entry.rule,
        "waiting": entry.stored and not entry.processed,
        "findings": [(finding.text, "bad" if finding.group == "contract" else "warn") for finding in entry.findings],
        "body": None if entry.raw is None else json.dumps(entry.body, indent=2, ensure_ascii=False),
    }
