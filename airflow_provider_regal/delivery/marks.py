"""Marks: what a row of the snapshot carries beside its columns.

A source of ours gives such rows as :class:`Marked`; in any other row these are the names of columns. In the snapshot
a marked row is an object with the marks and either the columns themselves or, under ``$row``, an object of them.

=============  =========================================================================
mark           its value
=============  =========================================================================
$event         the call: the row was an event already, and its columns are a written event
$row           the columns, where they stand apart
$origin        where the row comes from, as ``a.jsonl.gz line 17``: for messages
$skip          why the row is not sent, on purpose
$reject        why it can never be sent: a list of ``[field, reason]``
$phase         rows of a later phase wait for those of the earlier
$weight        for how many rows of the source it stands, where not for one
$only_consent  there is nothing to send without its opt-ins
$claims        what the ledger has to grant before it is sent
$force         it may be sent although Regal may have it already
$letter_time   when it last failed, before it was sent again as a dead letter
=============  =========================================================================
"""

from __future__ import annotations

from typing import Any, Final

EVENT_MARK: Final = "$event"
ROW_MARK: Final = "$row"
ORIGIN_MARK: Final = "$origin"
SKIP_MARK: Final = "$skip"
REJECT_MARK: Final = "$reject"
PHASE_MARK: Final = "$phase"
WEIGHT_MARK: Final = "$weight"
ONLY_CONSENT_MARK: Final = "$only_consent"
CLAIMS_MARK: Final = "$claims"
FORCE_MARK: Final = "$force"
LETTER_TIME_MARK: Final = "$letter_time"
MARKS: Final = frozenset(
    {
        EVENT_MARK,
        ROW_MARK,
        ORIGIN_MARK,
        SKIP_MARK,
        REJECT_MARK,
        PHASE_MARK,
        WEIGHT_MARK,
        ONLY_CONSENT_MARK,
        CLAIMS_MARK,
        FORCE_MARK,
        LETTER_TIME_MARK,
    }
)


class Marked(dict[str, Any]):
    """A row with marks, made by a source of ours."""
