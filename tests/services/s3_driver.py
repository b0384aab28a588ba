"""One try of a delivery whose run folder is in a bucket, in a process of its own: ``python s3_driver.py '{...}'``.

Prints the report, and what came of it, as JSON. On SIGUSR1 it freezes, as a suspended machine does, when the sending
next looks at the clock: then no request is half on its way. On uvloop there may be: it collects what is written, and
sends it a few milliseconds later.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time

from s3fs import S3FileSystem

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.journal.bucket import Bucket


def main(given: dict) -> None:
    # Without Airflow, which takes seconds to import.
    fs = S3FileSystem(key="testing", secret="testing", endpoint_url=given["endpoint"], skip_instance_cache=True)
    bucket = Bucket(fs, "journal/prefix", "s3://bucket@journal/prefix", patience_s=given["patience_s"])
    logging.basicConfig(level=logging.ERROR)
    options = {"event": "Lesson Booked"} if given["call"] == "track" else {}
    rate = given["rate"]
    delivery = Delivery(
        folder=bucket.below(*given["folder"]),
        rows=lambda: [{"user_id": f"u{number}", "amount": number} for number in range(given["rows"])],
        fingerprint="table",
        settings=DeliverySettings.of(call=given["call"], max_unknown=1.0, **options, **given["options"]),
        target=Target(
            "regal",
            given["url"],
            given["key"],
            rate_limit=rate,
            timeout_s=given["timeout_s"],
            event_source=f"try {given['number']}",
        ),
        pacer=Pacer(rate),
        this=Try(given.get("epoch", 0), given["number"]),
        clock=Clock(monotonic=monotonic),
    )
    if not given["uvloop"]:
        sys.modules["uvloop"] = None
    signal.signal(signal.SIGUSR1, lambda *_: to_freeze.append(True))
    signal.signal(signal.SIGTERM, lambda *_: delivery.stop())
    error = None
    try:
        delivery.run()
    except RegalError as caught:
        error = caught
    sys.stdout.write(json.dumps({**delivery.report.as_dict(), "error": type(error).__name__, "says": str(error)}))


to_freeze = []


def monotonic() -> float:
    """Freeze, if that is due; else say what time it is."""
    if to_freeze and threading.current_thread().name.startswith("regal-delivery"):
        to_freeze.clear()
        os.kill(os.getpid(), signal.SIGSTOP)
    return time.monotonic()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
