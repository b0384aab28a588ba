"""Deadlines of requests that all may last equally long: one timer for all of them.

aiohttp sets one for each request, which takes a twentieth of what a row costs in all.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Deadlines:
    """Ends what is done within it and takes too long.

    ::

        with deadlines:
            await ...  # TimeoutError, when the time is over

    :param timeout_s: how long each may take.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._due: dict[asyncio.Task[Any], float] = {}  # the first to end comes first
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
        ours_alone = not task.uncancel()  # else it is to end for another reason as well
        if ours_alone and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Stop looking."""
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
