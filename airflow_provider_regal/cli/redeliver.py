"""``redeliver``: send dead letters again from the command line."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import signal
import sys
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.cli.commands import INTERRUPTED, When
from airflow_provider_regal.cli.delivering import progress_on_stderr, stopped_by, which_try
from airflow_provider_regal.cli.opening import CommandError, log_on_stderr, missing_connection
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import FixSourceError, RegalError
from airflow_provider_regal.hooks._delivering import TaskDelivery
from airflow_provider_regal.hooks._ledger import open_account
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.deliveries import Place, Try
from airflow_provider_regal.ledger.outcomes import Selection, read_letters
from airflow_provider_regal.ledger.text import LONGEST_NAME, short, to_ledger_time
from airflow_provider_regal.sources.dead_letters import Choice, read_dead_letters

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def run_redeliver(args: argparse.Namespace) -> int:
    """Deliver, and print the report.

    :returns: 0 if it succeeded; 1 if not, with the reason on standard error; 130 if it was interrupted.
    """
    try:
        with log_on_stderr(logging.INFO), progress_on_stderr():
            return _redeliver(args)
    except FixSourceError:
        print(
            f"error: No dead letter matches ({', '.join(_selection(args))}); nothing was sent. If there may be none, "
            "add --allow-empty. List deliveries with: airflow regal deliveries",
            file=sys.stderr,
        )
    except (RegalError, CommandError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    except AirflowException as error:
        print(f"error: {missing_connection(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted. The same command resumes.", file=sys.stderr)
        return INTERRUPTED
    return 1


def _redeliver(args: argparse.Namespace) -> int:
    age = timedelta(days=args.max_event_age_days) if args.max_event_age_days else None
    settings = DeliverySettings.of(
        call="track", event=args.event, rate=args.rate, max_event_age=age, dry_run=args.dry_run, limit=args.limit
    )
    hook = RegalHook(args.conn_id)
    looks_only = args.dry_run or hook.dry_run
    choice = _choice(args, hook.target.account)
    # The same command with the same selection is the same delivery, and resumes. Its speed may differ.
    arguments = (*_selection(args), f"event {args.event}", f"limit {args.limit}")
    place = Place(run_id=f"redeliver {hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:16]}")
    this = Try()
    account = open_account(hook.target, args.ledger_conn_id)
    with closing(account.database) as database:
        if not looks_only:
            this = which_try(account, place)
        # An empty redelivery would only clutter the list of deliveries.
        if this.number == 1 and not database.read(partial(_any_letter, selection=choice.selection)):
            if not args.allow_empty:
                raise FixSourceError
            print("No dead letter matches; nothing was sent.")
            return 0
    stop = Stop()
    redelivery = TaskDelivery(
        hook,
        context=None,
        settings=settings,
        rows=lambda held: read_dead_letters(held, choice, looks_only=looks_only, limit=args.limit, restarts=False),
        source=("dead letters", *arguments),
        ledger_conn_id=args.ledger_conn_id,
        place=place,
        this=this,
        stop=stop,
    )
    try:
        with stopped_by(stop, signal.SIGTERM):
            redelivery.run()
    finally:
        if (report := redelivery.report) is not None and (report.read or args.allow_empty):
            print(report.as_table())
            print(
                f"Delivery {report.delivery}" if report.delivery is not None else "Dry run: nothing was sent or taken"
            )
    return 0


def _choice(args: argparse.Namespace, account: str) -> Choice:
    selection = Selection(
        account=short(account),
        deliveries=tuple(args.delivery),
        dag_id=args.dag and short(args.dag, LONGEST_NAME),
        task_id=args.task and short(args.task, LONGEST_NAME),
        run_id=args.run and short(args.run, LONGEST_NAME),
        since=args.since and to_ledger_time(args.since.moment),
        until=args.until and to_ledger_time(args.until.moment),
        reason=args.reason,
        status=tuple(sorted(set(args.status or ["rejected"]))),
    )
    return Choice(selection, allow_empty=args.allow_empty)


def _any_letter(connection: Connection, selection: Selection) -> bool:
    return any(status in selection.status for *_, status in read_letters(connection, selection))


def _selection(args: argparse.Namespace) -> list[str]:
    """Return the selection of dead letters, as the user wrote it."""
    deliveries = ", ".join(map(str, sorted(set(args.delivery))))
    told = [f"delivery {deliveries}"] if deliveries else []
    for name in ("dag", "task", "run", "since", "until", "reason"):
        given = getattr(args, name)
        if given is not None:
            told.append(f"{name} {given.text if isinstance(given, When) else given}")
    return [*told, "status " + " or ".join(sorted(set(args.status or ["rejected"])))]
