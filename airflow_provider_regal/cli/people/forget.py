"""``forget``: delete everything on record about a person, except a keyed hash and the times of their opt-outs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, identifiers
from airflow_provider_regal.cli.output import plural
from airflow_provider_regal.cli.people.suppress import account_of, this_user
from airflow_provider_regal.hooks._ledger import open_database
from airflow_provider_regal.ledger.admin.forgetting import REMOVED, Forgetting, not_reached
from airflow_provider_regal.ledger.admin.history import list_accounts
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.people.suppressions import USER, read_identifier
from airflow_provider_regal.ledger.text import short


@command
def run_forget(args: argparse.Namespace) -> int:
    """Forget a person, or show what that would remove; return 1 if a running delivery or owed opt-out prevents it."""
    given = [read_identifier(text) for text in args.person]
    for text, one in zip(args.person, given, strict=True):
        if text.strip().isdigit() and not one.startswith(USER):
            print(f"{text.strip()} is read as a phone; if it is a user id, write user:{text.strip()}", file=sys.stderr)
    with closing(open_database(args.ledger_conn_id)) as database:
        names = _accounts(database, args.account)
        people = {name: Forgetting(account_of(database, name, identifiers()), given) for name in names}
        _refuse_owed(people, lose=args.lose_owed, dry_run=args.dry_run)
        if args.dry_run:
            removed = {name: one.traces.counts for name, one in people.items()}
        else:
            for person in people.values():  # in all accounts first: from then on, nothing more is sent
                person.suppress(by=this_user())
            removed = {name: one.erase(by=this_user()) for name, one in people.items()}
        left = not_reached(database, plain=identifiers().plain)
    if args.json:
        print(json.dumps(_as_dict(people, removed, left, dry_run=args.dry_run), indent=1))
    else:
        _print(people, removed, left, dry_run=args.dry_run)
    return 0


def _accounts(database: Database, wanted: str | None) -> list[str]:
    if wanted is not None:
        names = [short(wanted)]
    elif not (names := [one.account for one in list_accounts(database)]):
        raise CommandError("The ledger is empty: name the account with --account to block the person there.")
    marks = {one.account: one.identifiers for one in list_accounts(database)}
    if hidden := [name for name in names if marks.get(name) not in (None, identifiers().mark)]:
        raise CommandError(
            f"Account {hidden[0]!r} was written with another [regal] ledger_key, or without one: nothing in it would "
            "be found. Set that key, or name other accounts with --account."
        )
    return names


def _refuse_owed(people: Mapping[str, Forgetting], *, lose: bool, dry_run: bool) -> None:
    owed = sum(one.traces.owed for one in people.values())
    if not owed or lose:
        return
    told = (
        f"Regal has not acknowledged {plural(owed, 'opt-out')} of this person, and forgetting would lose it. Send it "
        "first: airflow regal consent owed --send. If Regal has deleted the contact, add --lose-owed."
    )
    if not dry_run:
        raise CommandError(told)
    print(f"warning: {told}", file=sys.stderr)


def _as_dict(
    people: Mapping[str, Forgetting], removed: Mapping[str, Mapping[str, int]], left: Sequence[str], *, dry_run: bool
) -> dict[str, Any]:
    accounts = {
        name: {
            "linked": one.traces.linked,
            "removed": {what: removed[name][what] for what in REMOVED},
            "opt_outs_kept": one.traces.opt_outs,
            "opt_outs_owed": one.traces.owed,
        }
        for name, one in people.items()
    }
    return {"dry_run": dry_run, "accounts": accounts, "not_reached": [*left]}


def _print(
    people: Mapping[str, Forgetting], removed: Mapping[str, Mapping[str, int]], left: Sequence[str], *, dry_run: bool
) -> None:
    for name, one in people.items():
        print(f"Account {name}: {'would be removed' if dry_run else 'removed'}")
        if one.traces.linked:
            print(f"  on record with what was given: {', '.join(map(output.identifier, one.traces.linked))}")
        lines = [(removed[name][what], told) for what, told in REMOVED.items() if removed[name][what]]
        for count, told in lines:
            print(f"  {count:>8,}  {told}")
        if not lines:
            print("  nothing is on record")
        kept = plural(one.traces.opt_outs, "time of an opt-out", "times of opt-outs")
        print(f"  kept: {plural(len(one.traces.keys), 'hash', 'hashes')}, {kept}")
    print("Not reached:")
    for one_left in left:
        print(f"  - {one_left}")
    if dry_run:
        print("Dry run: nothing was removed.")
