"""The same, while its stacks are looked at: where the CPU goes."""

from __future__ import annotations

from typing import Any

from benchmarks.senders import regal
from benchmarks.senders.work import Work
from benchmarks.stages import Sampler

_last: list[Sampler] = []


def send(work: Work) -> int:
    """Send the rows; gives how many were acknowledged."""
    with Sampler(work.path / "stacks.txt") as sampler:
        acknowledged = regal.send(work)
    _last[:] = [sampler]
    return acknowledged


def also(work: Work) -> dict[str, Any]:
    """Give how often each stage was seen."""
    return {"stages": dict(_last[0].found)}
