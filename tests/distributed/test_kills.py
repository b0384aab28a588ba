"""Killed or frozen processes lose nothing, and resend no more than promised."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from tests.distributed.airflow_api import Run
from tests.distributed.processes import wait_until
from tests.distributed.record import Broken, Delivered
from tests.distributed.source import add_rows
from tests.distributed.stack import HEARTBEAT_TIMEOUT_S, SLOW, WORKERS, Stack
from tests.distributed.verify import Key, key_of, look, newest, verify

pytestmark = pytest.mark.distributed
DELIVERIES = 4  # two shards of events, two of contacts
PATIENCE_S = 300
#: A task is found dead, gets a worker, and waits until requests of its last try are over.
TAKEN_OVER_S = HEARTBEAT_TIMEOUT_S + 60
#: What a killed process had handed to its sockets has been read by then. A retry begins to send later.
_QUIET_S = 0.7


def sending(stack: Stack, run: Run, count: int, *, least: int = 60, patience_s: float = 120) -> list[Delivered]:
    """Wait until so many deliveries of a run have some rows acknowledged."""

    def look_for() -> list[Delivered]:
        stack.processes.check()
        found = [one for one in newest(stack.record.deliveries(run.dag_id, run.run_id)) if one.state == "sending"]
        begun = [one for one in found if one.acknowledged >= least]
        return begun if len(begun) >= count else []

    return wait_until(look_for, patience_s, f"{count} deliveries of {run.dag_id} send")


def task_of(run: Run, one: Delivered) -> dict[str, Any]:
    """Return the task instance of a delivery."""
    return run.task(one.task_id, one.map_index)


def after(stack: Stack, run: Run, deliveries: list[Delivered], stop: Callable[[], None]) -> Mapping[Key, Broken]:
    """Stop processes, and note what is on record of their deliveries then."""
    stop()
    time.sleep(_QUIET_S)
    return {key_of(run, one): look(stack, one) for one in deliveries}


def kill_task(pid: int) -> None:
    """Kill the process of a task, and not what watches it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def taken_over(stack: Stack, run: Run, deliveries: list[Delivered], patience_s: float) -> None:
    """Wait until the next try has each of the deliveries."""
    tries = {one.id: one.try_number for one in deliveries}

    def look_for() -> bool:
        found = {one.id: one.try_number for one in stack.record.deliveries(run.dag_id, run.run_id)}
        return all(found[delivery] > number for delivery, number in tries.items())

    wait_until(look_for, patience_s, "the next tries take the deliveries over")


def begin(stack: Stack, dag_id: str, rows: int) -> Run:
    """Add rows for the four deliveries of a DAG, and start it."""
    for task in ("events", "contacts"):
        add_rows(stack.source_url, dag_id, task, shards=2, rows=rows)
    return stack.airflow.trigger(dag_id)


def busiest(run: Run, deliveries: list[Delivered]) -> tuple[str, list[Delivered]]:
    """Return the worker with deliveries of both kinds, or else with the most, and its deliveries."""
    where = {one.id: task_of(run, one)["hostname"] for one in deliveries}
    of = {worker: [one for one in deliveries if where[one.id] == worker] for worker in WORKERS}
    worker = max(WORKERS, key=lambda name: (len({one.task_id for one in of[name]}), len(of[name])))
    return worker, of[worker]


def tries_of(run: Run) -> list[int]:
    return [one["try_number"] for one in run.tasks()]


def test_killed_task(stack, note):
    """SIGKILL of one task process of each kind; their workers live."""
    run = begin(stack, "killed_task", 1_200)
    began = time.monotonic()
    deliveries = [one for one in sending(stack, run, DELIVERIES) if one.map_index == 0]
    pids = [task_of(run, one)["pid"] for one in deliveries]
    broken = after(stack, run, deliveries, lambda: [kill_task(pid) for pid in pids])

    assert run.wait(PATIENCE_S) == "success"

    assert tries_of(run) == [2, 1, 2, 1]
    found = verify(stack, [run], limit=SLOW, broken=broken)
    note(**found, seconds=round(time.monotonic() - began, 1), tries=tries_of(run))


def test_killed_worker(stack, note):
    """SIGKILL of a worker with all its tasks: their retries land on the other worker."""
    run = begin(stack, "killed_worker", 1_200)
    began = time.monotonic()
    victim, hit = busiest(run, sending(stack, run, DELIVERIES))
    other = next(name for name in WORKERS if name != victim)
    broken = after(stack, run, hit, lambda: stack.processes.kill(victim))
    try:
        assert run.wait(PATIENCE_S) == "success"
    finally:
        stack.start_worker(victim)

    for one in hit:
        first, second = run.tries(one.task_id, one.map_index)
        assert (first["hostname"], second["hostname"]) == (victim, other)
    found = verify(stack, [run], limit=SLOW, broken=broken)
    note(**found, seconds=round(time.monotonic() - began, 1), tries=tries_of(run), killed=len(hit))
    stack.wait_for_worker(victim)


def test_killed_scheduler(stack, note):
    """SIGKILL of the scheduler: running tasks go on, and the next scheduler starts what comes after them."""
    run = begin(stack, "killed_scheduler", 600)
    began = time.monotonic()
    sending(stack, run, DELIVERIES // 2)
    stack.processes.kill("scheduler")
    stack.start_program("scheduler")

    assert run.wait(PATIENCE_S) == "success"

    assert tries_of(run) == [1, 1, 1, 1]
    found = verify(stack, [run], limit=SLOW)
    note(**found, seconds=round(time.monotonic() - began, 1))


def test_frozen_worker(stack, note):
    """A worker freezes, its tasks are taken over by the other one, and it wakes up while they send."""
    run = begin(stack, "frozen_worker", 1_500)
    began = time.monotonic()
    victim, frozen = busiest(run, sending(stack, run, DELIVERIES))
    broken = after(stack, run, frozen, lambda: stack.processes.tell(victim, signal.SIGSTOP))
    try:
        taken_over(stack, run, frozen, TAKEN_OVER_S)
        assert any(one.state == "sending" for one in stack.record.deliveries(run.dag_id, run.run_id))
    finally:
        stack.processes.tell(victim, signal.SIGCONT)

    assert run.wait(PATIENCE_S) == "success"

    found = verify(stack, [run], limit=SLOW, broken=broken)
    note(**found, seconds=round(time.monotonic() - began, 1), tries=tries_of(run), frozen=len(frozen))


def test_restarted_ledger(stack, note):
    """The ledger's database crashes and is away for seconds: the same tries go on when it is back."""
    run = begin(stack, "restarted_ledger", 1_200)
    began = time.monotonic()
    sending(stack, run, DELIVERIES)
    stack.ledger.crash()
    try:
        time.sleep(6)
        before = stack.regal.requests
        time.sleep(1)
        assert stack.regal.requests == before, "nothing is sent without a ledger"
    finally:
        stack.ledger.start()

    assert run.wait(PATIENCE_S) == "success"

    assert tries_of(run) == [1, 1, 1, 1]
    found = verify(stack, [run], limit=SLOW)
    note(**found, seconds=round(time.monotonic() - began, 1))
