"""Run a coroutine in another thread while this one waits, with little work for the garbage collector.

Airflow's signal handlers raise in the main thread, at any instruction, and asyncio would swallow that inside a
callback. Here it only interrupts the waiting.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any


def run_in_thread(
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    stop: Callable[[], None],
    every_s: float,
    tick: Callable[[], None],
) -> None:
    """Run ``work`` to its end. An exception raised here stops it first and is then re-raised.

    :param stop: makes the work end soon.
    :param tick: called in this thread at regular intervals.
    """
    with _collected_before(), ThreadPoolExecutor(1, thread_name_prefix="regal-delivery") as threads:
        running: Future[None] | None = None
        try:
            running = threads.submit(_run, work)
            while not wait([running], timeout=every_s).done:
                tick()
        finally:
            if running is None or not running.done():
                stop()
            if running is not None:
                _see_it_end(running)
        running.result()


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(work())


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop if it is installed, as in Airflow 3: a row costs 10 % less, over TLS 14 % less."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _see_it_end(running: Future[None]) -> None:
    """Wait for the end, ignoring further exceptions: the ledger must not be closed while the work runs."""
    try:
        wait([running])
    finally:
        if not running.done():
            _see_it_end(running)


@contextmanager
def _collected_before() -> Iterator[None]:
    """Exclude everything now in memory from garbage collection: mostly Airflow's modules, which are never freed.

    Otherwise a full collection takes 100 ms or more, during which nothing is sent. Measured on 8,000 rows with Airflow
    imported, the collector takes 3 % of the CPU instead of 11 %.
    """
    of_others = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not of_others:
            gc.unfreeze()
