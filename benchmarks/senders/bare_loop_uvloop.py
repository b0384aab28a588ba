"""The bare loop on uvloop, which this package uses if it is installed."""

from __future__ import annotations

import asyncio

import uvloop

from benchmarks.senders import bare_loop
from benchmarks.senders.work import Work

prepare = bare_loop.prepare


def send(work: Work) -> int:
    """Send the bodies; returns how many were acknowledged."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bare_loop.post_all(work))
