"""``find``: everything on record about one person."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from typing import Any, Final

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import command, identifiers, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.explaining import consent_now, suppressed_since, suppressions_of, timeline
from airflow_provider_regal.ledger.admin.history import Person
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.text import short

_UNSENT_SHOWN: Final = 50
_OTHERS_SHOWN: Final = 5


@command
def run_find(args: argparse.Namespace) -> int:
    """Print a person's timeline; return 1 if nothing is on record."""
    wanted, stored = history.Wanted(args.person), identifiers()
    with opened(args.ledger_conn_id) as database:
        hidden = _hidden_accounts(database, stored, args.account)
        person = history.find_person(
            database,
            wanted,
            identifiers=stored,
            account=args.account,
            limit=args.limit,
            scan_rows=args.scan_rows,
        )
        suppressions = suppressions_of(database, wanted, stored, args.account)
    if args.json:
        listed = [one._asdict() for one in suppressions]
        print(json.dumps({**_as_dict(person), "suppressions": listed}, indent=1))
    else:
        for one in suppressions:
            print(suppressed_since(one))
        _print(person, {*wanted.phones, *wanted.emails, *wanted.user_ids, *map(stored.stored, args.person)})
    for name in hidden:
        print(
            f"warning: account {name!r} was written with another [regal] ledger_key, or without one: only rows kept "
            "as their source wrote them could be searched",
            file=sys.stderr,
        )
    if not person.scanned_all:
        print(
            f"warning: only {person.scanned_rows:,} rows that are kept as their source wrote them were read: raise "
            "--scan-rows",
            file=sys.stderr,
        )
    if person.is_cut:
        print(f"There is more: only the newest {args.limit:,} rows and decisions are shown (--limit).", file=sys.stderr)
    if not person and not suppressions:
        told = [f"phone {phone}" for phone in wanted.phones] + [f"email {email}" for email in wanted.emails]
        told += [f"user id {user_id}" for user_id in wanted.user_ids]
        print(f"Nothing is on record ({', '.join(told)}).", file=sys.stderr)
        return 1
    return 0


def _hidden_accounts(database: Database, stored: Identifiers, account: str | None) -> list[str]:
    accounts = history.list_accounts(database)
    wanted = [one for one in accounts if account is None or one.account == short(account)]
    return [one.account for one in wanted if one.identifiers not in (None, stored.mark)]


def _as_dict(person: Person) -> dict[str, Any]:
    return {
        "outcomes": [
            {**one.row._asdict(), "task": one.task, "run_id": one.run_id, "found_in": one.found_in}
            for one in person.outcomes
        ],
        "decisions": [one._asdict() for one in person.decisions],
        "consents": [{**one._asdict(), "owes_opt_out": one.owes_opt_out} for one in person.consents],
        "contacts": [one._asdict() for one in person.contacts],
        "unsent": [one._asdict() for one in person.unsent],
        "scanned_rows": person.scanned_rows,
        "scanned_all": person.scanned_all,
    }


def _print(person: Person, given: Collection[str]) -> None:
    several = len(_accounts(person)) > 1
    if person.consents:
        print("Consent on record now")
        columns = [Column("FOR"), Column("CHANNEL"), Column("CONSENT"), *([Column("ACCOUNT")] if several else [])]
        rows = [
            [output.identifier(one.identifier), one.channel, consent_now(one), *([one.account] if several else [])]
            for one in person.consents
        ]
        _print_table(columns, rows)
    for contact in person.contacts:
        delivery = f", delivery {contact.delivery}" if contact.delivery else ""
        of = f" of account {contact.account}" if several else ""
        name, at = output.identifier(contact.contact), output.time(contact.acknowledged_at)
        print(f"Contact {name}{of}: last acknowledged {at}{delivery}")
    if person.contacts:
        print()
    lines = timeline(person)
    if lines:
        print("Timeline (UTC)")
        columns = [Column("WHEN"), Column("WHAT"), Column("STATUS"), Column("DELIVERY AND ROW"), Column("DETAILS")]
        _print_table(columns, [[output.time(line.at), *line[1:]] for line in lines])
    if others := _others(person, given):
        print(f"These rows also name {', '.join(others)}: add them to the command to see more.\n")
    if person.unsent:
        print("Not sent yet")
        columns = [
            Column("DELIVERY AND ROW"),
            Column("ROW IS"),
            Column("DELIVERY IS"),
            Column("TASK"),
            Column("FOUND IN"),
        ]
        shown = person.unsent[:_UNSENT_SHOWN]
        _print_table(
            columns,
            [
                [f"{one.delivery}, {one.where}", one.state, one.delivery_state, one.task or "-", one.found_in]
                for one in shown
            ],
        )
        if (more := len(person.unsent) - len(shown)) > 0:
            print(f"and {plural(more, 'more row')} (--json lists all)\n")


def _others(person: Person, given: Collection[str]) -> list[str]:
    """Return identifiers on record together with the given ones."""
    found: dict[str, None] = {}
    for one in person.outcomes:
        for text in (one.row.user_id, one.row.phone, one.row.email):
            if text is not None and text not in given and output.identifier(text) == text:  # not a hash
                found[text] = None
    return list(found)[:_OTHERS_SHOWN]


def _accounts(person: Person) -> set[str]:
    accounts = {one.row.account for one in person.outcomes} | {one.account for one in person.decisions}
    return accounts | {one.account for one in person.consents} | {one.account for one in person.contacts}


def _print_table(columns: list[Column], rows: list[list[str]]) -> None:
    for line in output.draw(columns, [[output.one_line(cell) for cell in row] for row in rows]):
        print(f"  {line}")
    print()
