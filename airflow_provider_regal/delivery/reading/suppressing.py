"""Decide what is still sent of rows about suppressed or forgotten people.

==============================  ======================================  =========================================
the row                         person suppressed                       person forgotten
==============================  ======================================  =========================================
has opt-outs                    only these are sent                     only these, if one is new
has none                        skipped                                 skipped
is invalid                      skipped, not rejected                   skipped, not rejected
loses an invalid opt-out        rejected: a person has to look at it    skipped: nothing of it is recorded
==============================  ======================================  =========================================
"""

from __future__ import annotations

from airflow_provider_regal.delivery.reading.prepared import Ready, Rejected
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.ledger.people.suppressions import Hold
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.ledger.text import to_ledger_time


def hold_back(row: Ready | Rejected, hold: Hold) -> bool:
    """Reduce a row to the opt-outs that are still sent.

    :returns: whether nothing is left to send.
    """
    if not says_news(row, hold):
        return True
    if isinstance(row, Rejected):
        return not row.loses_a_decision
    if isinstance(row.instead_of, Rejected):
        if hold.is_forgotten or not row.instead_of.loses_a_decision:
            row.instead_of = Skip.SUPPRESSED
        return False
    if _only_opts_out(row):
        return False
    return not row.send_only_opt_outs(Skip.SUPPRESSED)


def says_news(row: Ready | Rejected, hold: Hold) -> bool:
    """Return whether a row of a forgotten person has an opt-out that was not known then."""
    if not hold.is_forgotten:
        return True
    return isinstance(row, Ready) and any(
        hold.is_news(one.identifier, one.channel, None if one.at is None else to_ledger_time(one.at))
        for one in row.payload.consents
        if not one.subscribed
    )


def may_be_held(row: Ready | Rejected) -> bool:
    """Return whether ``suppress_named_events`` may hold back a row."""
    return (
        isinstance(row, Ready) and row.payload.call in NAMED_CALLS and row.instead_of is None and not row.only_consent
    )


def person_of(row: Ready | Rejected) -> tuple[str, ...]:
    """Return all identifiers of a row's person; opt-outs that are sent alone have only some of them."""
    if isinstance(row, Ready) and isinstance(row.instead_of, Rejected):
        return (*row.identifiers, *row.instead_of.identifiers)
    return row.identifiers


def _only_opts_out(row: Ready) -> bool:
    alone = row.payload.opt_outs
    if alone is None:
        return False
    return alone.body == row.payload.body or (row.only_consent and alone.consents == row.payload.consents)
