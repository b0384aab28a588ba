"""The name Airflow uses for a worker's machine: two workers of a test share a machine."""

from __future__ import annotations

import os
import socket


def worker_name() -> str:
    """Return the name given to this process."""
    return os.environ.get("REGAL_TEST_WORKER") or socket.gethostname()
