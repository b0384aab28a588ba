"""A delivery against a real local Regal and a real ledger in a file, without Airflow."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.approved import Approved
from airflow_provider_regal.delivery.delivery import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Place, Try
from airflow_provider_regal.testing import Sandbox
from tests.delivery.consents import NOW
from tests.delivery.redelivering import Redeliver
from tests.ledger.view import ACCOUNT, LedgerView, open_database, place_of

UNLIMITED = 100_000


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(ledger_path: Path) -> LedgerView:
    """The content of this test's ledger."""
    return LedgerView(ledger_path)


def source_of(rows) -> Callable:
    """:param rows: a list, or a function that opens the source; it may take the delivery."""
    if not callable(rows):
        return lambda held: rows
    return rows if inspect.signature(rows).parameters else lambda held: rows()


@pytest.fixture
def deliver(ledger_path: Path, regal_sandbox: Sandbox) -> Callable:
    """Run one try of a delivery; return its report. ``deliver.last`` is the delivery."""

    def run(
        rows,
        *,
        call="track",
        number=1,
        epoch=0,
        source="table",
        timeout_s=30.0,
        rate=UNLIMITED,
        of_run="run",
        name=None,
        now=None,
        path=None,
        account=ACCOUNT,
        task="dag.task",
        secret=None,
        lease_s=None,
        clock=None,
        database=None,
        on_progress=None,
        url=None,
        **options,
    ):
        """:param number: of the try. :param url: of another server.
        :param of_run: each run has a delivery of its own, on one ledger.
        :param now: stops the clock. :param path: of another ledger. :param database: an open one; it stays open."""
        if call == "track" and "sync" not in options:
            options.setdefault("event", "Lesson Booked")
        clock = clock or (Clock() if now is None else Clock(now=lambda: now))
        opened = database or open_database(path or ledger_path)
        try:
            delivery = Delivery(
                place=place_of(of_run, name),
                rows=source_of(rows),
                fingerprint=source,
                settings=DeliverySettings.of(call=call, **options),
                target=Target(
                    "regal_test", url or regal_sandbox.url, regal_sandbox.api_key, rate_limit=rate, timeout_s=timeout_s
                ),
                account=Account(opened, account=account, source=task, secret=secret, lease_s=lease_s, now=clock.now),
                this=Try(epoch, number),
                clock=clock,
                **({} if on_progress is None else {"on_progress": on_progress}),
            )
            run.last = delivery
            return delivery.run()
        finally:
            if database is None:
                opened.close()

    return run


@pytest.fixture
def send(ledger_path: Path, regal_sandbox: Sandbox) -> Callable:
    """Send a plan in one try of a task; return its report."""

    def run(plan, *, number=1, epoch=0, task="send", now=None, plan_days=7.0, account=ACCOUNT, path=None, **changes):
        """:param plan: its report, or its number. :param number: of the try. :param changes: options of sending."""
        clock = Clock() if now is None else Clock(now=lambda: now)
        approved = Approved(getattr(plan, "delivery", plan), Place("dag", "run", task), plan_days)
        opened = open_database(path or ledger_path)
        try:
            opened_account = Account(opened, account=account, source=f"dag.{task}", now=clock.now)
            given = DeliverySettings.of(call="identify", **changes)
            changed = ["outage_patience_s" if name == "outage_patience" else name for name in changes]
            return Delivery(
                place=approved.sender,
                rows=lambda held: pytest.fail("the source is read again"),
                fingerprint="",
                settings=approved.settings(opened_account, given, changed),
                target=Target("regal_test", regal_sandbox.url, regal_sandbox.api_key, rate_limit=UNLIMITED),
                account=opened_account,
                this=Try(epoch, number),
                clock=clock,
                approved=approved,
            ).run()
        finally:
            opened.close()

    return run


@pytest.fixture
def plan(deliver):
    """Make a plan, in a new run by default."""
    runs = iter(range(1_000))

    def run(rows, *, of_run=None, **options):
        return deliver(rows, of_run=of_run or f"plan-{next(runs)}", plan=True, **options)

    return run


@pytest.fixture
def sync(deliver):
    """Run a sync, each in a new run unless ``of_run`` names one."""
    runs = iter(range(1_000))

    def run(rows, *, initial="send", of_run=None, now=NOW, sync=None, **options):
        given = SyncSettings(initial=initial, **(sync or {}))
        of_run = of_run or f"run-{next(runs)}"
        call = {"call": "track", "event": given.as_event} if given.as_event else {"call": "identify"}
        return deliver(rows, **call, sync=given, of_run=of_run, now=now, **options)

    return run


@pytest.fixture
def redeliver(deliver, ledger):
    """Send the dead letters of runs again."""
    return Redeliver(deliver, ledger)
