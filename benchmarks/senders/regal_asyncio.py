"""With this package, without uvloop: on Python's own loop."""

from __future__ import annotations

import sys

from benchmarks.senders import regal
from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    sys.modules["uvloop"] = None  # type: ignore[assignment] # so it cannot be imported
    return regal.send(work)
