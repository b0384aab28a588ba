"""Like ``regal``, while its stacks are sampled: where the CPU time goes."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.senders import regal
from benchmarks.senders.work import Work
from benchmarks.stages import Sampler

_last: list[tuple[Sampler, float]] = []


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    with Sampler(work.path / "stacks.txt") as sampler:
        before = time.process_time()
        acknowledged = regal.send(work)
        spent = time.process_time() - before
    _last[:] = [(sampler, spent)]
    return acknowledged


def also(work: Work) -> dict[str, Any]:
    """Return how often each stage was seen, and the CPU of the sending alone, without that of the sampling."""
    sampler, spent = _last[0]
    return {"stages": dict(sampler.found), "cpu_s": round(spent, 4)}
