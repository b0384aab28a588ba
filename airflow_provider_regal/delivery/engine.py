"""The engine: sends prepared rows on one asyncio loop.

::

    snapshot ─▶ feed ─▶ order ─▶ fresh ─▶ reserve ─▶ gate, pace ─▶ exchange ─▶ settle
                                   ▲                                   │
                                   └──────── retries, when due ◀───────┘

One coroutine decides what starts; each request is a task of its own. Everything that has to last goes through
``Books`` before it counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.exchange import Decision, Meaning, acknowledges, decide
from airflow_provider_regal.client.many import ManySender
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.delivery.books import Books
from airflow_provider_regal.delivery.claims import FRESH_FOR_S
from airflow_provider_regal.delivery.feed import SLICE, Feed
from airflow_provider_regal.delivery.gate import FAILURES_OF_AN_OUTAGE, Gate
from airflow_provider_regal.delivery.prepared import Ready
from airflow_provider_regal.delivery.reserving import Reserving
from airflow_provider_regal.delivery.stopping import GRACE_S, GRACE_WITHOUT_HURRY_S, outage, own_failure
from airflow_provider_regal.delivery.waiting import WaitingRows
from airflow_provider_regal.errors import RegalError

# Of a row that may have arrived each time. A row that fails as often as an outage takes to be noticed is kept by that.
_MOST_TRIES: Final = FAILURES_OF_AN_OUTAGE
_IDLE_S: Final = 0.5
_ASK_AGAIN_S: Final = 1.0


class Engine:
    """Delivers the open rows of a snapshot.

    :param rows: what is to be sent, in order; None where it is time to look at the network.
    :param rate: requests a second.
    :param checkpoint_interval_s: seconds between two times at which all progress is forced to disk.
    """

    def __init__(
        self,
        *,
        rows: Iterator[Ready | None],
        books: Books,
        sender: ManySender,
        pacer: Pacer,
        gate: Gate,
        rate: int,
        patience_s: float,
        checkpoint_interval_s: float,
        clock: Clock,
    ) -> None:
        self._books = books
        self._sender = sender
        self._pacer = pacer
        self._gate = gate
        self._rate = rate
        self._patience_s = patience_s
        self._checkpoint_interval_s = checkpoint_interval_s
        self._clock = clock
        self._reserving = Reserving(rate, books.reserves_for_s)
        self._waiting = WaitingRows(enough=max(SLICE, self._reserving.most))
        self._feed = Feed(rows, self._waiting)
        self._being_reserved: list[Ready] = []
        self._reserved: deque[Ready] = deque()
        self._few = 0
        self._pause_s = 0.0
        self._under_way: dict[asyncio.Task[None], Ready] = {}
        self._cut_off: list[Ready] = []
        self._helpers: set[asyncio.Task[None]] = set()
        self._just_lost: list[tuple[Ready, Decision]] = []
        self._stop: RegalError | None = None
        self._grace_s = GRACE_WITHOUT_HURRY_S
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._last_failure = "no answer"

    def request_stop(self, why: RegalError) -> None:
        """Stop soon: what is under way is answered or marked. Safe to call from a signal handler or a thread."""
        self._stop_for(why, grace_s=GRACE_S)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Send until every row is settled.

        :raises RegalError: why it had to stop with rows left.
        """
        checkpoints = self._help(self._books.keep_checkpoints(self._checkpoint_interval_s))
        try:
            while self._stop is None and (self._feed.has_rows or len(self._waiting)):
                pause_s = self._work()
                self._books.flush()
                await self._sleep(pause_s)
        finally:
            checkpoints.cancel()
            await self._finish()
        if self._stop is not None:
            raise self._stop

    def _work(self) -> float:
        """Do what can be done now.

        :returns: seconds until it is worth doing more, unless something wakes us.
        """
        now = self._clock.monotonic()
        if self._gate.patience_left_s(now) <= 0:
            self._stop_for(outage(self._patience_s, self._last_failure), grace_s=GRACE_S)
            return 0.0
        until_repeat_s = self._waiting.until_repeat_s(now)
        self._feed.take_in()
        self._reserve()
        if wait_s := self._start_what_may():
            return min(wait_s, _IDLE_S)
        if self._feed.may_take_in or (self._waiting.turn and not self._being_reserved):
            return 0.0
        return min(until_repeat_s, _IDLE_S)

    async def _sleep(self, pause_s: float) -> None:
        self._wake.clear()
        if not pause_s:
            await asyncio.sleep(0)
            return
        timer = self._loop.call_later(pause_s, self._wake.set)
        await self._wake.wait()
        timer.cancel()

    def _reserve(self) -> None:
        """Note durably which rows come next, where a crash must not make them be sent again."""
        if self._being_reserved:
            return
        ahead = self._reserving.rows(self._gate.limit(self._rate), probing=self._gate.probing)
        self._few = ahead // 2
        while len(self._reserved) > ahead and self._gate.probing:  # it may take long, and a crash would doubt them all
            row = self._reserved.pop()
            self._books.release(row)
            self._waiting.give_back(row)
        wanted = self._reserving.missing(ahead, len(self._reserved), now=self._clock.monotonic())
        if self._reserving.in_bulk and self._feed.may_take_in and self._waiting.turn < wanted:
            return
        batch = self._waiting.take(wanted)
        if any(row.claims or row.guarantee == "at_most_once" for row in batch):
            self._being_reserved = batch
            self._help(self._reserve_durably(batch))
        else:
            self._reserved.extend(batch)

    async def _reserve_durably(self, batch: list[Ready]) -> None:
        granted = await self._books.reserve(batch, self._clock.monotonic(), self._clock.now())
        self._being_reserved = []
        self._reserved.extend(granted.go)
        for row in granted.busy:
            self._waiting.repeat(row, self._clock.monotonic() + _ASK_AGAIN_S)
        for row, _ in granted.skipped:
            self._waiting.settle(row)

    def _start_what_may(self) -> float:
        """Start requests.

        :returns: seconds until one more may start; 0 if no more are reserved.
        """
        while (row := self._next()) is not None:
            task = self._loop.create_task(self._send(row))
            self._under_way[task] = row
            task.add_done_callback(self._ended)
        return self._pause_s

    def _next(self) -> Ready | None:
        """Take the next row, if one may be sent now; it counts as started."""
        self._pause_s = 0.0
        while self._reserved and self._stop is None:
            now = self._clock.monotonic()
            if wait_s := self._books.wait_s(now) or self._gate.wait_s(now, self._rate) or self._pacer.take(now):
                self._pause_s = wait_s
                return None
            row = self._reserved.popleft()
            if row.claims and now - row.claimed_at > FRESH_FOR_S:
                self._books.release(row)
                self._waiting.give_back(row)
                continue
            self._gate.start(row.position, now)
            row.tries += 1
            row.first_time = row.first_time or self._clock.now()
            return row
        return None

    async def _send(self, row: Ready) -> None:
        """Send a row and, while more may be sent at once, the next: a task for each would cost a tenth more."""
        task = asyncio.current_task()
        while True:
            await self._exchange(row, self._gate.outages)
            following = self._next()
            if following is None or task is None:
                return
            row = self._under_way[task] = following
            if len(self._reserved) <= self._few:
                self._wake.set()

    async def _exchange(self, row: Ready, outages_before: int) -> None:
        attempt = await self._sender.attempt(row.body)
        now = self._clock.monotonic()
        if acknowledges(attempt):
            self._gate.succeed(row.position, now)
            self._just_lost.clear()
            self._books.acknowledge(row, self._clock.now)
            self._waiting.settle(row)
            return
        moment = self._clock.now()
        decision = decide(attempt, guarantee=row.guarantee, tries=row.tries, jitter=self._clock.jitter(), now=moment)
        row.doubtful = row.doubtful or decision.meaning is Meaning.UNKNOWN
        if decision.meaning in (Meaning.NOT_APPLIED, Meaning.UNKNOWN):
            self._gate.fail(row.position, now, answered=decision.status is not None)
            self._after_failure(row, decision, now, outages_before)
            return
        self._gate.succeed(row.position, now)
        self._just_lost.clear()
        if decision.meaning is Meaning.REFUSED:
            self._books.refuse(row, decision, moment)
            self._waiting.settle(row)
        else:
            self._books.leave_open(row)
            self._stop_for(self._books.unauthorized(decision))

    def _after_failure(self, row: Ready, decision: Decision, now: float, outages_before: int) -> None:
        self._last_failure = decision.reason
        if decision.pauses:
            self._pacer.pause(now + decision.wait_s)
            self._pacer.slow_down(now)
        if decision.retry_after_s is not None and decision.retry_after_s > self._patience_s:
            self._stop_for(outage(self._patience_s, self._last_failure), grace_s=GRACE_S)
        in_outage = self._gate.probing or self._gate.outages > outages_before
        if in_outage:  # so what was lost just before was lost to it, too
            for lost, why in self._just_lost:
                self._books.blame_outage(lost, why, self._clock.now())
            self._just_lost.clear()
        enough = row.tries >= _MOST_TRIES and decision.meaning is Meaning.UNKNOWN and not in_outage
        if decision.retry and not enough:
            self._books.release(row)
            self._waiting.repeat(row, now + decision.wait_s)
            return
        self._books.lose_sight(row, decision, self._clock.now(), in_outage=in_outage)
        if not in_outage:
            self._just_lost.append((row, decision))
        self._waiting.settle(row)

    def _ended(self, task: asyncio.Task[None]) -> None:
        row = self._under_way.pop(task)
        if task.cancelled():
            self._cut_off.append(row)
        elif (error := task.exception()) is not None:
            self._stop_for(own_failure(error))
        self._wake.set()

    def _help(self, what: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(what)
        self._helpers.add(task)
        task.add_done_callback(self._helped)
        return task

    def _helped(self, task: asyncio.Task[None]) -> None:
        self._helpers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop_for(own_failure(error))
        self._wake.set()

    def _stop_for(self, why: RegalError, *, grace_s: float = GRACE_WITHOUT_HURRY_S) -> None:
        if self._stop is None:
            self._stop, self._grace_s = why, grace_s

    async def _finish(self) -> None:
        """Let what is under way be answered, within a grace time; then mark it, and leave the rest open."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._grace_s)
        for task in self._under_way:
            task.cancel()
        while waited_for := {*self._under_way, *self._helpers}:
            await asyncio.wait(waited_for)
            await asyncio.sleep(0)  # for the callbacks of those that had ended before
        for row in self._cut_off:
            self._books.interrupted(row, self._clock.now())
        for row in (*self._being_reserved, *self._reserved, *self._waiting.touched()):
            self._books.leave_open(row)
        self._books.flush()
