"""``deliveries`` and ``outcomes``: what was delivered, and which rows were not."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.history import DeliveryDetail
from airflow_provider_regal.ledger.admin.left import LEFT, left_of
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import READING, SENDING, Counts, Record
from airflow_provider_regal.ledger.formats import task_name
from airflow_provider_regal.ledger.outcomes import OutcomeRow, outcomes_of
from airflow_provider_regal.ledger.text import to_ledger_time

_COUNTS: Final = ("read", "acknowledged", "rejected", "unknown", "skipped", "left")
_REASONS_SHOWN: Final = 25
_LOOKED_AT: Final = 200  # rows, for the widths of columns
_WIDEST: Final = 100


# -- deliveries -------------------------------------------------------------------------------------------------------


@command
def run_deliveries(args: argparse.Namespace) -> int:
    """List deliveries, or show one."""
    with opened(args.ledger_conn_id) as database:
        if args.delivery is not None:
            return _show(database, args.delivery, as_json=args.json)
        records = history.list_deliveries(
            database,
            account=args.account,
            dag_id=args.dag,
            task_id=args.task,
            run_id=args.run,
            states=args.state or (),
            since=args.since and to_ledger_time(args.since.moment),
            limit=args.limit + 1,
        )
        now = database.now()
    shown = records[: args.limit]
    if args.json:
        print(json.dumps([_as_dict(record, now) for record in shown], indent=1))
        return 0
    if not shown:
        print("No deliveries.")
        return 0
    several = len({record.account for record in shown}) > 1
    columns = [
        Column("ID", right=True), Column("STARTED (UTC)"), Column("STATE"), Column("TASK"), Column("RUN"),
        *([Column("ACCOUNT")] if several else []), *(Column(name.upper(), right=True) for name in _COUNTS),
    ]  # fmt: skip
    rows = [
        [
            str(record.id), output.time(record.started_at), _state(record, now), task_of(record), record.run_id or "-",
            *([record.account] if several else []), *(f"{count:,}" for count in _counts(record).values()),
        ]
        for record in shown
    ]  # fmt: skip
    for line in output.draw(columns, [[output.one_line(cell) for cell in row] for row in rows]):
        print(line)
    if len(records) > args.limit:
        print(f"There are more: raise --limit ({args.limit:,}), or narrow the list.", file=sys.stderr)
    return 0


def task_of(record: Record) -> str:
    """Return the delivery's task, and the delivery's name if it has one."""
    task = task_name(record.dag_id, record.task_id, record.map_index) or "outside a task"
    return f"{task}/{record.name}" if record.name else task


def sender_of(sender: str) -> str:
    """Return the task that sends a plan."""
    dag_id, run_id, task_id, map_index = json.loads(sender)
    return f"{task_name(dag_id, task_id, map_index)} of run {run_id}"


def _counts(record: Record) -> dict[str, int]:
    settled = record.acknowledged + record.rejected + record.unknown + record.skipped
    numbers = (record.read_rows, record.acknowledged, record.rejected, record.unknown, record.skipped)
    return dict(zip(_COUNTS, (*numbers, max(record.read_rows - settled, 0)), strict=True))


def _state(record: Record, now: datetime) -> str:
    """Return the state; a delivery without an end that shows no sign of life is stalled."""
    if record.state in (READING, SENDING) and not history.is_live(record, now):
        return "stalled"
    return record.state


def _as_dict(record: Record, now: datetime) -> dict[str, Any]:
    names = ("id", "account", "dag_id", "run_id", "task_id", "map_index", "name", "call", "try_number", "state")
    told = {name: getattr(record, name) for name in names}
    counts = Counts.of(record)
    more = ("known", "without_time", "requests", "repeats", "outages")
    return {
        **told,
        "live": history.is_live(record, now),
        **_counts(record),
        "skips": dict(counts.skips),
        "opt_ins_withheld": counts.withheld.total(),
        "withheld": dict(counts.withheld),
        **{name: getattr(counts, name) for name in more},
        "seconds": round(counts.seconds, 3),
        "error": record.error,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }


def _show(database: Database, number: int, *, as_json: bool) -> int:
    found, now = _required(database, number), database.now()
    record, counts = found.record, Counts.of(found.record)
    if as_json:
        print(json.dumps({**_as_dict(record, now), "reasons": [one._asdict() for one in found.reasons]}, indent=1))
        return 0
    held = f", held by try {record.try_number} ({output.ago(record.held_at or '', now)} since its last commit)"
    told = [
        ("Delivery", f"{record.id} of account {record.account}"),
        ("State", _state(record, now) + (held if history.is_live(record, now) else "")),
        ("Task", task_of(record)),
        ("Run", record.run_id or "-"),
        *([("Sent by", sender_of(record.sender))] if record.sender else []),
        ("Call", record.call),
        ("Started", f"{output.time(record.started_at)} UTC"),
        ("Ended", f"{output.time(record.ended_at)} UTC" if record.ended_at else "-"),
        ("Tries", f"{record.try_number}" + (", restarted" if record.restarted else "")),
    ]
    for title, text in told:
        print(f"{title:<10}{output.one_line(text)}")
    print()
    for name, count in _counts(record).items():
        if name != "left" or count:
            print(f"{name:<14}{count:>12,}")
        if name == "skipped":
            for why, rows in counts.skips.items():
                print(f"  {why.replace('_', ' '):<12}{rows:>12,}")
    speed = f" ({counts.requests / counts.seconds:.0f}/s)" if counts.seconds else ""
    print(f"{plural(counts.requests, 'request')} in {counts.seconds:.1f} s{speed}, {plural(counts.repeats, 'repeat')}")
    if found.reasons:
        print("\nReasons of rejected and unknown rows")
        for reason in found.reasons[:_REASONS_SHOWN]:
            print(f"{reason.rows:>12,} x {output.one_line(reason.reason)}")
        if (more := len(found.reasons) - _REASONS_SHOWN) > 0:
            print(f"and {plural(more, 'more reason')}")
        print(f"List them with: airflow regal outcomes {record.id}")
    if record.error:
        print(f"\n{record.error}")
    return 0


def _required(database: Database, number: int) -> DeliveryDetail:
    found = history.find_delivery(database, number)
    if found is None:
        raise CommandError(f"There is no delivery {number}. List deliveries with: airflow regal deliveries")
    return found


# -- outcomes ---------------------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    Column("ROW"), Column("STATUS"), Column("REASON"), Column("MESSAGE"), Column("USER ID"), Column("PHONE"),
    Column("EMAIL"), Column("LAST TRIED (UTC)"), Column("SINCE THEN"),
)  # fmt: skip


@command
def run_outcomes(args: argparse.Namespace) -> int:
    """List rows of a delivery with their outcomes, or copy the outcomes of all deliveries."""
    if args.to_conn_id is not None:
        from airflow_provider_regal.cli.write_back import copy_outcomes

        return copy_outcomes(args)
    with opened(args.ledger_conn_id) as database:
        record = _required(database, args.delivery).record
        statuses = args.status or ["rejected", "unknown"]
        with_outcome = [status for status in statuses if status != LEFT]
        rows = chain(
            outcomes_of(database, record.id, statuses=with_outcome, reason=args.reason) if with_outcome else (),
            left_of(database, record) if LEFT in statuses else (),
        )
        print_rows = {"table": _print_table, "csv": _print_csv, "jsonl": _print_jsonl}[args.format]
        count = print_rows(rows)
    counts, skips = _counts(record), Counts.of(record).skips
    told = [f"{plural(count, 'row')} listed of {counts['read']:,} read"]
    if counts["skipped"]:
        why = ", ".join(f"{rows:,} {name.replace('_', ' ')}" for name, rows in skips.items())
        told.append(f"{counts['skipped']:,} were skipped ({why})" if why else f"{counts['skipped']:,} were skipped")
    if counts["left"]:
        how = "" if LEFT in statuses else " (list them with --status left)"
        told.append(f"{plural(counts['left'], 'row is', 'rows are')} left to send{how}")
    print("; ".join(told) + ".", file=sys.stderr)
    return 0


def _print_table(rows: Iterator[OutcomeRow]) -> int:
    cells = (_cells(row) for row in rows)
    first = list(islice(cells, _LOOKED_AT))
    if not first:
        return 0
    widths = [min(width, _WIDEST) for width in output.widths_of(_COLUMNS, first)]
    count = -1  # the header line
    for line in output.draw(_COLUMNS, chain(first, cells), widths):
        count += 1
        print(line)
    return count


def _cells(row: OutcomeRow) -> list[str]:
    shown = (
        row.where, row.status, row.reason or "", row.message or "", output.identifier(row.user_id),
        output.identifier(row.phone), output.identifier(row.email), output.time(row.last_at),
        _since_then(row),
    )  # fmt: skip
    return [output.one_line(cell) for cell in shown]


def _since_then(row: OutcomeRow) -> str:
    if row.redelivered_by is not None:
        return f"redelivered by {row.redelivered_by}"
    return "" if row.found_at is None else "found at Regal"


def _print_csv(rows: Iterator[OutcomeRow]) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(OutcomeRow._fields)
    count = 0
    for row in rows:
        writer.writerow(["" if value is None else value for value in row])
        count += 1
    return count


def _print_jsonl(rows: Iterator[OutcomeRow]) -> int:
    count = 0
    for row in rows:
        print(json.dumps(row._asdict()))
        count += 1
    return count
