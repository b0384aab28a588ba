"""One try of a delivery in a process of its own, for tests that kill it: ``python driver.py '{"url": ...}'``.

Prints the report and the error as JSON; warnings of asyncio go to stderr.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from pathlib import Path

from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.errors import RegalError


class TaskTimeoutError(BaseException):
    """As Airflow's: not an Exception."""


def main(given: dict) -> None:
    warnings.simplefilter("always")
    logging.basicConfig(level=logging.WARNING)
    call = given.get("call", "track")
    options = {"event": "Lesson Booked"} if call == "track" else {}
    rate = given.get("rate", 100_000)
    delivery = Delivery(
        folder=Path(given["folder"]),
        rows=lambda: [{"user_id": f"u{number}", "amount": number} for number in range(given["rows"])],
        fingerprint="table",
        settings=DeliverySettings.of(
            call=call, max_connections=given.get("connections", 32), max_unknown=1.0, **options, **given["options"]
        ),
        target=Target("regal_test", given["url"], given["key"], rate_limit=rate, timeout_s=given.get("timeout_s", 30)),
        pacer=Pacer(rate),
        this=Try(0, given["number"]),
        lost=given.get("lost", False),
    )

    def raise_timeout(*_: object) -> None:
        raise TaskTimeoutError

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: delivery.stop())
    signal.signal(signal.SIGALRM, raise_timeout)
    error = None
    try:
        delivery.run()
    except (RegalError, TaskTimeoutError, KeyboardInterrupt) as caught:
        error = caught
    sys.stdout.write(json.dumps({**delivery.report.as_dict(), "error": type(error).__name__, "says": str(error)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
