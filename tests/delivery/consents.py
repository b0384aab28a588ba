"""Consent tables for the tests, and what a local Regal received from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.ledger.view import LedgerView

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
IP = "203.0.113.77"


def phone(number):
    return f"+1212555{number:04d}"


def at(minute):
    """A time of the day before; a larger minute is newer."""
    return (NOW - timedelta(days=1) + timedelta(minutes=minute)).isoformat()


def row(number, subscribed, minute, channel="sms", **more):
    """A decision; with ``minute`` None, an opt-out without a time."""
    told = {"user_id": f"u{number}", "phone": phone(number), "channel": channel, "subscribed": subscribed}
    return {**told, "timestamp": None if minute is None else at(minute), "ip": IP, **more}


def yes(number, minute=5, **more):
    return row(number, **{"subscribed": True, "minute": minute, **more})


def no(number, minute=5, **more):
    return row(number, **{"subscribed": False, "minute": minute, **more})


def told(regal, *, stored=True):
    """What arrived, in order: user, channel, yes or no."""
    found = []
    for event in regal.events(stored=stored):
        body = event["body"]
        if "name" in body:
            found.append((body.get("userId"), body["properties"]["channel"], body["name"]))
        for member in ("phones", "emails"):
            for info in body.get("traits", {}).get(member, {}).values():
                found += [
                    (body.get("userId"), key.removesuffix("OptIn"), info[key]["subscribed"])
                    for key in ("smsOptIn", "voiceOptIn", "emailOptIn")
                    if key in info
                ]
    return found


def kinds(report):
    """The plan, without zero counts."""
    return {kind: count for kind, count in report.plan.items() if count}


def adds_up(report):
    return report.read == report.acknowledged + report.rejected + report.unknown + report.skipped


def known(path, **options):
    """The ledger's consents: stored key and channel -> subscribed, evidence, opt-out, state, and what is pending."""
    return LedgerView(path, **options).consents()
