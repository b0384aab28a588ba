"""The page Health: the results of ``airflow regal check``, as far as the API server can determine them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_regal.checks import FAILURE, OK, WARNING, Finding, ask_regal, look
from airflow_provider_regal.plugin.deliveries import Summary

_TONES: Final = {OK: "good", WARNING: "warn", FAILURE: "bad"}
_WORDS: Final = {OK: "OK", WARNING: "LOOK", FAILURE: "FAILURE"}
#: Only a worker can check these.
UNKNOWN_HERE: Final = (
    "whether workers reach the same ledger: the API server reads its own configuration",
    "which versions of this package and of Airflow the workers have, and whether their clocks are right",
    "whether workers reach Regal: proxies, firewalls and certificates may differ",
    "ledgers that a task names itself, with ledger_conn_id",
    "whether the API key is right: Regal tells that only when it is sent an event",
)


@dataclass(frozen=True)
class Line:
    """A finding, as shown on the page."""

    word: str
    tone: str
    what: str
    said: str


def view(summary: Summary | None, asked_conn_id: str | None = None) -> dict[str, Any]:
    """Collect what the page shows.

    :param summary: the summary at the top of the page Deliveries; None without a ledger.
    :param asked_conn_id: the connection for which to check that Regal answers; None to send no request.
    """
    lines = _lines(look())
    asked = [] if asked_conn_id is None else _lines(ask_regal(asked_conn_id))
    return {
        "headline": summary and summary.headline,
        "regal": summary.regal if summary else [],
        "lines": sorted(lines, key=lambda line: ("bad", "warn", "good").index(line.tone)),
        "asked": asked,
        "conn_id": asked_conn_id or "regal_default",
        "worst": min((*lines, *asked), key=lambda line: ("bad", "warn", "good").index(line.tone)).tone,
        "unknown_here": UNKNOWN_HERE,
        "now": datetime.now(UTC),
    }


def _lines(findings: Iterator[Finding]) -> list[Line]:
    return [Line(_WORDS[one.how], _TONES[one.how], one.what, one.said) for one in findings]
