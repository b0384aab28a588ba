"""Work in a separate thread: its event loop, exceptions, and the garbage collector in the meantime."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import sys
import threading

import pytest

from airflow_provider_regal.delivery.sending.thread import run_in_thread


@pytest.fixture(autouse=True)
def nothing_set_apart():
    gc.unfreeze()
    yield
    gc.unfreeze()


def run(work, *, stop=lambda: None, every_s=10, tick=lambda: None):
    run_in_thread(work, stop=stop, every_s=every_s, tick=tick)


def kind_of_loop():
    found = []

    async def work():
        found.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    run(work)
    return found


def test_it_runs_on_uvloop_where_that_is_installed():
    assert kind_of_loop() == ["uvloop" if importlib.util.find_spec("uvloop") else "asyncio"]


def test_elsewhere_it_runs_on_what_python_brings(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)  # makes it impossible to import
    assert kind_of_loop() == ["asyncio"]


def test_what_the_work_raises_is_raised_here():
    async def work():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        run(work)


def test_what_is_raised_here_stops_the_work_and_waits_for_its_end():
    """As by a signal handler of Airflow: the work still finishes in good order."""
    stopping, ended = threading.Event(), []

    async def work():
        while not stopping.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        ended.append(True)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(work, stop=stopping.set, every_s=0.02, tick=interrupt)
    assert ended == [True]


def test_it_ticks_while_the_work_runs():
    ticks = []

    async def work():
        while len(ticks) < 3:
            await asyncio.sleep(0.01)

    run(work, every_s=0.02, tick=lambda: ticks.append(1))
    assert len(ticks) >= 3


class TestGarbageCollector:
    """While rows are sent it passes over what was there before; afterwards it does not."""

    @staticmethod
    def frozen_meanwhile():
        seen = []

        async def work():
            seen.append(gc.get_freeze_count())

        run(work)
        return seen[0]

    def test_the_heap_is_set_apart_while_the_work_runs(self):
        assert self.frozen_meanwhile() > 1_000
        assert gc.get_freeze_count() == 0

    def test_it_is_returned_after_a_failure(self):
        async def work():
            raise KeyError

        with pytest.raises(KeyError):
            run(work)
        assert gc.get_freeze_count() == 0

    def test_what_others_had_set_apart_stays_so(self):
        gc.freeze()
        before = gc.get_freeze_count()
        self.frozen_meanwhile()
        assert gc.get_freeze_count() >= before
