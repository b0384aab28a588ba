"""The page People: everything on record about one person, the proof of their consent, and what erasing would remove."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_regal._compat import conf
from airflow_provider_regal.hooks._ledger import identifiers
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin import evidence, explaining, history
from airflow_provider_regal.ledger.admin.forgetting import REMOVED, Forgetting, not_reached
from airflow_provider_regal.ledger.admin.history import Wanted
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.people.suppressions import read_identifier
from airflow_provider_regal.ledger.text import to_ledger_time

_LONGEST: Final = 1_000
_SHOWN: Final = 200
# Rows stored as their source wrote them are searched one by one: a page can't wait for a million of them.
_SCANNED: Final = 20_000


def given(text: str) -> list[str]:
    """Parse the typed identifiers: separated by commas, semicolons or lines."""
    return [one.strip() for one in re.split(r"[,;\n]", text[:_LONGEST]) if one.strip()][:10]


def view(database: Database, people: list[str], *, searches_rows: bool = False) -> dict[str, Any]:
    """Collect everything on record about one person.

    :param searches_rows: also search rows stored as their source wrote them, which may take seconds.
    """
    wanted, stored = Wanted(people), identifiers()
    person = history.find_person(
        database, wanted, identifiers=stored, limit=_SHOWN, scan_rows=_SCANNED if searches_rows else 0
    )
    consents = history.Consents(person.consents, person.decisions)
    hidden = [one.account for one in history.list_accounts(database) if one.identifiers not in (None, stored.mark)]
    return {
        "given": people,
        "wanted": wanted,
        "person": person,
        "explanations": [*explaining.explain(consents, explaining.names_of(wanted, stored))],
        "timeline": explaining.timeline(person)[::-1],
        "suppressions": [
            explaining.suppressed_since(one) for one in explaining.suppressions_of(database, wanted, stored, None)
        ],
        "hidden": hidden,
        "searched_rows": searches_rows,
        "now": database.now(),
    }


def proof(database: Database, people: list[str]) -> str:
    """Return the evidence of one person's consent, in the format of ``airflow regal consent --export``."""
    wanted, stored = Wanted(people), identifiers()
    found, names = history.find_consents(database, wanted, identifiers=stored), explaining.names_of(wanted, stored)
    head = {"exported_at": to_ledger_time(datetime.now(UTC)), "person": people}
    told = (line._replace(identifier=names.get(line.identifier, line.identifier)) for line in found.decisions)
    text = io.StringIO()
    evidence.write_json(text, head, found, told)
    return text.getvalue()


@dataclass(frozen=True)
class Erasure:
    """What erasing a person would remove from one account.

    :param lines: what, and how many.
    :param problem: why the given identifiers can't be erased.
    """

    account: str
    lines: list[tuple[int, str]]
    linked: list[str]
    owed: int = 0
    problem: str = ""


def erasure(database: Database, people: list[str]) -> dict[str, Any]:
    """Determine what ``airflow regal forget`` would remove; nothing is changed."""
    key = conf.get("regal", "ledger_key", fallback="")
    stored = identifiers()
    read = [read_identifier(one) for one in people]
    found = []
    for one in history.list_accounts(database):
        if one.identifiers not in (None, stored.mark):
            continue
        account = Account(database, account=one.account, source="pages", secret=key.encode() if key else None)
        try:
            traces = Forgetting(account, read).traces
        except ValueError as error:
            found.append(Erasure(one.account, [], [], problem=str(error)))
            continue
        lines = [(traces.counts[what], told) for what, told in REMOVED.items() if traces.counts[what]]
        found.append(Erasure(one.account, lines, traces.linked, traces.owed))
    return {"erasures": found, "not_reached": not_reached(database, plain=stored.plain)}
