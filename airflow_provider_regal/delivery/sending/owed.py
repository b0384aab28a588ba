"""Opt-outs that Regal lacks, as rows of a delivery: whoever read them, the next delivery of contacts sends them first.

::

    ledger ─▶ read by a delivery that is running? ─▶ in a row of this delivery? ─▶ snapshot, and sent before all else
                   left to it                          ├─ left to that row
                                                       └─ a later opt-in: tried after that row, unless Regal has it by
                                                          then; it may be withheld, or its row rejected
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from airflow_provider_regal.delivery.reading.row_index import RowIndex
from airflow_provider_regal.events.names import EMAIL_CHANNELS
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.owed import OwedOptOut
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
    """Return the opt-outs that Regal lacks, but for those that a row of this delivery says, or overtakes.

    Where the ledger holds hashes, whose they are is not known here: there are none.

    :param on_their_way: deliveries that are sending theirs right now.
    """
    for owed in _owed(account, on_their_way):
        if _is_newest(owed, index):
            yield _row(owed.identifier, owed.channel, owed.at, _now(account), _where(owed))


def overtaken_rows(account: Account, index: RowIndex, *, on_their_way: Collection[int]) -> Iterator[Marked]:
    """Return the opt-outs that Regal lacks, and after which a row of this delivery opts in again.

    Once Regal has acknowledged that opt-in, the ledger grants them no more. It may never be sent, though: the person is
    suppressed, the row is wrong elsewhere.
    """
    for owed in _owed(account, on_their_way):
        newest = index.newest(owed.identifier, owed.channel)
        if newest is not None and newest.subscribed and not _is_newest(owed, index):
            yield _row(owed.identifier, owed.channel, owed.at, _now(account), _where(owed))


def stated_rows(account: Account, index: RowIndex, *, on_their_way: Collection[int]) -> Iterator[Marked]:
    """Return what is sent where a guard stops all else: the opt-outs of this delivery's rows, and those owed before."""
    for identifier, channel, at in index.opt_outs():
        yield _row(identifier, channel, at, _now(account), "an opt-out of the source")
    for owed in _owed(account, on_their_way):
        newest = index.newest(owed.identifier, owed.channel)
        if (newest is not None and newest.subscribed) or _is_newest(owed, index):
            yield _row(owed.identifier, owed.channel, owed.at, _now(account), _where(owed))


def _is_newest(owed: OwedOptOut, index: RowIndex) -> bool:
    """Return whether no row of this delivery has the opt-out, or a decision after it that may be sent."""
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
    if at <= now:  # one that is to come would be refused a time
        opt_out["timestamp"] = at
    member, name = ("emails", "address") if channel in EMAIL_CHANNELS else ("phones", "number")
    return Marked(
        {
            EVENT_MARK: "identify",
            ONLY_CONSENT_MARK: True,
            WEIGHT_MARK: 0,  # it stands for no row of the source
            ORIGIN_MARK: where,
            OWED_MARK: True,
            CLAIMS_MARK: [[identifier, channel, False, at, None]],
            member: [{name: identifier, "opt_ins": [opt_out]}],
        }
    )


def _where(owed: OwedOptOut) -> str:
    by = owed.source or (f"delivery {owed.delivery}" if owed.delivery else "another delivery")
    return f"opt-out owed since {owed.since[:16]}Z, read by {by}"
