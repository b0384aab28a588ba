"""A sync whose ledger can be anything, for tests that need more than one account, process or secret."""

from __future__ import annotations

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.journal.ledger import Ledger, sqlite_engine
from tests.delivery.consents import NOW

SYNC_OPTIONS = ("columns", "initial", "as_event", "on_removed", "full_resync", "max_change_ratio")


def dying(path, after):
    """A ledger whose database fails for good after so many transactions."""

    def open_it():
        engine, begun = sqlite_engine(path), []

        def begin(connection):
            begun.append(1)
            if len(begun) > after:
                raise OperationalError("BEGIN", {}, OSError("disk I/O error"))

        event.listen(engine, "begin", begin)
        return engine

    return open_it


def run_sync(
    rows, regal, folder, path, *, account="acme", secret=None, engine=None, number=1, epoch=0, now=NOW, lease_s=120.0,
    source="dag.task", call="identify", sync=True, timeout_s=30.0, clock=None, **options,
):  # fmt: skip
    """Run one try; with ``sync=False`` a plain delivery through the same ledger."""
    given = {name: options.pop(name) for name in SYNC_OPTIONS if name in options}
    url, key = (regal.url, regal.api_key) if hasattr(regal, "url") else regal
    clock = clock or Clock(now=lambda: now, jitter=lambda: 0.0)

    def open_ledger():
        opened = sqlite_engine(path) if engine is None else engine()
        return Ledger(
            opened, account=account, run=str(folder), source=source, secret=secret, lease_s=lease_s, now=clock.now
        )

    if sync:
        options["sync"] = SyncSettings(**given)
        if given.get("as_event"):
            call, options["event"] = "track", given["as_event"]
    return Delivery(
        folder=folder,
        rows=rows if callable(rows) else lambda: rows,
        fingerprint="table",
        settings=DeliverySettings.of(call=call, **options),
        target=Target("regal_test", url, key, rate_limit=100_000, timeout_s=timeout_s),
        pacer=Pacer(100_000),
        this=Try(epoch, number),
        clock=clock,
        open_ledger=open_ledger,
    ).run()
