"""Deadlines for requests that share the same timeout: one timer for all of them.

aiohttp starts a timer for each request, which accounts for 5 % of the total cost of a row.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Deadlines:
    """Cancels a block that takes too long.

    ::

        with deadlines:
            await ...  # TimeoutError after timeout_s

    :param timeout_s: the time limit of each block, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._due: dict[asyncio.Task[Any], float] = {}  # the earliest deadline comes first
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        due = self._loop.time() + self._timeout_s
        self._due[self._task()] = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._end_the_late)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task()
        if self._due.pop(task, None) is not None:
            return
        ours_alone = not task.uncancel()  # otherwise it was also canceled for another reason
        if ours_alone and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end_the_late(self) -> None:
        self._timer = None
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._end_the_late)
                return
            del self._due[task]
            task.cancel()

    def _task(self) -> asyncio.Task[Any]:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("only what a task does can have a deadline")
        return task
