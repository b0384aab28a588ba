"""What the pages show, computed from the account; no HTML here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.clock import iso
from airflow_provider_regal.sandbox.consent import Channel, Recorded, label, moment
from airflow_provider_regal.sandbox.contacts import EMAIL_CHANNELS, PHONE_CHANNELS, Contact, Point
from airflow_provider_regal.sandbox.faults import describe
from airflow_provider_regal.sandbox.findings import counted
from airflow_provider_regal.sandbox.journal import Entry

CONTACTS_PER_PAGE = 50
EVENTS_PER_PAGE = 50
_CHANNEL_NAMES = {"sms": "SMS", "voice": "Voice", "email": "Email"}
_TONES = {True: "good", False: "bad", None: "none"}
_STANDARD = {
    "firstName": "First name",
    "lastName": "Last name",
    "address": "Address",
    "subBrand": "Sub-brand",
}


def thousands(number: int) -> str:
    """Write a number easy to read: ``12,345``."""
    return f"{number:,}"


def day(text: str | None) -> str:
    """Write a timestamp as a day: ``2 Mar 2026``; as it is when it cannot be read."""
    read = moment(text)
    return (text or "") if read is None else f"{read.day} {read:%b %Y}"


def clock_time(wall: float, now: float) -> str:
    """Say when something happened: the time of day, with the day in front unless it is today's."""
    then, today = datetime.fromtimestamp(wall, UTC), datetime.fromtimestamp(now, UTC)
    time = f"{then:%H:%M:%S}"
    return time if then.date() == today.date() else f"{then.day} {then:%b %Y}, {time}"


