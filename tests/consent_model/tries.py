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
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from airflow_provider_regal.client.clock import Clock
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
from tests.databases import administer
from tests.ledger.view import engine_of, place_of

LEASE_S = 0.0  # a crashed delivery's claims are free at once, because a history's clock stands still
CALLS = {"named": "track", "redeliver": "track"}


@dataclass
class OneTry:
    """What a process has to know.

    :param secret: the ledger's key.
    :param known_before: consents on record after an earlier run of the task.
    :param dies_after: number of transactions after which the ledger fails.
    :param backends: from which transaction on, and how often, the server ends the connection; PostgreSQL only.
    :param hangs_after: number of rows after which the source blocks.
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
    secret: str | None = None
    known_before: int = 0
    letters: tuple[int, ...] = ()
    backends: tuple[int, int] | None = None
    dies_after: int | None = None
    hangs_after: int | None = None
    timeout_s: float = 30.0


class Told(NamedTuple):
    """The result of a try: the error's name and message, and the number of consents on record."""

    error: str | None
    text: str
    on_record: int


def run(one: OneTry) -> Told:
    """Deliver."""
    engine = engine_of(one.database)
    if one.dies_after is not None:
        _let_die(engine, one.dies_after)
    if one.backends is not None and engine.dialect.name == "postgresql":
        _end_backends(engine, one.database, *one.backends)
    step = one.step
    settings = dict(step.settings)
    settings.pop("status", None)
    if step.sync is not None:
        settings["sync"] = SyncSettings(**step.sync, known_before=one.known_before)
    as_event = (step.sync or {}).get("as_event")
    call = "track" if as_event else CALLS.get(step.kind, "identify")
    clock = Clock(now=lambda: one.now, jitter=lambda: 0.0)
    try:
        with closing(Database(engine)) as database:
            delivery = Delivery(
                place=place_of(one.run),
                rows=lambda held: _rows(one, held),
                fingerprint=step.source,
                settings=DeliverySettings.of(call=call, event=as_event, outage_patience=0.03, **settings),
                target=Target("regal_test", one.url, one.key, rate_limit=100_000, timeout_s=one.timeout_s),
                account=Account(
                    database, account=one.account, source=step.source, secret=one.secret and one.secret.encode(),
                    lease_s=LEASE_S, now=clock.now,
                ),
                this=Try(one.epoch, one.number),
                clock=clock,
            )  # fmt: skip
            try:
                delivery.run()
            except RegalError as error:
                return Told(type(error).__name__, str(error), delivery.report.consents_on_record)
            return Told(None, "", delivery.report.consents_on_record)
    except RegalError as error:
        return Told(type(error).__name__, str(error), 0)


def run_and_tell(one: OneTry, pipe: Any) -> None:
    """Deliver in a separate process."""
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


def _end_backends(engine: Any, url: str, first: int, times: int) -> None:
    """End the server's side of a connection, alternately at the start of a transaction and before its commit."""
    begun: list[int] = []

    def end(connection: Any, *, after: int) -> None:
        if first < len(begun) <= first + times and len(begun) % 2 == after:
            pid = connection.connection.dbapi_connection.info.backend_pid
            administer(url, f"SELECT pg_terminate_backend({pid}, 1000)")

    def begin(connection: Any) -> None:
        begun.append(1)
        end(connection, after=0)

    event.listen(engine, "begin", begin)
    event.listen(engine, "commit", lambda connection: end(connection, after=1))
