"""The stack of the tests marked ``distributed``, started once for all of them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.distributed import stack as stacks


@pytest.fixture(scope="session")
def measured() -> Iterator[list[dict[str, Any]]]:
    """What the tests measured; if ``FULL`` is set, it replaces these tests' results in ``benchmarks/results``."""
    found: list[dict[str, Any]] = []
    yield found
    if os.environ.get("FULL"):
        from benchmarks.running import RESULTS, write_results

        file = RESULTS / "distributed.json"
        kept = json.loads(file.read_text())["rounds"] if file.exists() else []
        by_name = {one["scenario"]: one for one in [*kept, *found]}
        write_results("distributed", [by_name[name] for name in sorted(by_name)])


@pytest.fixture(scope="session")
def running_stack() -> Iterator[stacks.Stack]:
    """A running Airflow with two Celery workers."""
    if importlib.util.find_spec("celery") is None:
        pytest.fail("this needs Airflow's Celery provider: run make distributed")
    # Without this, everything would keep running after pytest is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with stacks.running() as stack:
        sys.stderr.write(f"\nlogs in {stack.folder}\n")
        yield stack


@pytest.fixture
def stack(running_stack: stacks.Stack) -> stacks.Stack:
    """The stack, with all processes running and an empty local Regal."""
    running_stack.processes.check()
    running_stack.regal.reset()
    return running_stack


@pytest.fixture
def note(request: pytest.FixtureRequest, measured: list[dict[str, Any]], record_property: Callable) -> Callable:
    """Store what a test measured: for the terminal, and for ``benchmarks/results``."""

    def keep(**values: Any) -> None:
        at, load = datetime.now(UTC).isoformat(timespec="seconds"), round(os.getloadavg()[0], 1)
        measured.append({"scenario": request.node.name.removeprefix("test_"), **values, "at": at, "load": load})
        for name, value in values.items():
            record_property(name, value)

    return keep
