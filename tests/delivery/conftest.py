"""A delivery against a real local Regal, without Airflow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.journal.ledger import Ledger, sqlite_engine
from airflow_provider_regal.testing import Sandbox
from tests.delivery.consents import NOW

UNLIMITED = 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def folder_of_first_run(folder: Path) -> Path:
    return folder


def open_ledger(path, folder, clock):
    return Ledger(sqlite_engine(path), account="acme", run=str(folder), source="dag.task", now=clock.now)


@pytest.fixture
def deliver(folder_of_first_run: Path, regal_sandbox: Sandbox) -> Callable:
    """Run one try of a delivery; gives its report."""

    def run(
        rows,
        *,
        call="track",
        number=1,
        epoch=0,
        lost=False,
        source="table",
        timeout_s=30.0,
        rate=UNLIMITED,
        of_run="run",
        ledger=None,
        now=None,
        around=nullcontext,
        **options,
    ):
        """:param ledger: path of an SQLite ledger. :param of_run: another run has a folder of its own."""
        if call == "track" and "sync" not in options:
            options.setdefault("event", "Lesson Booked")
        folder = folder_of_first_run.parent / of_run
        clock = Clock() if now is None else Clock(now=lambda: now)
        target = Target("regal_test", regal_sandbox.url, regal_sandbox.api_key, rate_limit=rate, timeout_s=timeout_s)
        delivery = Delivery(
            folder=folder,
            rows=rows if callable(rows) else lambda: rows,
            fingerprint=source,
            settings=DeliverySettings.of(call=call, **options),
            target=target,
            pacer=Pacer(rate),
            this=Try(epoch, number),
            lost=lost,
            clock=clock,
            open_ledger=None if ledger is None else lambda: open_ledger(ledger, folder, clock),
            around=around,
        )
        run.last = delivery
        return delivery.run()

    return run


@pytest.fixture
def ledger_path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def sync(deliver, ledger_path):
    """Run a sync; each in a run of its own unless it is said which."""
    runs = iter(range(1_000))

    def run(rows, *, initial="send", of_run=None, now=NOW, sync=None, **options):
        given = SyncSettings(initial=initial, **(sync or {}))
        of_run = of_run or f"run-{next(runs)}"
        call = {"call": "track", "event": given.as_event} if given.as_event else {"call": "identify"}
        return deliver(rows, **call, sync=given, ledger=ledger_path, of_run=of_run, now=now, **options)

    return run
