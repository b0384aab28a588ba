"""The content of the Audience page, computed from the account; no HTML here."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.pages.words import CHANNEL_NAMES, badge, clock_time, glance, who
from airflow_provider_regal.sandbox.processing.contacts import Contact
from airflow_provider_regal.sandbox.processing.findings import counted

CONTACTS_PER_PAGE = 50


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
            *((f"{CHANNEL_NAMES[channel]} subscribed", count) for channel, count in _subscribed(everyone).items()),
            ("Events stored", stats["stored"]),
        ],
        "hidden": counted(stats["hidden_profiles"], "profile", "profiles") if stats["hidden_profiles"] else "",
        "forgotten": stats["forgotten"],
        "channels": list(CHANNEL_NAMES.values()),
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
    # "(212) 555-0100" finds +12125550100; a search with letters is not a number.
    is_number = len(digits) >= 3 and not any(character.isalpha() for character in search)
    return is_number and any(digits in phone for phone in contact.points["phone"])


def _subscribed(contacts: list[Contact]) -> dict[str, int]:
    counts = dict.fromkeys(CHANNEL_NAMES, 0)
    for contact in contacts:
        for name, channel in glance(contact).items():
            counts[name] += channel is not None and channel.subscribed is True
    return counts


def _contact_row(contact: Contact, now: float) -> dict[str, Any]:
    return {
        "id": contact.id,
        "name": who(contact),
        "user_id": contact.user_id,
        "phone": contact.primary["phone"],
        "more_phones": max(0, len(contact.points["phone"]) - 1),
        "emails": list(contact.points["email"]),
        "consent": [channel and badge(name, channel) for name, channel in glance(contact).items()],
        "changed": clock_time(contact.changed_at, now),
    }
