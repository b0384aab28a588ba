"""One try of a delivery in a separate process, for tests that kill it: ``python driver.py '{"url": ...}'``.

Prints the report and the error as JSON; warnings of asyncio go to stderr.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
import warnings
from contextlib import closing
from pathlib import Path

from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.approved import Approved
from airflow_provider_regal.delivery.delivery import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Place, Try
from tests.ledger.view import ACCOUNT, open_database, place_of


class TaskTimeoutError(BaseException):
    """As Airflow's: not an Exception."""


def rows_of(given: dict):
    """Yield the rows; if requested, slowly, after reporting that reading has begun."""
    if given.get("reading"):
        Path(given["reading"]).touch()
    for number in range(given["rows"]):
        if pause_s := given.get("pause_s"):
            time.sleep(pause_s)
        yield {"user_id": f"{given.get('run', '')}u{number}", "amount": number}


def main(given: dict) -> None:
    warnings.simplefilter("always")
    logging.basicConfig(level=logging.WARNING)
    call = given.get("call", "track")
    options = {"event": "Lesson Booked"} if call == "track" else {}
    rate = given.get("rate", 100_000)
    stop = Stop()
    with closing(open_database(given["database"])) as database:
        account = Account(database, account=ACCOUNT, source="dag.task")
        settings = DeliverySettings.of(
            call=call, max_connections=given.get("connections", 32), max_unknown=1.0, **options, **given["options"]
        )
        approved = None
        if plan := given.get("approved"):
            approved = Approved(plan, Place("dag", "run", "send"), 7.0)
            settings = approved.settings(account, settings, ["max_unknown"])
        delivery = Delivery(
            place=place_of(given.get("run", "run")),
            rows=lambda held: rows_of(given),
            fingerprint="table",
            settings=settings,
            target=Target(
                "regal_test", given["url"], given["key"], rate_limit=rate, timeout_s=given.get("timeout_s", 2)
            ),
            account=account,
            this=Try(0, given["number"]),
            stop=stop,
            approved=approved,
        )

        def raise_timeout(*_: object) -> None:
            raise TaskTimeoutError

        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, stop.request)
        signal.signal(signal.SIGALRM, raise_timeout)
        error = None
        try:
            delivery.run()
        except (RegalError, TaskTimeoutError, KeyboardInterrupt) as caught:
            error = caught
        sys.stdout.write(json.dumps({**delivery.report.as_dict(), "error": type(error).__name__, "says": str(error)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
