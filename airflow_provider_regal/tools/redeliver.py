"""``redeliver``: dead letters sent again from the command line."""

from __future__ import annotations

import argparse
import hashlib
import logging
import signal
import sys
from datetime import timedelta
from itertools import count

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.sources.letters import Choice
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks._place import Place, below
from airflow_provider_regal.hooks._redelivering import Redelivery, source_of
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.journal.last_try import last_try

_INTERRUPTED = 130


def run_redeliver(args: argparse.Namespace) -> int:
    """Deliver, and show the report.

    :returns: 0 if it succeeded; 1 if not, with the reason on standard error; 130 if it was interrupted.
    """
    _log_to_standard_error()
    age = timedelta(days=args.max_event_age_days) if args.max_event_age_days else None
    choice = Choice(status=args.status or ["rejected"])
    try:
        settings = DeliverySettings.of(
            call="track", event=args.event, rate=args.rate, max_event_age=age, dry_run=args.dry_run
        )
        redelivery = Redelivery(
            RegalHook(args.conn_id),
            context=None,
            paths=args.path,
            choice=choice,
            settings=settings,
            ledger_conn_id=args.ledger_conn_id,
            place=None if args.dry_run else _place(source_of(args.path, choice)),
        )
        before = signal.signal(signal.SIGTERM, lambda *_: redelivery.stop())
        try:
            report = redelivery.run()
        finally:
            signal.signal(signal.SIGTERM, before)
    except (RegalError, OSError, ValueError, AirflowException) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where it stopped.", file=sys.stderr)
        return _INTERRUPTED
    print(report.as_table())
    if report.run_folder:
        print(f"Run folder: {report.run_folder}")
    return 0


def _log_to_standard_error() -> None:
    ours = logging.getLogger("airflow_provider_regal")
    if not ours.isEnabledFor(logging.INFO) or not ours.hasHandlers():  # else Airflow shows it already
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        ours.setLevel(logging.INFO)


def _place(source: tuple[str, ...]) -> Place:
    """Find where an earlier call of the same command stopped, or else a new place."""
    name = "redeliver-" + hashlib.sha256("\0".join(source).encode()).hexdigest()[:12]
    for number in count(1):
        folder = below("outside-tasks", f"{name}-{number}")
        last = last_try(folder)
        if last is None:
            return Place(folder, Try(), lost=False)
        if last.outcome is None:
            return Place(folder, Try(number=last.try_number + 1), lost=False)
    raise AssertionError("unreachable")
