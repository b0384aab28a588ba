"""Like ``regal``, with the ledger in PostgreSQL (``BENCHMARK_LEDGER``; default: database ``test`` on 127.0.0.1)."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.senders import regal
from benchmarks.senders.work import Work

DEFAULT = "postgresql://postgres@127.0.0.1:5432/test"


def send(work: Work, **options: Any) -> int:
    """Send the rows; returns how many were acknowledged."""
    os.environ.setdefault("BENCHMARK_LEDGER", DEFAULT)
    return regal.send(work, **options)
