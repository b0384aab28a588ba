"""The same, but events by track: never sent twice, so each row is reserved on disk before it goes.

The event's name makes each body 26 bytes longer.
"""

from __future__ import annotations

from benchmarks.senders import regal
from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Send the rows; gives how many were acknowledged."""
    return regal.send(work, call="track", event="Lesson Booked")
