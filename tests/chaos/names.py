"""The resolver of a sender: a file that is changed from outside says whether the name of Regal's host exists.

The failure is the machine's own: the lookup is made for a name that no resolver knows. uvloop looks names up without
Python's ``socket``, so a sender that consults the file does without it, as where it is not installed.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

HOST = "regal.storm.test"
UNKNOWN = "regal.storm.invalid"


def write(file: Path, *, there: bool) -> None:
    """Let the name exist, or not."""
    file.write_text(HOST if there else "")


def consult(file: Path) -> None:
    """Let this process look the name up in the file; other names as always."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        if host == HOST:
            host = "127.0.0.1" if file.read_text() == HOST else UNKNOWN
        return real(host, *rest, **options)

    socket.getaddrinfo = getaddrinfo
    sys.modules["uvloop"] = None  # type: ignore[assignment]
