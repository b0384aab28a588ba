"""One try of a delivery, in this process or in one that is killed: everything it needs can be pickled."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.delivery import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import Try
from airflow_provider_regal.ledger.outcomes import Selection
from airflow_provider_regal.sources.dead_letters import Choice, read_dead_letters
from airflow_provider_regal.sources.segment import read_segment
from tests.consent_model.generator import Step
from tests.ledger.view import engine_of, place_of

LEASE_S = 0.0  # what a crashed delivery had claimed is free at once: the clock of a history stands still
CALLS = {"named": "track", "redeliver": "track"}


@dataclass
class OneTry:
    """What a process has to know.

    :param dies_after: transactions, after which the ledger cannot be used.
    :param hangs_after: rows, after which the source gives no more.
    """

    step: Step
    run: str
    now: datetime
    epoch: int
    number: int
    url: str
    key: str
    account: str
    database: str
    letters: tuple[int, ...] = ()
    dies_after: int | None = None
    hangs_after: int | None = None
    timeout_s: float = 30.0


def run(one: OneTry) -> tuple[str | None, str]:
    """Deliver; returns the name of the error and what it says."""
    engine = engine_of(one.database)
    if one.dies_after is not None:
        _let_die(engine, one.dies_after)
    step = one.step
    settings = dict(step.settings)
    settings.pop("status", None)
    if step.sync is not None:
        settings["sync"] = SyncSettings(**step.sync)
    as_event = (step.sync or {}).get("as_event")
    call = "track" if as_event else CALLS.get(step.kind, "identify")
    clock = Clock(now=lambda: one.now, jitter=lambda: 0.0)
    try:
        with closing(Database(engine)) as database:
            Delivery(
                place=place_of(one.run),
                rows=lambda held: _rows(one, held),
                fingerprint=step.source,
                settings=DeliverySettings.of(call=call, event=as_event, outage_patience=0.03, **settings),
                target=Target("regal_test", one.url, one.key, rate_limit=100_000, timeout_s=one.timeout_s),
                pacer=Pacer(100_000),
                account=Account(
                    database, account=one.account, source=step.source, secret=None, lease_s=LEASE_S, now=clock.now
                ),
                this=Try(one.epoch, one.number),
                clock=clock,
            ).run()
    except RegalError as error:
        return type(error).__name__, str(error)
    return None, ""


def run_and_tell(one: OneTry, pipe: Any) -> None:
    """Deliver in a process of its own."""
    pipe.send(run(one))


def _rows(one: OneTry, held: Any) -> Any:
    step = one.step
    if step.kind == "redeliver":
        chosen = Selection(one.account, deliveries=one.letters, status=step.settings["status"])
        return read_dead_letters(held, Choice(chosen, allow_empty=True))
    if step.kind == "segment":
        lines = "".join(json.dumps(message) + "\n" for message in step.written)
        return _until(one.hangs_after, read_segment(io.BytesIO(lines.encode()), "archive"))
    return _until(one.hangs_after, iter(step.written))


def _until(hangs_after: int | None, rows: Iterator[Any]) -> Iterator[Any]:
    for number, row in enumerate(rows):
        if hangs_after is not None and number >= hangs_after:
            time.sleep(600)  # until the process is killed
        yield row
    if hangs_after is not None:
        time.sleep(600)


def _let_die(engine: Any, transactions: int) -> None:
    begun: list[int] = []

    def begin(connection: Any) -> None:
        begun.append(1)
        if len(begun) > transactions:
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError("disk I/O error"))

    event.listen(engine, "begin", begin)
