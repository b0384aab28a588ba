"""Marks: what a row of the snapshot has in addition to its columns.

Our own sources return such rows as :class:`Marked`; in any other row these names are columns. In the snapshot, a marked
row is an object with the marks and either the columns themselves or, under ``$row``, an object with the columns.

=============  =========================================================================
mark           its value
=============  =========================================================================
$event         the call: the row was an event already, and its columns are a written event
$row           the columns, if they are stored separately
$origin        the row's place, such as ``a.jsonl.gz line 17``: for messages
$skip          why the row is not sent, on purpose; with ``$event``, its opt-outs are sent
$reject        why it can never be sent: a list of ``[field, reason]``
$person        with ``$reject``: the identifiers of its person, where a mapping names the columns
$lost          with ``$reject``: it has an opt-out that can't be sent, or an unreadable decision
$phase         rows of a later phase wait for those of earlier ones
$weight        how many source rows it represents, if not one
$only_consent  there is nothing to send without its opt-ins
$claims        what the ledger has to grant before it is sent
$force         it may be sent although Regal may already have it
$call          the call of a table's row, if it differs from the delivery's
$letter_time   when it first failed, before it was sent again as a dead letter
$ledger_key    the contact's key in the ledger, for a dead letter that is sent again
$owed          an opt-out that another delivery has read and Regal lacks
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
PERSON_MARK: Final = "$person"
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
        PERSON_MARK,
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
    """A row with marks, created by one of our own sources."""


def columns_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row without marks."""
    if ROW_MARK in row:
        columns: Mapping[str, Any] = row[ROW_MARK]
        return columns
    if not MARKS.isdisjoint(row):
        return {name: value for name, value in row.items() if name not in MARKS}
    return row
