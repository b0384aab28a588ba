"""Opt-outs that Regal lacks, as rows: the next delivery of contacts sends them first, no matter which one read them.

Each owed opt-out of the ledger is handled by the first line that applies:

==========================================  ============================================================================
the opt-out                                 what this delivery does
==========================================  ============================================================================
was read by another delivery that runs now  nothing: that delivery sends it
is in a row, or a row has a later opt-out   nothing: that row opts the person out
is older than an opt-in of a row (1)        sends it after the source's rows (:func:`overtaken_rows`), and only if
                                            Regal has not acknowledged the opt-in by then: that row may be suppressed or
                                            rejected
any other                                   sends it before the source's rows (:func:`owed_rows`)
==========================================  ============================================================================

(1) Except an opt-in that is withheld because a decision of the same person and channel can't be read.

If a guard stops the source's rows, :func:`stated_rows` returns the opt-outs to send instead of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from airflow_provider_regal.delivery.reading.row_index import RowIndex
from airflow_provider_regal.events.names import EMAIL_CHANNELS
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.people.owed import OwedOptOut
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.marks import (
    CLAIMS_MARK,
    EVENT_MARK,
    ONLY_CONSENT_MARK,
    ORIGIN_MARK,
    OWED_MARK,
    WEIGHT_MARK,
    Marked,
)


def owed_rows(account: Account, index: RowIndex, *, on_their_way: Collection[int]) -> Iterator[Marked]:
    """Return the owed opt-outs to send first: no row of this delivery repeats or supersedes them.

    If the ledger stores hashes, returns none, because the identifiers are not known.

    :param on_their_way: ids of deliveries that are sending their opt-outs now.
    """
    for owed in _owed(account, on_their_way):
        if _is_newest(owed, index):
            yield _row(owed.identifier, owed.channel, owed.at, _now(account), _where(owed))


def overtaken_rows(account: Account, index: RowIndex, *, on_their_way: Collection[int]) -> Iterator[Marked]:
    """Return the owed opt-outs to send last: a row of this delivery supersedes them with an opt-in.

    Once Regal has acknowledged that opt-in, the ledger no longer grants these opt-outs. But the opt-in may never be
    sent: the person may be suppressed, or the row invalid elsewhere.
    """
    for owed in _owed(account, on_their_way):
        newest = index.newest(owed.identifier, owed.channel)
        if newest is not None and newest.subscribed and not _is_newest(owed, index):
            yield _row(owed.identifier, owed.channel, owed.at, _now(account), _where(owed))


def stated_rows(account: Account, index: RowIndex, *, on_their_way: Collection[int]) -> Iterator[Marked]:
    """Return the opt-outs to send when a guard stops everything else: those of this delivery and those owed before."""
    for identifier, channel, at in index.opt_outs():
        yield _row(identifier, channel, at, _now(account), "an opt-out of the source")
    for owed in _owed(account, on_their_way):
        newest = index.newest(owed.identifier, owed.channel)
        if (newest is not None and newest.subscribed) or _is_newest(owed, index):
            yield _row(owed.identifier, owed.channel, owed.at, _now(account), _where(owed))


def _is_newest(owed: OwedOptOut, index: RowIndex) -> bool:
    """Return whether no row of this delivery repeats the opt-out or has a later decision that may be sent."""
    newest = index.newest(owed.identifier, owed.channel)
    if newest is not None and newest.subscribed and index.is_unreadable(owed.identifier, owed.channel, newest.at):
        return True  # that opt-in is withheld
    return newest is None or (newest.at, not newest.subscribed) < (owed.at, True)


def _owed(account: Account, on_their_way: Collection[int]) -> Iterator[OwedOptOut]:
    return account.owed_opt_outs(on_their_way=on_their_way) if account.identifiers.plain else iter(())


def _now(account: Account) -> str:
    return to_ledger_time(account.now())


def _row(identifier: str, channel: str, at: str, now: str, where: str) -> Marked:
    opt_out = {"channel": channel, "subscribed": False}
    if at <= now:  # a time in the future would be refused
        opt_out["timestamp"] = at
    member, name = ("emails", "address") if channel in EMAIL_CHANNELS else ("phones", "number")
    return Marked(
        {
            EVENT_MARK: "identify",
            ONLY_CONSENT_MARK: True,
            WEIGHT_MARK: 0,  # it represents no row of the source
            ORIGIN_MARK: where,
            OWED_MARK: True,
            CLAIMS_MARK: [[identifier, channel, False, at, None]],
            member: [{name: identifier, "opt_ins": [opt_out]}],
        }
    )


def _where(owed: OwedOptOut) -> str:
    by = owed.source or (f"delivery {owed.delivery}" if owed.delivery else "another delivery")
    return f"opt-out owed since {owed.since[:16]}Z, read by {by}"
