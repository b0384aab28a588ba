"""Work aside: which loop it runs on. How it is stopped, ``test_run`` and ``test_kill`` show."""

from __future__ import annotations

import asyncio
import importlib.util
import sys

import pytest

from airflow_provider_regal.delivery.aside import run_aside


def kind_of_loop():
    found = []

    async def work():
        found.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    run_aside(work, stop=lambda: None, every_s=10, tick=lambda: None)
    return found


def test_where_uvloop_is_installed_it_runs_on_that():
    assert kind_of_loop() == ["uvloop" if importlib.util.find_spec("uvloop") else "asyncio"]


def test_elsewhere_it_runs_on_what_python_brings(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)  # so it cannot be imported
    assert kind_of_loop() == ["asyncio"]


def test_what_the_work_raises_is_raised_here():
    async def work():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        run_aside(work, stop=lambda: None, every_s=10, tick=lambda: None)