def audience(account: Account, *, search: str, page: int) -> dict[str, Any]:
    """Fill the Audience page."""
    now = account.clock.wall()
    everyone = account.contacts()
    wanted = [contact for contact in everyone if _matches(contact, search)] if search else everyone
    pages = max(1, -(-len(wanted) // CONTACTS_PER_PAGE))
    page = min(max(page, 1), pages)
    shown = wanted[(page - 1) * CONTACTS_PER_PAGE : page * CONTACTS_PER_PAGE]
    stats = account.stats()
    return {
        "active": "audience",
        "title": "Audience",
        "search": search,
        "found": len(wanted),
        "totals": [
            ("Contacts", stats["contacts"]),
            *((f"{_CHANNEL_NAMES[channel]} subscribed", count) for channel, count in _subscribed(everyone).items()),
            ("Events stored", stats["stored"]),
        ],
        "hidden": counted(stats["hidden_profiles"], "profile", "profiles") if stats["hidden_profiles"] else "",
        "forgotten": stats["forgotten"],
        "contacts": [_contact_row(contact, now) for contact in shown],
        "page": page,
        "pages": pages,
        "previous": _page_link(search, page - 1) if page > 1 else "",
        "next": _page_link(search, page + 1) if page < pages else "",
    }


def _page_link(search: str, page: int) -> str:
    return "/?" + urlencode({"search": search, "page": page} if search else {"page": page})


def _matches(contact: Contact, search: str) -> bool:
    wanted = search.casefold()
    digits = "".join(character for character in search if character.isdigit())
    texts = [contact.name, contact.user_id or "", *contact.former_user_ids, *contact.points["email"]]
    if any(wanted in text.casefold() for text in texts):
        return True
    # "(212) 555-0100" finds +12125550100; letters in the search mean that it is no number.
    is_number = len(digits) >= 3 and not any(character.isalpha() for character in search)
    return is_number and any(digits in phone for phone in contact.points["phone"])


def _subscribed(contacts: list[Contact]) -> dict[str, int]:
    counts = dict.fromkeys(_CHANNEL_NAMES, 0)
    for contact in contacts:
        for name, channel in _glance(contact).items():
            counts[name] += channel is not None and channel.subscribed is True
    return counts


def _glance(contact: Contact) -> dict[str, Channel | None]:
    phone, email = contact.primary_point("phone"), contact.primary_point("email")
    return {
        **{name: phone.channels[name] if phone else None for name in PHONE_CHANNELS},
        **{name: email.channels[name] if email else None for name in EMAIL_CHANNELS},
    }


def _contact_row(contact: Contact, now: float) -> dict[str, Any]:
    return {
        "id": contact.id,
        "name": who(contact),
        "user_id": contact.user_id,
        "phone": contact.primary["phone"],
        "more_phones": max(0, len(contact.points["phone"]) - 1),
        "emails": list(contact.points["email"]),
        "badges": [badge(name, channel) for name, channel in _glance(contact).items() if channel is not None],
        "changed": clock_time(contact.changed_at, now),
    }


def who(contact: Contact) -> str:
    """Say what to call a contact: by name, else by phone, email or user id."""
    return (
        contact.name
        or contact.primary["phone"]
        or contact.primary["email"]
        or contact.user_id
        or f"Contact {contact.id}"
    )


def badge(name: str, channel: Channel) -> dict[str, str]:
    """Put a status in a few words: channel, status, since when."""
    status = channel.to_json()
    return {
        "channel": _CHANNEL_NAMES[name],
        "status": status["status"],
        "since": f"since {day(status['since'])}" if status["since"] else "",
        "tone": _TONES[channel.subscribed],
    }


def activity(account: Account, *, before: int, kind: str, paused: bool) -> dict[str, Any]:
    """Fill the Activity page: requests older than number ``before`` (0: the newest), of one kind if given."""
    now = account.clock.wall()
    stats = account.stats()
    groups = [
        ("The contract was broken", "bad", stats["contract_findings"]),
        ("Regal took it, but", "warn", stats["behaviour_findings"]),
    ]
    known = {name: found["text"] for _, _, kinds in groups for name, found in kinds.items()}
    kind = kind if kind in known else ""
    entries = (entry for entry in account.journal.newest_first() if not before or entry.number < before)
    wanted = (entry for entry in entries if not kind or any(finding.kind == kind for finding in entry.findings))
    shown = list(islice(wanted, EVENTS_PER_PAGE + 1))
    more = len(shown) > EVENTS_PER_PAGE
    shown = shown[:EVENTS_PER_PAGE]
    limit = account.settings.rate_limit
    only = {"finding": kind} if kind else {}
    return {
        "active": "activity",
        "title": "Activity",
        "totals": [
            ("Requests", thousands(stats["requests"]), ""),
            ("Events stored", thousands(stats["stored"]), ""),
            ("Last second", thousands(stats["rate_now"]), ""),
            (
                "Worst second",
                thousands(stats["worst_window_1s"]),
                "no limit set" if limit is None else f"limit {thousands(limit)}",
            ),
        ],
        "answers": [
            {"answer": answer, "count": count, "tone": answer_tone(answer)}
            for answer, count in stats["by_status"].items()
        ],
        "groups": [(title, tone, kinds) for title, tone, kinds in groups if kinds],
        "kind": kind,
        "kind_text": known.get(kind, ""),
        "pending": stats["pending"],
        "mismatches": stats["type_mismatches"][:20],
        "faults": [
            (number, describe(rule), fired)
            for number, (rule, fired) in enumerate(zip(account.plan.rules, account.plan.fired, strict=True), start=1)
        ],
        "forgotten": stats["forgotten"],
        "entries": [event_row(account, entry, now) for entry in shown],
        "older": "/activity?" + urlencode({"before": shown[-1].number, **only}) if more else "",
        "newest": before > 0,
        "paused": paused,
        "pause": "/activity?" + urlencode({"paused": "", **only}),
        "resume": "/activity" + ("?" + urlencode(only) if only else ""),
    }


def answer_tone(answer: int | str) -> str:
    """Tell whether an answer is good news."""
    text = str(answer)
    return "good" if text.startswith("2") else "bad" if text.isdecimal() and text < "500" else "warn"


def event_row(account: Account, entry: Entry, now: float) -> dict[str, Any]:
    """Describe one request, as the pages list it."""
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
        "badges": [badge(name, channel) for name, channel in _glance(found).items() if channel is not None],
        "created": iso(found.created_at),
        "changed": iso(found.changed_at),
        "traits": [_trait(name, value) for name, value in found.traits.items()],
        "points": [
            _point(kind, point, found.primary[kind] == point.value)
            for kind, points in found.points.items()
            for point in points.values()
        ],
        "history": _history(found),
        "entries": kept,
        "not_shown": len(found.activity) - len(kept),
    }


def _trait(name: str, value: object) -> dict[str, str]:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return {"name": _STANDARD.get(name, name), "key": name, "value": text}


def _point(kind: str, point: Point, is_primary: bool) -> dict[str, Any]:
    return {
        "kind": "Phone" if kind == "phone" else "Email",
        "value": point.value,
        "label": point.label,
        "is_primary": is_primary,
        "channels": [(badge(name, channel), channel.to_json()) for name, channel in point.channels.items()],
    }


def _history(contact: Contact) -> list[dict[str, Any]]:
    found: list[tuple[str, str, Recorded]] = [
        (point.value, name, recorded)
        for points in contact.points.values()
        for point in points.values()
        for name, channel in point.channels.items()
        for recorded in channel.history
    ]
    found.sort(key=lambda item: item[2].event, reverse=True)
    return [
        {
            **recorded.to_json(),
            "value": value,
            "channel": _CHANNEL_NAMES[name],
            "tone": _TONES[recorded.consent.subscribed],
            "label": label(recorded.consent.subscribed),
        }
        for value, name, recorded in found
    ]
