"""``ledger``: its tables, its size, what it keeps, and another home for it."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

from airflow_provider_regal._compat import conf
from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, configured, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.hooks._ledger import open_database
from airflow_provider_regal.ledger.copying import copy_ledger
from airflow_provider_regal.ledger.history import read_schema_version
from airflow_provider_regal.ledger.retention import DEAD_LETTER_DAYS, HISTORY_DAYS, prune, read_stats


@command
def run_upgrade(args: argparse.Namespace) -> int:
    """Create or migrate the tables."""
    with closing(open_database(args.ledger_conn_id, migrate=False)) as database:
        before = read_schema_version(database)
        applied = database.upgrade()
        version = read_schema_version(database)
    name = output.capitalized(database.name)
    if before is None:
        print(f"{name}: created, schema version {version}.")
    elif applied:
        print(f"{name}: migrated from schema version {before} to {version}.")
    else:
        print(f"{name}: schema version {version} is up to date.")
    return 0


@command
def run_prune(args: argparse.Namespace) -> int:
    """Remove what is older than it is kept."""
    history_days = _days(args.history_days, "history_days", HISTORY_DAYS)
    dead_letter_days = _days(args.dead_letter_days, "dead_letter_days", DEAD_LETTER_DAYS)
    with opened(args.ledger_conn_id) as database:
        pruned = prune(database, now=database.now(), history_days=history_days, dead_letter_days=dead_letter_days)
    if not pruned:
        print(f"Nothing is older than it is kept (history {history_days:g} d, dead letters {dead_letter_days:g} d).")
        return 0
    print(
        f"Removed {plural(pruned.payloads, 'payload')} of dead letters, the rows of "
        f"{plural(pruned.snapshots, 'unfinished delivery', 'unfinished deliveries')}, and "
        f"{plural(pruned.deliveries, 'delivery', 'deliveries')} with {plural(pruned.outcomes, 'outcome')}."
    )
    return 0


def _days(given: float | None, option: str, default: float) -> float:
    return given if given is not None else conf.getfloat("regal", option, fallback=float(default))


@command
def run_stats(args: argparse.Namespace) -> int:
    """Print how large the ledger is."""
    with opened(args.ledger_conn_id) as database:
        stats = read_stats(database)
        version = read_schema_version(database)
    if args.json:
        tables = {one.name: {"rows": one.rows, "bytes": one.size} for one in stats.tables}
        print(json.dumps({"tables": tables, "bytes": stats.size, "schema_version": version}, indent=1))
        return 0
    print(f"{output.capitalized(database.name)}: {output.size(stats.size)}, schema version {version}\n")
    columns = [Column("TABLE"), Column("ROWS", right=True), Column("SIZE", right=True)]
    for line in output.draw(columns, [[one.name, f"{one.rows:,}", output.size(one.size)] for one in stats.tables]):
        print(line)
    return 0


@command
def run_copy(args: argparse.Namespace) -> int:
    """Copy the ledger into another database."""
    itself = CommandError(f"--to-conn-id {args.to_conn_id} is the ledger itself: name another database.")
    if args.to_conn_id == configured(args.ledger_conn_id):
        raise itself

    def show(name: str, rows: int) -> None:
        print(f"{name:<22}{rows:>14,}")

    with opened(args.ledger_conn_id) as source, closing(open_database(args.to_conn_id)) as target:
        if source.file is not None and target.file is not None and Path(source.file).samefile(target.file):
            raise itself
        print(f"Copying {source.name} to {target.name}")
        copied = copy_ledger(source, target, on_table=show)
    print(
        f"Copied {plural(sum(copied.values()), 'row')}; the counts of all tables agree. Before the DAGs run again, set "
        f"on every machine:\n  AIRFLOW__REGAL__LEDGER_CONN_ID={args.to_conn_id}"
    )
    return 0
