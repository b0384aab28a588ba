"""The marker of a run folder: whose it is, and how its last try ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

MARKER: Final = "marker.json"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose folder this is, and how its last try ended.

    :param fingerprint: of the source: connection, rendered SQL, paths.
    :param epoch: which clear of the task instance; 0 through all automatic retries of the first.
    :param try_number: the last try that worked here.
    :param restarted: that try, or one before it in this epoch, was told to send everything again.
    :param outcome: ``finished``, ``failed`` (on a threshold), or None: rows are left.
    :param options: fingerprint of the options that decide what is sent of a row; ``several`` where tries differ.
    """

    fingerprint: str
    epoch: int
    try_number: int
    restarted: bool = False
    outcome: str | None = None
    options: str = ""


def marker_of(content: bytes) -> Marker:
    """Read a marker as it is written."""
    return Marker(**{name: value for name, value in json.loads(content).items() if name != "version"})
