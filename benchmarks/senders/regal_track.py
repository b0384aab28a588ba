"""Like ``regal``, but events by track: never sent twice, so each row is reserved in the ledger before it is sent.

The event's name makes each body 26 bytes longer.
"""

from __future__ import annotations

from benchmarks.senders import regal
from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    return regal.send(work, call="track", event="Lesson Booked")
