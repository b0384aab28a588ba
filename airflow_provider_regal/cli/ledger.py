"""``ledger``: its tables, its size, its retention, and copying it to another database."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, configured, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.hooks._ledger import kept_for, open_database
from airflow_provider_regal.ledger.admin.copying import copy_ledger
from airflow_provider_regal.ledger.admin.history import read_schema_version
from airflow_provider_regal.ledger.admin.retention import prune, read_stats


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
    """Remove what is past its retention period."""
    given = {name: getattr(args, name) for name in ("history_days", "dead_letter_days", "plan_days", "consent_days")}
    kept = replace(kept_for(), **{name: days for name, days in given.items() if days is not None})
    with opened(args.ledger_conn_id) as database:
        pruned = prune(database, now=database.now(), kept_for=kept)
    if not pruned:
        consent = "forever" if kept.consent_days is None else f"{kept.consent_days:g} d"
        print(
            f"Nothing is past its retention period (history {kept.history_days:g} d, dead letters "
            f"{kept.dead_letter_days:g} d, plans {kept.plan_days:g} d, consent log {consent})."
        )
        return 0
    print(
        f"Removed {plural(pruned.payloads, 'payload')} of dead letters, the rows of "
        f"{plural(pruned.snapshots, 'unfinished delivery', 'unfinished deliveries')}, "
        f"{plural(pruned.deliveries, 'delivery', 'deliveries')} with {plural(pruned.outcomes, 'outcome')}, and "
        f"{plural(pruned.decisions, 'line')} of the consent log."
    )
    return 0


@command
def run_stats(args: argparse.Namespace) -> int:
    """Print the size of the ledger."""
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
    """Copy the ledger to another database."""
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
