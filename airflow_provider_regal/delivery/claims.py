"""Claims: before a row is sent the ledger is asked, so that nothing stale and nothing twice goes out.

::

    row ─▶ claims ─▶ ledger ─▶ go ───▶ sent, and settled in the ledger
                        ├────▶ busy ─▶ another run is sending it: asked again soon
                        └────▶ stale, or sent before ─▶ the consent is withheld, or the row left out
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airflow_provider_regal.delivery.prepared import Claimed, Ready
from airflow_provider_regal.journal.ledger_rules import Verdict
from airflow_provider_regal.journal.progress import Skip

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

# A claim is believed by others for the ledger's lease; a row that waits longer than this is claimed anew.
FRESH_FOR_S: Final = 30.0
STALE: Final = "stale: a newer word of this person is known"
_IN_DOUBT: Final = "in doubt: Regal may have it already, and it must not be sent twice"
_REASONS: Final = {Verdict.STALE: STALE, Verdict.BLOCKED: _IN_DOUBT}


@dataclass(slots=True)
class Granted:
    """What came of asking.

    :param go: rows that may be sent.
    :param busy: rows to ask about again.
    :param skipped: rows that are not sent, and why.
    :param withheld: rows of which only a part is sent.
    """

    go: list[Ready] = field(default_factory=list)
    busy: list[Ready] = field(default_factory=list)
    skipped: list[tuple[Ready, Skip]] = field(default_factory=list)
    withheld: list[Ready] = field(default_factory=list)


class Claims:
    """Asks the ledger, if there is one."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger

    async def ask(self, rows: Sequence[Ready], now: float) -> Granted:
        """Claim what rows are about to send.

        :param now: monotonic seconds.
        """
        wanted = [claimed for row in rows for claimed in row.claims]
        if self._ledger is None or not wanted:
            return Granted(go=list(rows))
        verdicts = await asyncio.to_thread(self._ledger.claim, [claimed.claim for claimed in wanted])
        granted, given_back, answers = Granted(), list[Claimed](), iter(verdicts)
        for row in rows:
            told = [(claimed, next(answers)) for claimed in row.claims]
            if not self._grant(row, told, granted):
                given_back += (claimed for claimed, verdict in told if verdict is Verdict.GO)
            row.claimed_at = now
        if given_back:
            await asyncio.to_thread(self._ledger.settle, released=[claimed.claim for claimed in given_back])
        return granted

    def _grant(self, row: Ready, told: list[tuple[Claimed, Verdict]], granted: Granted) -> bool:
        verdicts = [verdict for _, verdict in told]
        blocked = Verdict.BLOCKED in verdicts and not _opts_out(row, told)
        if blocked or Verdict.DUPLICATE in verdicts:
            granted.skipped.append((row, Skip.REPEATED))
            return False
        if Verdict.BUSY in verdicts:
            granted.busy.append(row)
            return False
        denied = [(claimed, _REASONS[verdict]) for claimed, verdict in told if verdict in _REASONS]
        if not denied:
            granted.go.append(row)
            return True
        row.claims = tuple(claimed for claimed, verdict in told if verdict is Verdict.GO)
        consents = {claimed.consent: why for claimed, why in denied if claimed.consent is not None}
        row.send_instead(row.payload.without(consents))
        if Verdict.BLOCKED in verdicts:
            row.key = None  # the contact is not unchanged the next time: that may be known by then
        granted.withheld.append(row)
        if row.only_consent and not row.payload.consents:
            granted.skipped.append((row, Skip.STALE))
            return False
        granted.go.append(row)
        return True


def _opts_out(row: Ready, told: list[tuple[Claimed, Verdict]]) -> bool:
    """Say whether a contact's opt-out may go: what is in doubt beside it is cut out, and does not hold it back."""
    return row.payload.call == "identify" and any(
        verdict is Verdict.GO and claimed.consent is not None and not claimed.claim.subscribed
        for claimed, verdict in told
    )
