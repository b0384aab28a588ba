"""A dry run: every row is mapped and validated, none is sent, nothing is remembered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from airflow_provider_regal.delivery.prepare import Preparer, Refused, as_row
from airflow_provider_regal.delivery.run import Rows
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.events.privacy import keys_only
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.rows import decode_row, encode_row

_SAMPLES: Final = 3


def preview(rows: Rows, settings: DeliverySettings, *, event_source: str, log: Callable[..., None]) -> DeliveryReport:
    """Say what a delivery would send.

    :param log: gets the samples, masked, and the report.
    """
    report = DeliveryReport(run_folder="", status="dry_run")
    preparer = Preparer(settings, event_source=event_source)
    sendable = 0
    for position, row in enumerate(islice(rows, settings.limit)):
        report.read += 1
        # Through the form of the snapshot, so that a dry run meets the same values as a real one.
        prepared = preparer.prepare(position, decode_row(encode_row(as_row(row))), datetime.now(UTC))
        if isinstance(prepared, Refused):
            report.rejected += 1
            report.reasons[str(prepared.faults[0])] += 1
            continue
        report.skipped += 1
        report.opt_ins_withheld += len(prepared.payload.withheld)
        if sendable < _SAMPLES:
            log("Row %d would be sent as %s %s", position, prepared.payload.call, keys_only(prepared.payload.body))
        sendable += 1
    log("Dry run: %s of %s rows would be sent\n%s", f"{sendable:,}", f"{report.read:,}", report.as_table())
    return report
