"""Deadlines: late work ends, other work continues, and work that is canceled for another reason also ends."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_regal.client.deadlines import Deadlines
from tests.client import loops
from tests.client.loops import run as run_on_loop

FOR_EVER = 3_600.0


@pytest.fixture(params=loops.FACTORIES, autouse=True)
def _on_either_loop(request):
    loops.use(request.param)


def test_what_is_late_ends_and_what_is_not_goes_on():
    async def run():
        deadlines, ended = Deadlines(0.1), asyncio.Event()

        async def wait_for(event):
            try:
                with deadlines:
                    await event.wait()
            except TimeoutError:
                ended.set()
                return "late"
            return "in time"

        set_already = asyncio.Event()
        set_already.set()
        late = [asyncio.ensure_future(wait_for(asyncio.Event())) for _ in range(3)]
        in_time = await wait_for(set_already)
        await ended.wait()
        return in_time, await asyncio.gather(*late)

    assert run_on_loop(run()) == ("in time", ["late"] * 3)


def test_each_has_its_own_time():
    async def run():
        deadlines, order = Deadlines(0.2), []

        async def wait(name, before_s):
            await asyncio.sleep(before_s)
            began = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError), deadlines:
                await asyncio.sleep(FOR_EVER)
            order.append(name)
            return asyncio.get_running_loop().time() - began

        lasted = await asyncio.gather(wait("second", 0.1), wait("first", 0.0))
        return order, lasted

    order, lasted = run_on_loop(run())
    assert order == ["first", "second"]
    assert min(lasted) > 0.19, "nothing ends before its time"


def test_after_one_that_was_late_the_task_goes_on_as_any_other():
    async def run():
        deadlines = Deadlines(0.05)
        for _ in range(2):
            with pytest.raises(TimeoutError), deadlines:
                await asyncio.sleep(FOR_EVER)
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    assert run_on_loop(run()) == 0


def test_what_swallows_the_end_may_finish():
    async def run():
        with Deadlines(0.05):
            try:
                await asyncio.sleep(FOR_EVER)
            except asyncio.CancelledError:
                made = "what there was"
        await asyncio.sleep(0)
        return made, asyncio.current_task().cancelling()

    assert run_on_loop(run()) == ("what there was", 0)


@pytest.mark.parametrize("timeout_s", [FOR_EVER, 0.05])
def test_who_is_cancelled_ends_cancelled_even_when_it_is_late_as_well(timeout_s):
    async def run():
        under_way, cancelled = asyncio.Event(), []

        async def wait(deadlines):
            with deadlines:
                under_way.set()
                try:
                    await asyncio.sleep(FOR_EVER)
                finally:
                    if timeout_s < FOR_EVER:  # canceled by the deadline, and then by us
                        asyncio.current_task().cancel()

        task = asyncio.ensure_future(wait(Deadlines(timeout_s)))
        await under_way.wait()
        if timeout_s == FOR_EVER:
            task.cancel()
        await asyncio.wait([task])
        cancelled.append(task.cancelled())
        return cancelled

    assert run_on_loop(run()) == [True]


def test_an_error_stays_what_it_is():
    async def run():
        with pytest.raises(KeyError), Deadlines(FOR_EVER):
            raise KeyError

    run_on_loop(run())


def test_once_closed_it_looks_no_more():
    async def run():
        deadlines = Deadlines(0.05)
        with deadlines:
            deadlines.close()
            await asyncio.sleep(0.2)
        return "not ended"

    assert run_on_loop(run()) == "not ended"
