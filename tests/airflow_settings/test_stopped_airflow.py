"""Airflow itself is stopped while tasks send, and restarted; checked in the ledger and in the arrivals."""

from __future__ import annotations

import os
import signal

import pytest

from tests.airflow_settings.ledger import last_delivery
from tests.airflow_settings.sending import ROWS, assert_all_sent_once, wait_until_it_sends

pytestmark = pytest.mark.long


def test_warm_shutdown(airflow, scheduler, record_property):
    run = airflow.start("scheduler_stopped")
    wait_until_it_sends(airflow, run.dag)
    os.kill(scheduler.process.pid, signal.SIGTERM)
    scheduler.process.wait(60)
    assert last_delivery(airflow, run.dag)["state"] == "finished", "it waits for its tasks"
    scheduler.start()
    assert run.wait_for_end()["state"] == "success"
    assert_all_sent_once(airflow, run, record_property, unknown=0)


def test_shutdown_of_all_processes(airflow, scheduler, record_property):
    run = airflow.start("all_stopped")
    wait_until_it_sends(airflow, run.dag)
    os.killpg(scheduler.process.pid, signal.SIGTERM)
    scheduler.process.wait(60)
    line = last_delivery(airflow, run.dag)
    record_property("state", line["state"])
    record_property("state_task", run.state)
    assert airflow.requests(run.dag) < ROWS
    scheduler.start()
    assert run.wait_for_end()["state"] == "success"
    assert_all_sent_once(airflow, run, record_property, unknown=0)
