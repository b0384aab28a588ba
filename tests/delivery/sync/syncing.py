"""A sync over a ledger of any kind, for tests that need another account, process or secret."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.delivery import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.ledger.account import FRESH_FOR_S, Account
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.deliveries import Try
from tests.delivery.consents import NOW
from tests.ledger.view import ACCOUNT, LedgerView, place_of

SYNC_OPTIONS = ("columns", "initial", "as_event", "on_removed", "full_resync", "max_change_ratio")


def dying(path, after):
    """Return a factory of engines whose database fails permanently after this many transactions."""

    def open_it():
        engine = sqlite_engine(path)
        dies_after(engine, after)
        return engine

    return open_it


def dies_after(engine, transactions):
    """Make a database fail permanently after this many transactions of a delivery."""
    begun = []

    def begin(connection):
        begun.append(1)
        if len(begun) > transactions:
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError("disk I/O error"))

    event.listen(engine, "begin", begin)


def hours_pass(path):
    """Backdate all deliveries, so that no request of theirs can be in flight."""
    LedgerView(path).change("UPDATE regal_deliveries SET held_at = '2000-01-01T00:00:00.000000Z'")


def run_sync(
    rows, regal, run, path, *, account=ACCOUNT, secret=None, engine=None, number=1, epoch=0, now=NOW, lease_s=None,
    fresh_for_s=FRESH_FOR_S, source="dag.task", call="identify", sync=True, timeout_s=30.0, clock=None, **options,
):  # fmt: skip
    """Run one try.

    :param run: each has its own delivery.
    :param path: the ledger's file.
    :param engine: makes another engine for it.
    :param sync: False for a plain delivery through the same ledger.
    """
    given = {name: options.pop(name) for name in SYNC_OPTIONS if name in options}
    url, key = (regal.url, regal.api_key) if hasattr(regal, "url") else regal
    clock = clock or Clock(now=lambda: now, jitter=lambda: 0.0)
    if sync:
        options["sync"] = SyncSettings(**given)
        if given.get("as_event"):
            call, options["event"] = "track", given["as_event"]
    with closing(Database(sqlite_engine(path) if engine is None else engine())) as database:
        return Delivery(
            place=place_of(run),
            rows=lambda held: rows() if callable(rows) else rows,
            fingerprint="table",
            settings=DeliverySettings.of(call=call, **options),
            target=Target("regal_test", url, key, rate_limit=100_000, timeout_s=timeout_s),
            account=Account(
                database,
                account=account,
                source=source,
                secret=secret,
                lease_s=lease_s,
                fresh_for_s=fresh_for_s,
                now=clock.now,
            ),
            this=Try(epoch, number),
            clock=clock,
        ).run()
