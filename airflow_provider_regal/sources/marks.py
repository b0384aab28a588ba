"""Marks: what a row of the snapshot carries beside its columns.

A source of ours returns such rows as :class:`Marked`; in any other row these are the names of columns. In the snapshot
a marked row is an object with the marks and either the columns themselves or, under ``$row``, an object of them.

=============  =========================================================================
mark           its value
=============  =========================================================================
$event         the call: the row was an event already, and its columns are a written event
$row           the columns, where they stand apart
$origin        where the row comes from, as ``a.jsonl.gz line 17``: for messages
$skip          why the row is not sent, on purpose; beside ``$event``, its opt-outs are
$reject        why it can never be sent: a list of ``[field, reason]``
$lost          beside ``$reject``: it says a no that can't be sent, or a decision that can't be read
$phase         rows of a later phase wait for those of the earlier
$weight        for how many rows of the source it stands, where not for one
$only_consent  there is nothing to send without its opt-ins
$claims        what the ledger has to grant before it is sent
$force         it may be sent although Regal may have it already
$call          the call of a table's row, where that is not the delivery's
$letter_time   when it first failed, before it was sent again as a dead letter
$ledger_key    by which the ledger knows the contact, likewise
$owed          an opt-out that another delivery has read, and Regal lacks
=============  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

EVENT_MARK: Final = "$event"
ROW_MARK: Final = "$row"
ORIGIN_MARK: Final = "$origin"
SKIP_MARK: Final = "$skip"
REJECT_MARK: Final = "$reject"
LOST_MARK: Final = "$lost"
PHASE_MARK: Final = "$phase"
WEIGHT_MARK: Final = "$weight"
ONLY_CONSENT_MARK: Final = "$only_consent"
CLAIMS_MARK: Final = "$claims"
FORCE_MARK: Final = "$force"
CALL_MARK: Final = "$call"
LETTER_TIME_MARK: Final = "$letter_time"
LEDGER_KEY_MARK: Final = "$ledger_key"
OWED_MARK: Final = "$owed"
MARKS: Final = frozenset(
    {
        EVENT_MARK,
        ROW_MARK,
        ORIGIN_MARK,
        SKIP_MARK,
        REJECT_MARK,
        LOST_MARK,
        PHASE_MARK,
        WEIGHT_MARK,
        ONLY_CONSENT_MARK,
        CLAIMS_MARK,
        FORCE_MARK,
        CALL_MARK,
        LETTER_TIME_MARK,
        LEDGER_KEY_MARK,
        OWED_MARK,
    }
)


class Marked(dict[str, Any]):
    """A row with marks, made by a source of ours."""


def columns_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row without our marks."""
    if ROW_MARK in row:
        columns: Mapping[str, Any] = row[ROW_MARK]
        return columns
    if not MARKS.isdisjoint(row):
        return {name: value for name, value in row.items() if name not in MARKS}
    return row
