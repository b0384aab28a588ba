"""The event loops that a delivery may run on: Python's own and, if installed, uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if find_spec("uvloop"):
    import uvloop

    FACTORIES["uvloop"] = uvloop.new_event_loop

_used = ["asyncio"]


def use(name: str) -> None:
    """Make :func:`run` use a loop from now on."""
    _used[:] = [name]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end."""
    with asyncio.Runner(loop_factory=FACTORIES[_used[0]]) as runner:
        return runner.run(work)
