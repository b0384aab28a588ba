"""Decide whether a row is sent completely, in part, later or not at all, given the ledger's verdicts. Pure.

::

    claims ─▶ verdicts ─▶ go ───▶ sent, and settled in a commit
                  ├─────▶ busy ─▶ another delivery is sending it: asked again soon
                  ├─────▶ known ─▶ another delivery has sent it: left out, or the row is unchanged
                  └─────▶ older, or sent before ─▶ the consent is withheld, or the row skipped
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_regal.delivery.reading.prepared import Claimed, Ready
from airflow_provider_regal.events import Consent
from airflow_provider_regal.ledger.rules import Claim, Verdict
from airflow_provider_regal.ledger.states import Skip

OLDER: Final = "older: a newer decision of this person is on record"
_IN_DOUBT: Final = "in doubt: Regal may have it already, and it must not be sent twice"
_REASONS: Final = {Verdict.STALE: OLDER, Verdict.BLOCKED: _IN_DOUBT}


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be done with a row.

    :param go: it may be sent.
    :param busy: ask the ledger again later.
    :param skip: why it is not sent.
    :param claims: the claims that were granted.
    :param withheld: consents left out of it, and why.
    :param known: consents left out because Regal has them.
    :param given_back: claims granted for consents that are not sent after all.
    :param in_doubt: Regal may already have part of it.
    :param instead_of: why only its opt-outs (those in ``claims``) are sent: the event was sent before.
    """

    row: Ready
    go: bool = False
    busy: bool = False
    skip: Skip | None = None
    claims: tuple[Claimed, ...] = ()
    withheld: dict[Consent, str] = field(default_factory=dict)
    known: tuple[Consent, ...] = ()
    given_back: tuple[Claim, ...] = ()
    in_doubt: bool = False
    instead_of: Skip | None = None

    def apply(self) -> None:
        """Reduce the row to what was granted."""
        row = self.row
        if self.busy or self.skip in (Skip.DUPLICATE, Skip.UNCHANGED):
            return
        if self.instead_of is not None:
            row.send_only_opt_outs(self.instead_of)
        row.claims = self.claims
        if self.withheld or self.known:
            row.send_instead(row.payload.without(self.withheld).leaving_out(self.known))
        if self.in_doubt:
            row.key = None  # don't record the contact as unchanged: the next run may know more


def grant(row: Ready, verdicts: Sequence[Verdict]) -> Grant:
    """Decide what may be done with a row.

    :param verdicts: one for each of its claims.
    """
    told = [*zip(row.claims, verdicts, strict=True)]
    going = tuple(claimed for claimed, verdict in told if verdict is Verdict.GO)
    given_back = tuple(claimed.claim for claimed in going)
    if Verdict.DUPLICATE in verdicts or (Verdict.BLOCKED in verdicts and not _opts_out(row, told)):
        return _grant_opt_outs(row, told) or Grant(row, skip=Skip.DUPLICATE, given_back=given_back)
    if Verdict.BUSY in verdicts:
        return Grant(row, busy=True, given_back=given_back)
    known = [claimed for claimed, verdict in told if verdict is Verdict.KNOWN]
    left_out = tuple(one.consent for one in known if one.consent is not None)
    if known and (not left_out or (row.only_consent and len(left_out) == len(row.claims))):
        return Grant(row, skip=Skip.UNCHANGED, given_back=given_back)
    denied = {claimed: _REASONS[verdict] for claimed, verdict in told if verdict in _REASONS}
    if not denied:
        return Grant(row, go=True, claims=going, known=left_out)
    withheld = {claimed.consent: why for claimed, why in denied.items() if claimed.consent is not None}
    in_doubt = Verdict.BLOCKED in verdicts
    if row.only_consent and set(row.payload.consents) <= {*withheld, *left_out}:
        return Grant(row, skip=Skip.OLDER, claims=going, withheld=withheld, given_back=given_back, in_doubt=in_doubt)
    return Grant(row, go=True, claims=going, withheld=withheld, known=left_out, in_doubt=in_doubt)


def _grant_opt_outs(row: Ready, told: Sequence[tuple[Claimed, Verdict]]) -> Grant | None:
    """Grant the opt-outs of an event that was sent before, except those older than what is on record."""
    outs = [(one, verdict) for one, verdict in told if one.consent is not None and not one.claim.subscribed]
    going = tuple(claimed for claimed, verdict in outs if verdict is Verdict.GO)
    everything = tuple(claimed.claim for claimed, verdict in told if verdict is Verdict.GO)
    if any(verdict is Verdict.BUSY for _, verdict in outs):
        return Grant(row, busy=True, given_back=everything)
    if not going:
        return None
    older = {one.consent: OLDER for one, verdict in outs if one not in going and one.consent is not None}
    rest = tuple(claim for claim in everything if claim not in {one.claim for one in going})
    return Grant(row, go=True, claims=going, withheld=older, given_back=rest, instead_of=Skip.DUPLICATE)


def _opts_out(row: Ready, told: Sequence[tuple[Claimed, Verdict]]) -> bool:
    """Return whether a contact's opt-out may be sent. Consents in doubt next to it are left out."""
    return row.payload.call == "identify" and any(
        verdict is Verdict.GO and claimed.consent is not None and not claimed.claim.subscribed
        for claimed, verdict in told
    )
