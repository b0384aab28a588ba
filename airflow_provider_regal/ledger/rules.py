"""Pure functions that decide, from what is on record for a key, what may be sent and what to record next.

Opt-ins and opt-outs are ordered by *rank*: their time; at equal times the opt-out counts as the newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from airflow_provider_regal.ledger.text import TIME_LENGTH, from_ledger_time

OPT_IN: Final = "opt_in"
TRACK: Final = "track"
BARRIER: Final = "barrier"
SENDING: Final = "sending"
UNKNOWN: Final = "unknown"
ACKNOWLEDGED: Final = "acknowledged"


class Verdict(StrEnum):
    """What a sender may do with something it wants to claim."""

    GO = "go"  #: it is claimed for this run: send it, then settle it
    DUPLICATE = "duplicate"  #: Regal acknowledged it before
    STALE = "stale"  #: Regal has, or may have, a newer decision
    BLOCKED = "blocked"  #: Regal may already have it, and it must not be sent twice
    KNOWN = "known"  #: Regal acknowledged the same decision since it was compared with the ledger
    BUSY = "busy"  #: another run is currently sending this key: ask again


@dataclass(frozen=True, slots=True)
class Claim:
    """Something to be sent only as often as its rules allow.

    :param call: ``opt_in`` or ``track``.
    :param key: phone or email of the opt-in; message id of the event.
    :param channel: ``sms``, ``voice`` or ``email``; empty for an event.
    :param subscribed: True for an opt-in, False for an opt-out.
    :param at: when consent was given or withdrawn, as :func:`to_ledger_time` writes it.
    :param once: don't send it again while it can't be known whether Regal has it.
    :param force: send it although it can't be known whether Regal has it.
    :param owed: an opt-out that another delivery has read; it is sent only while Regal lacks it.
    :param inferred: an opt-out that no source states: the person is no longer in the source. If the person returns, it
        blocks no opt-in of that source.
    :param news: send it only while Regal does not have it.
    :param stored: the key is in stored form, for a sender that does not have the plain one.
    :param row_hash: of the row that states it, recorded once it is acknowledged.
    """

    call: str
    key: str
    channel: str = ""
    subscribed: bool | None = None
    at: str | None = None
    once: bool = False
    force: bool = False
    row_hash: str | None = None
    stored: bool = False
    owed: bool = False
    inferred: bool = False
    news: bool = False

    def __post_init__(self) -> None:
        if self.call == OPT_IN:
            if self.subscribed is None or self.at is None:
                raise ValueError("a claim of an opt-in says whether it subscribes, and since when")
        elif self.call != TRACK:
            raise ValueError(f"only {OPT_IN} and {TRACK} are claimed, not {self.call}")
        if self.at is not None and len(self.at) != TIME_LENGTH:
            raise ValueError("a claim's time is written by to_ledger_time")


class Entry(NamedTuple):
    """What the ledger has on record for one key; the fields are named like the columns.

    :param doubt: what an earlier sender may have delivered while a later one sends: a rank, or for an event the time.
        It stays on record if the later sender releases its claim.
    """

    row_hash: str | None = None
    subscribed: int | None = None
    evidence_at: str | None = None
    opt_out_at: str | None = None
    opt_out_source: str | None = None
    opt_out_delivery: str | None = None
    owed_since: str | None = None
    inferred_at: str | None = None
    state: str = ""
    pending_subscribed: int | None = None
    pending_at: str | None = None
    doubt: str | None = None
    acknowledged_at: str | None = None
    source: str | None = None
    delivery: str | None = None
    changed_at: str | None = None


class By(NamedTuple):
    """Who decides, and when.

    :param lease_of: returns for how many seconds a delivery's claim counts as being sent.
    """

    delivery: str
    source: str
    now: str
    lease_of: Callable[[str], float]

    def waits_for(self, entry: Entry) -> bool:
        """Return whether another run is still sending what it claimed.

        Its claim may be so far in the future that the clock of that machine is wrong: no one waits for that.
        """
        if entry.state != SENDING or entry.delivery == self.delivery or entry.changed_at is None:
            return False
        age = from_ledger_time(self.now) - from_ledger_time(entry.changed_at)
        return abs(age) < timedelta(seconds=self.lease_of(entry.delivery or ""))


def verdict(entry: Entry | None, claim: Claim, by: By) -> Verdict:
    """Decide whether a claim may be sent."""
    if entry is None:
        return Verdict.GO
    return _consent_verdict(entry, claim, by) if claim.call == OPT_IN else _event_verdict(entry, claim, by)


def _consent_verdict(entry: Entry, claim: Claim, by: By) -> Verdict:
    rank, acknowledged, pending = _rank_of(claim), _standing(entry, claim, by), _pending_standing(entry, claim, by)
    if claim.owed and not owes_opt_out(entry):
        return Verdict.DUPLICATE  # another sender was faster
    # What can never change comes first, so that no one needlessly waits for another delivery.
    if claim.subscribed and entry.opt_out_at is not None and (claim.at or "") <= entry.opt_out_at:
        return Verdict.STALE
    if acknowledged is not None and rank < acknowledged:
        return Verdict.STALE
    if claim.news and not claim.force and rank == acknowledged and entry.pending_at is None:
        return Verdict.KNOWN
    if by.waits_for(entry):
        return Verdict.BUSY
    if pending is not None and rank < pending:
        return Verdict.STALE
    in_doubt = entry.state == UNKNOWN or (entry.state == SENDING and entry.delivery != by.delivery)
    if claim.once and not claim.force and in_doubt and rank == pending:
        return Verdict.BLOCKED
    return Verdict.GO


def _event_verdict(entry: Entry, claim: Claim, by: By) -> Verdict:
    if entry.state == ACKNOWLEDGED:
        return Verdict.DUPLICATE
    in_doubt = entry.state == UNKNOWN or (entry.state == SENDING and entry.delivery != by.delivery)
    return Verdict.BLOCKED if in_doubt and claim.once and not claim.force else Verdict.GO


def sending(entry: Entry | None, claim: Claim, by: By) -> Entry:
    """Record that a claim is being sent from now on."""
    entry = _barred_by(entry or Entry(), claim, by)
    if claim.call == OPT_IN:
        earlier = _newest(entry.doubt, _pending(entry))
    else:
        earlier = entry.doubt or (entry.changed_at if entry.state in (SENDING, UNKNOWN) else None)
    return _with_pending(entry, claim, by)._replace(state=SENDING, doubt=earlier)


def acknowledged(entry: Entry | None, claim: Claim, by: By) -> Entry:
    """Record that Regal acknowledged it; newer records stay."""
    entry = _barred_by(entry or Entry(), claim, by)
    rank, known, pending = _rank_of(claim), _standing(entry, claim, by), _pending_standing(entry, claim, by)
    if claim.call == TRACK or known is None or rank >= known:
        entry = entry._replace(
            subscribed=_flag(claim),
            evidence_at=claim.at,
            acknowledged_at=by.now,
            source=by.source,
            row_hash=claim.row_hash or (entry.row_hash if rank == known else None),  # else another row states it now
        )
    if claim.call == OPT_IN and pending is not None and pending > rank:
        return entry  # still being sent, or unknown, by the run that claimed it
    return _settled(entry)._replace(delivery=by.delivery, changed_at=by.now)


def known_to_regal(entry: Entry | None, claim: Claim, by: By) -> Entry:
    """Record what Regal reports it has: nothing was sent, so nothing was acknowledged."""
    before = None if entry is None else entry.acknowledged_at
    return acknowledged(entry, claim, by)._replace(acknowledged_at=before)


def unknown(entry: Entry | None, claim: Claim, by: By) -> Entry:
    """Record that Regal may have it; newer records stay."""
    entry = _barred_by(entry or Entry(), claim, by)
    if claim.call == TRACK:
        if entry.state == ACKNOWLEDGED:
            return entry
    else:
        rank, known, pending = _rank_of(claim), _standing(entry, claim, by), _pending_standing(entry, claim, by)
        if pending is not None and pending > rank:  # the run that claimed it may still release it
            return entry._replace(doubt=_newest(entry.doubt, rank)) if entry.state == SENDING else entry
        if known is not None and known >= rank:
            return _settled(entry)
    return _with_pending(entry, claim, by)._replace(state=UNKNOWN, doubt=None)


def released(entry: Entry | None, claim: Claim, by: By) -> Entry | None:
    """Release a claim of this run that was not sent. Returns None if nothing else is on record for the key."""
    ours = entry is not None and entry.state == SENDING and entry.delivery == by.delivery
    if entry is None or not ours or (claim.call == OPT_IN and _pending(entry) != _rank_of(claim)):
        return entry
    if entry.doubt is None:
        return _settled(entry) if entry.acknowledged_at or entry.evidence_at or entry.opt_out_at else None
    at, _, way = entry.doubt.partition(" ")
    doubtful = entry._replace(state=UNKNOWN, doubt=None, changed_at=by.now)
    return doubtful if claim.call == TRACK else doubtful._replace(pending_at=at, pending_subscribed=int(way == "in"))


def denied(entry: Entry | None, claim: Claim, by: By) -> Entry | None:
    """Record that an outdated claim is not sent now, although an earlier try of this run may have sent it."""
    return unknown(entry, claim, by) if entry is not None and _is_sending(entry, claim, by) else entry


def was_granted(entry: Entry | None, claim: Claim, by: By) -> bool:
    """Return whether this run may have sent an opt-in: it has claimed it, or the result is already on record."""
    if entry is None:
        return False
    return _is_sending(entry, claim, by) or _acknowledged(entry) == _rank_of(claim)


def ends_a_yes(entry: Entry | None, opt_out: Claim) -> bool:
    """Return whether Regal has, or may have, an opt-in that this opt-out ends."""
    if entry is None:
        return False
    yes = _newest(
        _acknowledged(entry) if entry.subscribed else None, _pending(entry) if entry.pending_subscribed else None
    )
    return yes is not None and yes < _rank_of(opt_out)


def said_again(entry: Entry | None, claim: Claim, by: By) -> Entry | None:
    """Record which row states what was already acknowledged, so that its hash is recognized next time."""
    if entry is None or _acknowledged(entry) != _rank_of(claim):
        return entry
    return entry._replace(row_hash=claim.row_hash, source=by.source)


def barred(entry: Entry | None, at: str, by: By) -> Entry:
    """Record that an opt-out was given; its time is never lowered."""
    if entry is None:
        entry = Entry(state=BARRIER, delivery=by.delivery, changed_at=by.now)
    return _with_opt_out(entry, at, by)


def owes_opt_out(entry: Entry) -> bool:
    """Return whether Regal lacks the newest opt-out: it has nothing, or has, or may have, an older opt-in.

    A newer opt-in supersedes the opt-out, even while it is being sent.
    """
    if entry.opt_out_at is None:
        return False
    newest_yes = _newest(
        _acknowledged(entry) if entry.subscribed else None,
        _pending(entry) if entry.pending_subscribed else None,
        entry.doubt if entry.doubt is not None and entry.doubt.endswith(_IN) else None,
    )
    if newest_yes is None:
        return entry.subscribed is None
    return newest_yes < _rank(entry.opt_out_at, subscribed=False)


def has_opted_out(entry: Entry, opt_in_at: str | None = None) -> bool | None:
    """Return whether the newest decision on record is an opt-out, even if Regal lacks it; None if there is none.

    :param opt_in_at: time of an opt-in that is not on record yet, to be included.
    """
    barred = None if entry.opt_out_at is None else _rank(entry.opt_out_at, subscribed=False)
    opted_in = None if opt_in_at is None else _rank(opt_in_at, subscribed=True)
    newest = _newest(_acknowledged(entry), _pending(entry), entry.doubt, barred, opted_in)
    return None if newest is None else newest.endswith(_OUT)


def with_debt(entry: Entry | None, by: By, *, reachable: bool) -> Entry | None:
    """Set since when Regal lacks an opt-out, after everything else is decided.

    :param reachable: it can be sent, because it has a phone or an email and not just a user id.
    """
    if entry is None:
        return None
    if not reachable or not owes_opt_out(entry):
        return entry if entry.owed_since is None else entry._replace(owed_since=None)
    return entry if entry.owed_since is not None else entry._replace(owed_since=by.now)


def _is_sending(entry: Entry, claim: Claim, by: By) -> bool:
    return entry.state == SENDING and entry.delivery == by.delivery and _pending(entry) == _rank_of(claim)


def _barred_by(entry: Entry, claim: Claim, by: By) -> Entry:
    # An opt-out blocks older opt-ins, whatever happens to its own send.
    if claim.subscribed is False and claim.at is not None:
        if claim.inferred:
            return entry._replace(inferred_at=claim.at)
        return _with_opt_out(entry, claim.at, by)
    return entry


def _standing(entry: Entry, claim: Claim, by: By) -> str | None:
    """Return the rank of what Regal acknowledged, as far as it counts against a claim."""
    known = _acknowledged(entry)
    return None if _comes_back(entry, claim, by) and known == _inferred(entry) else known


def _pending_standing(entry: Entry, claim: Claim, by: By) -> str | None:
    """Return the rank of what is being sent or unknown, as far as it counts against a claim."""
    pending = _pending(entry)
    return None if _comes_back(entry, claim, by) and pending == _inferred(entry) else pending


def _comes_back(entry: Entry, claim: Claim, by: By) -> bool:
    """Return whether a person who had vanished from a source has returned."""
    return bool(claim.subscribed) and entry.inferred_at is not None and entry.source == by.source


def _inferred(entry: Entry) -> str:
    return _rank(entry.inferred_at or "", subscribed=False)


def _with_opt_out(entry: Entry, at: str, by: By) -> Entry:
    if entry.opt_out_at is not None and entry.opt_out_at >= at:
        return entry
    return entry._replace(opt_out_at=at, opt_out_source=by.source, opt_out_delivery=by.delivery)


def _with_pending(entry: Entry, claim: Claim, by: By) -> Entry:
    return entry._replace(pending_subscribed=_flag(claim), pending_at=claim.at, delivery=by.delivery, changed_at=by.now)


def _settled(entry: Entry) -> Entry:
    state = ACKNOWLEDGED if entry.acknowledged_at or entry.evidence_at else BARRIER
    return entry._replace(state=state, pending_subscribed=None, pending_at=None, doubt=None)


_IN: Final = " in"
_OUT: Final = " out"


def _rank(at: str, subscribed: object) -> str:
    return f"{at}{_IN}" if subscribed else f"{at}{_OUT}"  # "out" sorts after "in"


def _rank_of(claim: Claim) -> str:
    return _rank(claim.at or "", claim.subscribed)


def _acknowledged(entry: Entry) -> str | None:
    return None if entry.evidence_at is None else _rank(entry.evidence_at, entry.subscribed)


def _pending(entry: Entry) -> str | None:
    return None if entry.pending_at is None else _rank(entry.pending_at, entry.pending_subscribed)


def _newest(*texts: str | None) -> str | None:
    return max((text for text in texts if text is not None), default=None)


def _flag(claim: Claim) -> int | None:
    return None if claim.subscribed is None else int(claim.subscribed)
