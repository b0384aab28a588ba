"""``redeliver``: dead letters sent again from the command line."""

from __future__ import annotations

import argparse
import logging
import sys
from datetime import timedelta

from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.sources.letters import Choice
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks._redelivering import Redelivery
from airflow_provider_regal.hooks.regal import RegalHook


def run_redeliver(args: argparse.Namespace) -> int:
    """Deliver, and show the report.

    :returns: 0 if it succeeded; 1 if not, with the reason on standard error.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    age = timedelta(days=args.max_event_age_days) if args.max_event_age_days else None
    try:
        settings = DeliverySettings.of(call="track", rate=args.rate, max_event_age=age, dry_run=args.dry_run)
        redelivery = Redelivery(
            RegalHook(args.conn_id),
            context=None,
            paths=args.path,
            choice=Choice(
                status=args.status or ["rejected"], event=args.event, has_ledger=args.ledger_conn_id is not None
            ),
            settings=settings,
            ledger_conn_id=args.ledger_conn_id,
        )
        report = redelivery.run()
    except (RegalError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(report.as_table())
    if report.run_folder:
        print(f"Run folder: {report.run_folder}")
    return 0
