"""The content of the Activity page, computed from the account; no HTML here."""

from __future__ import annotations

from itertools import islice
from typing import Any
from urllib.parse import urlencode

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.faults import describe
from airflow_provider_regal.sandbox.pages.words import answer_tone, event_row, thousands

EVENTS_PER_PAGE = 50


def activity(account: Account, *, before: int, kind: str, paused: bool) -> dict[str, Any]:
    """Fill the Activity page: requests older than number ``before`` (0: the newest), of one kind if given."""
    now = account.clock.wall()
    stats = account.stats()
    groups = [
        ("The contract was broken", "bad", stats["contract_findings"]),
        ("Regal accepted it, but", "warn", stats["behaviour_findings"]),
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
