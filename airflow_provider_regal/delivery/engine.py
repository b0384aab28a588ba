"""The engine: sends prepared rows on one asyncio loop.

::

    snapshot ─▶ feed ─▶ order ─▶ fresh ─┐
                                        ├─▶ reserve ─▶ gate, pace ─▶ exchange ─▶ settle
                             retries ───┘                               └─▶ retries

One coroutine decides what starts; each request is a task of its own. Everything that has to last goes through
``Books`` before it counts.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.exchange import Decision, Meaning, decide
from airflow_provider_regal.client.many import ManySender
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.delivery.books import Books
from airflow_provider_regal.delivery.gate import Gate
from airflow_provider_regal.delivery.order import Order
from airflow_provider_regal.delivery.prepare import Preparer, Ready, Refused
from airflow_provider_regal.errors import RegalError, RetryLaterError

# Rows taken in and not yet settled, at most: they wait for their turn, their slot or their answer.
_WINDOW: Final = 2_000
# Rows prepared before the loop looks at the network again.
_SLICE: Final = 32
_RESERVED_AHEAD: Final = 32
_MOST_TRIES: Final = 8
_GRACE_S: Final = 10.0
_IDLE_S: Final = 0.5


class Engine:
    """Delivers the open rows of a snapshot.

    :param rows: positions and rows, in order; those that are settled are not among them.
    :param rate: requests a second.
    """

    def __init__(
        self,
        *,
        rows: Iterator[tuple[int, Mapping[str, Any]]],
        preparer: Preparer,
        books: Books,
        sender: ManySender,
        pacer: Pacer,
        gate: Gate,
        rate: int,
        patience_s: float,
        clock: Clock,
    ) -> None:
        self._rows: Iterator[tuple[int, Mapping[str, Any]]] | None = rows
        self._preparer = preparer
        self._books = books
        self._sender = sender
        self._pacer = pacer
        self._gate = gate
        self._rate = rate
        self._patience_s = patience_s
        self._clock = clock
        self._order = Order()
        self._held: dict[int, Ready] = {}
        self._fresh: deque[Ready] = deque()
        self._reserved: deque[Ready] = deque()
        self._retries: list[tuple[float, int, Ready]] = []
        self._under_way: dict[asyncio.Task[None], Ready] = {}
        self._stop: RegalError | None = None
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def request_stop(self, why: RegalError) -> None:
        """Stop soon: what is under way is answered or marked. Safe to call from a signal handler or a thread."""
        self._stop = self._stop or why
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Send until every row is settled.

        :raises RegalError: why it had to stop with rows left.
        """
        try:
            while self._stop is None and self._has_work():
                self._feed()
                await self._reserve()
                pause_s = self._start_what_may()
                self._books.flush()
                if pause_s:
                    await self._sleep(pause_s)
        finally:
            await self._finish()
        if self._stop is not None:
            raise self._stop

    def _has_work(self) -> bool:
        return bool(self._rows or len(self._order))

    async def _sleep(self, pause_s: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _feed(self) -> None:
        """Take rows in until enough wait for their turn."""
        if self._rows is None or len(self._fresh) >= _SLICE or len(self._order) >= _WINDOW:
            return
        for _ in range(_SLICE):
            taken = next(self._rows, None)
            if taken is None:
                self._rows = None
                return
            prepared = self._preparer.prepare(*taken, self._clock.now())
            if isinstance(prepared, Refused):
                self._books.reject(prepared, self._clock.now())
            elif self._order.admit(prepared.position, prepared.identifiers):
                self._books.note(prepared)
                self._fresh.append(prepared)
            else:
                self._books.note(prepared)
                self._held[prepared.position] = prepared

    async def _reserve(self) -> None:
        """Note durably which rows come next, where a crash must not make them be sent again."""
        room = min(_RESERVED_AHEAD, self._gate.limit(self._rate)) - len(self._reserved)
        batch = [self._fresh.popleft() for _ in range(min(room, len(self._fresh)))]
        if not batch:
            return
        await self._books.reserve([row.position for row in batch if row.guarantee == "at_most_once"])
        self._reserved.extend(batch)

    def _start_what_may(self) -> float:
        """Start requests.

        :returns: seconds until it is worth trying again; 0 if rows should be fed first.
        """
        while True:
            now = self._clock.monotonic()
            if self._gate.patience_left_s(now) <= 0:
                self._stop = self._outage()
                return 0.0
            due = bool(self._retries) and self._retries[0][0] <= now
            if not due and not self._reserved:
                if self._fresh or (self._rows and len(self._order) < _WINDOW):
                    return 0.0
                until_retry = self._retries[0][0] - now if self._retries else _IDLE_S
                return min(max(until_retry, 0.001), _IDLE_S)
            if wait_s := self._gate.wait_s(now, self._rate):
                return min(wait_s, _IDLE_S)
            if wait_s := self._pacer.take(now):
                return min(wait_s, _IDLE_S)
            row = heapq.heappop(self._retries)[2] if due else self._reserved.popleft()
            self._start(row, now)

    def _start(self, row: Ready, now: float) -> None:
        self._gate.start(row.position, now)
        row.tries += 1
        row.first_time = row.first_time or self._clock.now()
        task = self._loop.create_task(self._exchange(row))
        self._under_way[task] = row
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        row = self._under_way.pop(task)
        if task.cancelled():
            self._books.interrupted(row, self._clock.now())
        elif (error := task.exception()) is not None:
            self._stop = self._stop or _as_regal_error(error)
        self._wake.set()

    async def _exchange(self, row: Ready) -> None:
        attempt = await self._sender.attempt(row.body)
        decision = decide(
            attempt,
            guarantee=row.guarantee,
            tries=row.tries,
            jitter=self._clock.jitter(),
            now=self._clock.now(),
        )
        now = self._clock.monotonic()
        row.doubtful = row.doubtful or decision.meaning is Meaning.UNKNOWN
        if decision.meaning in (Meaning.NOT_APPLIED, Meaning.UNKNOWN):
            self._gate.fail(row.position, now, answered=decision.status is not None)
            self._after_failure(row, decision, now)
            return
        self._gate.succeed(row.position, now)
        if decision.meaning is Meaning.ACKNOWLEDGED:
            self._books.acknowledge(row)
            self._settle(row)
        elif decision.meaning is Meaning.REFUSED:
            self._books.refuse(row, decision, self._clock.now())
            self._settle(row)
        else:
            self._books.leave_open(row)
            self._stop = self._stop or self._books.unauthorized(decision)

    def _after_failure(self, row: Ready, decision: Decision, now: float) -> None:
        if decision.pauses:
            self._pacer.pause(now + decision.wait_s)
            self._pacer.slow_down(now)
        if decision.retry_after_s is not None and decision.retry_after_s > self._patience_s:
            self._stop = self._stop or self._outage()
        if decision.retry and (row.tries < _MOST_TRIES or decision.meaning is Meaning.NOT_APPLIED):
            heapq.heappush(self._retries, (now + decision.wait_s, row.position, row))
            return
        self._books.lose_sight(row, decision, self._clock.now(), in_outage=self._gate.probing)
        self._settle(row)

    def _settle(self, row: Ready) -> None:
        for position in self._order.settle(row.position):
            self._fresh.append(self._held.pop(position))

    def _outage(self) -> RetryLaterError:
        return RetryLaterError(
            "Regal could not be reached, or asked to wait, for longer than outage_patience "
            f"({self._patience_s:g} s). Everything not settled is kept: run the task again to go on from there."
        )

    async def _finish(self) -> None:
        """Let what is under way be answered, within a grace time; then mark it, and leave the rest open."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_GRACE_S if self._stop else None)
        for task in list(self._under_way):
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        for row in (*self._reserved, *(entry[2] for entry in self._retries)):
            self._books.leave_open(row)
        self._books.flush()


def _as_regal_error(error: BaseException) -> RegalError:
    wrapped = RegalError(f"The delivery stopped: {type(error).__name__}: {error}. Nothing unsettled is lost.")
    wrapped.__cause__ = error
    return wrapped
