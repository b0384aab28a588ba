"""The engine sends prepared rows on one asyncio loop.

::

    admitted rows ─▶ send window ─▶ reserve ─▶ gate, pace ─▶ exchange ─▶ settle ─▶ recorder: commit
                         ▲          (commit)                    │
                         └──────── retries, when due ◀──────────┘

One coroutine decides what starts; each request is a separate task. Everything persistent goes through the ``Recorder``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.exchange import Decision, Meaning, NoAnswer, acknowledges, decide
from airflow_provider_regal.client.many import ManySender
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.delivery.guards import Refusals
from airflow_provider_regal.delivery.reading.prepared import Ready
from airflow_provider_regal.delivery.sending.gate import FAILURES_OF_AN_OUTAGE, Gate
from airflow_provider_regal.delivery.sending.recorder import Recorder
from airflow_provider_regal.delivery.sending.window import SendWindow
from airflow_provider_regal.delivery.stopping import (
    GRACE_S,
    GRACE_WITHOUT_HURRY_S,
    Stop,
    outage,
    own_failure,
    told_to_stop,
)
from airflow_provider_regal.errors import RegalError, TakenOverError

# Limit for a row that may have arrived each time. A row that fails often enough to signal an outage is kept by that
# outage.
_MOST_TRIES: Final = FAILURES_OF_AN_OUTAGE
_TOO_MANY_REQUESTS: Final = 429
_IDLE_S: Final = 0.5
_ASK_AGAIN_S: Final = 1.0
_HELD_BACK_S: Final = 0.05


class Engine:
    """Delivers the open rows of a snapshot.

    :param rows: the rows to send, in order; None whenever the caller should return to the event loop.
    :param recorder: records and commits their outcomes.
    :param wait_s: delay before the first send: requests of an earlier try may still be in flight.
    """

    def __init__(
        self,
        *,
        rows: Iterator[Ready | None],
        recorder: Recorder,
        sender: ManySender,
        pacer: Pacer,
        gate: Gate,
        patience_s: float,
        refusals: Refusals,
        wait_s: float,
        stop: Stop,
        clock: Clock,
    ) -> None:
        self._recorder = recorder
        self._sender = sender
        self._pacer = pacer
        self._gate = gate
        self._patience_s = patience_s
        self._refusals = refusals
        self._stop = stop
        self._clock = clock
        self._not_before = clock.monotonic() + wait_s
        self._window = SendWindow(rows)
        self._being_reserved: list[Ready] = []
        self._reserved: deque[Ready] = deque()
        self._few = 0
        self._pause_s = 0.0
        self._under_way: dict[asyncio.Task[None], Ready] = {}
        self._cut_off: list[Ready] = []
        self._helpers: set[asyncio.Task[None]] = set()
        self._just_lost: list[tuple[Ready, Decision]] = []
        self._stopped_by: RegalError | None = None
        self._grace_s = GRACE_WITHOUT_HURRY_S
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._last_failure = "no answer"

    async def run(self) -> None:
        """Send until every row is settled.

        :raises RegalError: why it had to stop with rows left.
        """
        await self._recorder.commit()  # this also agrees on the share of the account's rate
        self._help(self._recorder.keep_committing())
        try:
            while self._stopped_by is None and (self._window.has_rows or len(self._window)):
                pause_s = self._work()
                await self._sleep(pause_s)
        finally:
            self._recorder.stop_committing()
            await self._finish()
        if self._stopped_by is not None:
            raise self._stopped_by

    def _work(self) -> float:
        """Start whatever can be started now.

        :returns: seconds until there may be more to do, unless an event wakes the loop.
        """
        if self._stop.requested:
            self._stop_for(told_to_stop(), grace_s=GRACE_S)
            return 0.0
        now = self._clock.monotonic()
        if self._gate.patience_left_s(now) <= 0:
            self._stop_for(outage(self._patience_s, self._last_failure), grace_s=GRACE_S)
            return 0.0
        until_repeat_s = self._window.until_repeat_s(now)
        self._window.take_in()
        if now < self._not_before:
            return min(self._not_before - now, _IDLE_S)
        self._reserve()
        if wait_s := self._start_what_may():
            return min(wait_s, _IDLE_S)
        if self._window.may_take_in or (self._window.turn and not self._being_reserved):
            return 0.0
        if not self._window.has_rows and not len(self._window):
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
        """Commit reservations for the next rows, if a crash must not cause them to be sent again."""
        if self._being_reserved:
            return
        ahead = self._window.ahead(probing=self._gate.probing)
        self._few = ahead // 2
        while len(self._reserved) > ahead and self._gate.probing:  # may take long; a crash would doubt all
            row = self._reserved.pop()
            self._recorder.release(row)
            self._window.give_back(row)
        if len(self._reserved) > self._few:
            return
        wanted = ahead - len(self._reserved)
        if self._reserved and self._window.turn < wanted and self._window.may_take_in:
            return  # admit more rows first: a commit for a few rows would be expensive
        batch = self._window.take(wanted)
        if any(row.claims or row.guarantee == "at_most_once" for row in batch):
            self._being_reserved = batch
            self._help(self._reserve_durably(batch))
        else:
            self._reserved.extend(batch)

    async def _reserve_durably(self, batch: list[Ready]) -> None:
        grants = await self._recorder.reserve(batch)
        self._being_reserved = []
        for one in grants:
            if one.go:
                self._reserved.append(one.row)
            elif one.busy:
                self._window.repeat(one.row, self._clock.monotonic() + _ASK_AGAIN_S)
            else:
                self._window.settle(one.row)

    def _start_what_may(self) -> float:
        """Start requests.

        :returns: seconds until the next may start; 0 if no more are reserved.
        """
        while (row := self._next()) is not None:
            task = self._loop.create_task(self._send(row))
            self._under_way[task] = row
            task.add_done_callback(self._ended)
        return self._pause_s

    def _next(self) -> Ready | None:
        """Take the next row, if one may be sent now; it counts as started."""
        self._pause_s = 0.0
        while self._reserved and self._stopped_by is None:
            now = self._clock.monotonic()
            if (
                wait_s := self._recorder.wait_s(now)
                or self._gate.wait_s(now, self._pacer.limit)
                or self._pacer.take(now)
            ):
                self._pause_s = wait_s
                return None
            row = self._reserved.popleft()
            if row.claims and now - row.claimed_at > self._recorder.fresh_for_s:
                self._recorder.release(row)
                self._window.give_back(row)
                continue
            self._gate.start(row.position, now)
            self._window.started(now)
            self._recorder.start(row, now)
            return row
        return None

    async def _send(self, row: Ready) -> None:
        """Send a row, then the next while more may be sent at once: a task for each would cost 10 % more."""
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
            self._recorder.outage_ended()
            self._just_lost.clear()
            self._refusals.note(refused=False)
            self._recorder.acknowledge(row)
            self._window.settle(row)
            return
        if (
            isinstance(attempt, NoAnswer) and attempt.held_back
        ):  # the ledger can't be written: that is not an outage of Regal
            self._gate.take_back(row.position)
            row.tries -= 1
            self._recorder.release(row)
            self._window.repeat(row, now + _HELD_BACK_S)
            return
        moment = self._clock.now()
        decision = decide(attempt, guarantee=row.guarantee, tries=row.tries, jitter=self._clock.jitter(), now=moment)
        row.doubtful = row.doubtful or decision.meaning is Meaning.UNKNOWN
        if decision.meaning in (Meaning.NOT_APPLIED, Meaning.UNKNOWN):
            self._gate.fail(row.position, now, answered=decision.status is not None)
            self._after_failure(row, decision, now, outages_before)
            return
        self._gate.succeed(row.position, now)
        self._recorder.outage_ended()
        self._just_lost.clear()
        if decision.meaning is Meaning.REFUSED:
            self._refusals.note(refused=True)
            if (why := self._refusals.why_stopped(decision.reason)) is not None:
                self._stop_for(why)
            if self._recorder.try_alone(row, decision):
                self._window.repeat(row, now)
                self._wake.set()
                return
            self._recorder.refuse(row, decision, moment)
            self._window.settle(row)
        else:
            self._recorder.leave_open(row)
            self._stop_for(self._recorder.unauthorized(decision))

    def _after_failure(self, row: Ready, decision: Decision, now: float, outages_before: int) -> None:
        self._last_failure = decision.reason
        if decision.status == _TOO_MANY_REQUESTS:
            self._recorder.count_429()
        if decision.pauses:
            self._pacer.pause(now + decision.wait_s)
            self._pacer.slow_down(now)
        if decision.retry_after_s is not None and decision.retry_after_s > self._patience_s:
            self._stop_for(outage(self._patience_s, self._last_failure), grace_s=GRACE_S)
        in_outage = self._gate.in_outage or self._gate.outages > outages_before
        if lasts_s := self._gate.outage_s(now):
            self._recorder.note_outage(self._clock.now() - timedelta(seconds=lasts_s), decision.reason)
        if in_outage:  # so the failures just before were part of it, too
            for lost, why in self._just_lost:
                self._recorder.blame_outage(lost, why, self._clock.now())
            self._just_lost.clear()
        enough = row.tries >= _MOST_TRIES and decision.meaning is Meaning.UNKNOWN and not in_outage
        if decision.retry and not enough:
            self._recorder.release(row)
            self._window.repeat(row, now + decision.wait_s)
            return
        alone = row.refusal is not None
        self._recorder.unknown(row, decision, self._clock.now(), in_outage=in_outage)
        if not in_outage and not alone:  # the row itself is refused, whatever happens to its opt-outs
            self._just_lost.append((row, decision))
        self._window.settle(row)

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
        if self._stopped_by is None:
            self._stopped_by, self._grace_s = why, grace_s

    async def _finish(self) -> None:
        """Wait a grace period for requests in flight, then record them; leave the rest open."""
        if self._under_way and not isinstance(self._stopped_by, TakenOverError):
            await asyncio.wait(self._under_way, timeout=self._grace_s)
        for task in self._under_way:
            task.cancel()
        while waited_for := {*self._under_way, *self._helpers}:
            await asyncio.wait(waited_for)
            await asyncio.sleep(0)  # let the callbacks of finished tasks run
        for row in self._cut_off:
            self._recorder.interrupted(row, self._clock.now())
        for row in (*self._being_reserved, *self._reserved, *self._window.touched()):
            self._recorder.leave_open(row)
