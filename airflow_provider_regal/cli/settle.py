"""``settle``: mark unknown rows that somebody found at Regal."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from airflow_provider_regal.cli.opening import CommandError, command, opened
from airflow_provider_regal.cli.output import plural
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.found import mark_found, unmark_found
from airflow_provider_regal.ledger.text import to_ledger_time

_NAMED: Final = 10


@command
def run_settle(args: argparse.Namespace) -> int:
    """Mark rows, or undo it; an error names those that could not be marked."""
    with opened(args.ledger_conn_id) as database:
        if history.find_delivery(database, args.delivery) is None:
            raise CommandError(f"There is no delivery {args.delivery}. List deliveries with: airflow regal deliveries")
        rows = None if args.all else args.rows
        if args.undo:
            marked = database.write(partial(unmark_found, delivery=args.delivery, positions=rows))
        else:
            now = to_ledger_time(database.now())
            marked = database.write(partial(mark_found, delivery=args.delivery, positions=rows, found_at=now))
    done = "no longer marked as found" if args.undo else "marked as found"
    print(f"Delivery {args.delivery}: {plural(len(marked), 'row is', 'rows are')} {done} at Regal.")
    if missed := sorted({*(rows or ())} - marked):
        which = ", ".join(map(str, missed[:_NAMED])) + (", ..." if len(missed) > _NAMED else "")
        why = "not marked" if args.undo else "not unknown, marked already, or taken by a redelivery"
        raise CommandError(
            f"{plural(len(missed), 'row')} of delivery {args.delivery} left as before, since {why}: {which}. List "
            f"them with: airflow regal outcomes {args.delivery} --status unknown"
        )
    if not marked:
        raise CommandError(f"Delivery {args.delivery} has no such row.")
    return 0
