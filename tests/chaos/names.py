"""The resolver of a sender: a file, changed from outside, defines whether the name of Regal's host exists.

The failure is the machine's own: it looks up a name that no resolver knows. uvloop resolves names without Python's
``socket``, so a sender that uses the file runs without uvloop.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

HOST = "regal.storm.test"
UNKNOWN = "regal.storm.invalid"


def write(file: Path, *, there: bool) -> None:
    """Make the name exist, or not."""
    file.write_text(HOST if there else "")


def consult(file: Path) -> None:
    """Make this process look the name up in the file; other names as usual."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        if host == HOST:
            host = "127.0.0.1" if file.read_text() == HOST else UNKNOWN
        return real(host, *rest, **options)

    socket.getaddrinfo = getaddrinfo
    sys.modules["uvloop"] = None  # type: ignore[assignment]
