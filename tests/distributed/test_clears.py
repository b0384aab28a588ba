"""Clearing a finished and a failed task, whichever worker gets it."""

from __future__ import annotations

import time

import pytest

from tests.distributed.source import add_rows
from tests.distributed.stack import FAST
from tests.distributed.verify import newest, verify

pytestmark = pytest.mark.distributed
ROWS = 400
EVERY = 25  # requests that Regal refuses: some of both tasks


def newest_by_task(stack, run):
    return {one.task_id: one for one in newest(stack.record.deliveries(run.dag_id, run.run_id))}


def test_cleared(stack, note):
    """A clear of failed tasks sends the refused events and all contacts; of finished ones, the contacts alone."""
    for task in ("events", "contacts"):
        add_rows(stack.source_url, "cleared", task, shards=1, rows=ROWS)
    stack.regal.set_faults([{"on": {"every": EVERY}, "do": {"status": 400}}])
    began = time.monotonic()
    run = stack.airflow.trigger("cleared")
    assert run.wait(120) == "failed"
    failed = newest_by_task(stack, run)
    refused = {task: one.rejected for task, one in failed.items()}
    assert all(refused.values()), refused
    for one in failed.values():
        assert one.state == "failed"
        assert one.read == ROWS == one.acknowledged + one.rejected

    stack.regal.set_faults([])
    mark = stack.regal.requests
    run.clear()
    assert run.wait(120) == "success"
    again = newest_by_task(stack, run)
    assert stack.regal.requests - mark == refused["events"] + ROWS, "refused events, and all contacts"
    assert again["events"].id == failed["events"].id
    assert again["contacts"].id != failed["contacts"].id
    times = stack.regal.stats()["by_status"]
    found = verify(stack, [run], limit=FAST, since={"contacts": mark}, statuses=("200", "400"))
    assert found["rejected"] == 0

    mark = stack.regal.requests
    run.clear()
    assert run.wait(120) == "success"
    assert stack.regal.requests - mark == ROWS, "finished events have nothing to do, finished contacts are sent again"
    assert newest_by_task(stack, run)["events"].id == failed["events"].id
    note(**found, seconds=round(time.monotonic() - began, 1), refused=refused, by_status=times)
