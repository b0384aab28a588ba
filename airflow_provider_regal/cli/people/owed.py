"""``consent owed``: list opt-outs that were read and that Regal has not acknowledged, or send exactly those."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, identifiers, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.hooks._delivering import TaskDelivery
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.people.owed import OwedOptOut, count_owed, owed_opt_outs
from airflow_provider_regal.ledger.text import short

_HASHED: Final = (
    "With [regal] ledger_key the ledger holds hashes, so whose these are is not known here. They keep barring older "
    "opt-ins. To send them, clear the tasks that read them."
)
_LOOKED_AT: Final = 1_000
_COLUMNS: Final = (
    Column("FOR"), Column("CHANNEL"), Column("OPTED OUT (UTC)"), Column("OWED SINCE (UTC)"), Column("READ BY"),
    Column("ACCOUNT"),
)  # fmt: skip


def run_owed(args: argparse.Namespace) -> int:
    """List the opt-outs that Regal lacks, or send them; return 1 if any is left after that."""
    return _send(args) if args.send else _list(args)


def _list(args: argparse.Namespace) -> int:
    account = None if args.account is None else short(args.account)
    with opened(args.ledger_conn_id) as database:
        running = history.running_deliveries(database)
        owed = owed_opt_outs(database, account, without=running)
        if args.json:
            print(json.dumps([_as_dict(one) for one in owed], indent=1))
        else:
            _print_table(owed)
        listed = count_owed(database, account, without=running).opt_outs
        on_their_way = count_owed(database, account).opt_outs - listed
    if not listed:
        print("Regal has acknowledged every opt-out that could be sent.", file=sys.stderr)
    elif not identifiers().plain:
        print(_HASHED, file=sys.stderr)
    else:
        print(
            f"Regal lacks {plural(listed, 'opt-out')}. The next delivery of contacts sends them first; to send them "
            "now, add --send.",
            file=sys.stderr,
        )
    if on_their_way > 0:
        print(
            f"{plural(on_their_way, 'more is', 'more are')} left to the deliveries that run and have read them.",
            file=sys.stderr,
        )
    return 0


def _as_dict(owed: OwedOptOut) -> dict[str, Any]:
    return {
        "account": owed.account,
        "identifier": owed.identifier,
        "channel": owed.channel,
        "opted_out_at": owed.at,
        "owed_since": owed.since,
        "task": owed.source or None,
        "delivery": int(owed.delivery) if owed.delivery.isdigit() else None,
    }


def _print_table(owed: Iterable[OwedOptOut]) -> None:
    cells = (
        [
            output.one_line(cell)
            for cell in (
                output.identifier(one.identifier), one.channel, output.time(one.at), output.time(one.since),
                one.source or (f"delivery {one.delivery}" if one.delivery else "-"), one.account,
            )
        ]
        for one in owed
    )  # fmt: skip
    while some := [*islice(cells, _LOOKED_AT)]:
        for line in output.draw(_COLUMNS, some):
            print(line)


def _send(args: argparse.Namespace) -> int:
    hook = RegalHook(args.conn_id)
    account = short(hook.target.account)
    if args.account is not None and short(args.account) != account:
        raise CommandError(
            f"Connection {args.conn_id!r} is of account {account!r}, not {args.account!r}. Name one of that account "
            "with --conn-id."
        )
    with opened(args.ledger_conn_id) as database:
        owed = count_owed(database, account, without=history.running_deliveries(database)).opt_outs
    if owed and not identifiers().plain:
        raise CommandError(_HASHED)
    if owed and hook.dry_run:
        raise CommandError("Nothing is sent: dry_run is on, in the connection or in [regal].")
    sent, left, delivery = 0, 0, None
    if owed:
        stop = Stop()
        paying = TaskDelivery(
            hook,
            context=None,
            settings=DeliverySettings.of(call="identify"),
            rows=lambda held: (),  # any delivery of contacts sends what is owed, even one without rows
            source=("owed opt-outs",),
            ledger_conn_id=args.ledger_conn_id,
            stop=stop,
        )
        before = signal.signal(signal.SIGTERM, stop.request)
        try:
            report = paying.run()
        finally:
            signal.signal(signal.SIGTERM, before)
        sent, left, delivery = report.owed_sent, report.opt_outs_owed, report.delivery
    if args.json:
        print(json.dumps({"delivery": delivery, "sent": sent, "owed": left}))
    elif delivery is None:
        print("Regal has acknowledged every opt-out that could be sent; nothing was sent.")
    else:
        print(f"Delivery {delivery}: Regal acknowledged {plural(sent, 'opt-out')}; {left:,} still owed.")
        if left:
            print(f"Why: airflow regal outcomes {delivery}", file=sys.stderr)
    return int(bool(left))
