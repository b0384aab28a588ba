"""One of many senders of an account: ``python -m benchmarks.sharing_worker '{"url": ..., "ledger": ...}'``.

It delivers events until it has sent all or its time is up, and prints the result; or it sends single events, one after
the other, each through the hook.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import warnings
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ACCOUNT = "benchmark"


@dataclass(frozen=True)
class Sender:
    """The work of one sender.

    :param ledger: path of an SQLite file, or a URL of SQLAlchemy.
    :param name: identifies its people, so that the server can distinguish the senders.
    :param rows: maximum number of rows.
    :param seconds: after which it stops.
    :param singles: send them one by one.
    :param rate: its own limit; None for its share.
    """

    url: str
    key: str
    ledger: str
    name: str
    rate_limit: int
    rows: int = 1_000_000
    seconds: float = 10.0
    singles: bool = False
    rate: int | None = None
    log: bool = False

    def command(self) -> list[str]:
        """Return its command line."""
        return [sys.executable, "-m", "benchmarks.sharing_worker", json.dumps(asdict(self))]


def open_ledger(where: str) -> Any:
    """Open a ledger by its path or URL."""
    from sqlalchemy import create_engine

    from airflow_provider_regal.ledger.database import Database, sqlite_engine

    return Database(create_engine(where) if "://" in where else sqlite_engine(Path(where)))


def deliver(sender: Sender) -> int:
    """Deliver; return how many were acknowledged."""
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.delivery import Delivery
    from airflow_provider_regal.delivery.settings import DeliverySettings
    from airflow_provider_regal.delivery.stopping import Stop
    from airflow_provider_regal.errors import RetryLaterError
    from airflow_provider_regal.ledger.account import Account
    from airflow_provider_regal.ledger.deliveries import Place

    stop = Stop()
    with closing(open_ledger(sender.ledger)) as database:
        delivery = Delivery(
            place=Place.outside_a_task(),
            rows=lambda held: ({"user_id": f"{sender.name}-{number}"} for number in range(sender.rows)),
            fingerprint="",
            settings=DeliverySettings.of(
                call="track", event="X", rate=sender.rate, max_connections=512, guarantee="at_least_once"
            ),
            target=Target("benchmark", sender.url, sender.key, rate_limit=sender.rate_limit),
            account=Account(database, account=ACCOUNT),
            stop=stop,
        )
        timer = threading.Timer(sender.seconds, stop.request)
        timer.start()
        try:
            return delivery.run().acknowledged
        except RetryLaterError:
            return delivery.report.acknowledged
        finally:
            timer.cancel()


def send_one_by_one(sender: Sender) -> int:
    """Send single events, in a loop over ``hook.track``."""
    from airflow_provider_regal.client.clock import Clock
    from airflow_provider_regal.client.one import Sender as One
    from airflow_provider_regal.client.pace import Pacer
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.sending.share import SlotPacer
    from airflow_provider_regal.events import Track, to_payload
    from airflow_provider_regal.ledger.account import Account
    from airflow_provider_regal.ledger.shares import Shares

    target, clock, count = Target("benchmark", sender.url, sender.key), Clock(), 0
    with closing(open_ledger(sender.ledger)) as database:
        account = Account(database, account=ACCOUNT)
        account.register(sender.key)
        shares = Shares(account, rate_limit=sender.rate_limit)
        one = One(target, pacer=SlotPacer(shares, Pacer(sender.rate_limit), clock=clock), patience_s=60)
        ends = time.monotonic() + sender.seconds
        while count < sender.rows and time.monotonic() < ends:
            event = Track(event="X", user_id=f"{sender.name}-{count}")
            one.send(to_payload(event, now=clock.now(), event_source=""), "at_most_once")
            count += 1
    return count


def main() -> None:
    """Do what the command line requests."""
    sender = Sender(**json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    if sender.log:
        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    began = time.monotonic()
    count = send_one_by_one(sender) if sender.singles else deliver(sender)
    print(json.dumps({"name": sender.name, "sent": count, "began": began, "ended": time.monotonic()}))


if __name__ == "__main__":
    main()
