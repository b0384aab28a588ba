"""``find``: all that is on record of one person."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import command, identifiers, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.ledger import history
from airflow_provider_regal.ledger.consent_log import LogLine
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.history import ConsentNow, Person, PersonOutcome
from airflow_provider_regal.ledger.identifiers import Identifiers
from airflow_provider_regal.ledger.suppressions import Suppression, find_suppressions
from airflow_provider_regal.ledger.text import short

_UNSENT_SHOWN: Final = 50
_OTHERS_SHOWN: Final = 5


class _Line(NamedTuple):
    """A line of the timeline."""

    at: str
    what: str
    status: str
    where: str
    told: str


@command
def run_find(args: argparse.Namespace) -> int:
    """Print a person's timeline; 1 if nothing is on record."""
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


def suppressions_of(
    database: Database, wanted: history.Wanted, stored: Identifiers, account: str | None
) -> list[Suppression]:
    """Find the entries of the suppression list of one person."""
    people = (*wanted.phones, *wanted.emails, *(f"user:{user_id}" for user_id in wanted.user_ids))
    name = None if account is None else short(account)
    return find_suppressions(database, people, identifiers=stored, account=name)


def suppressed_since(one: Suppression) -> str:
    """Say in a line that somebody must not be contacted."""
    note = f": {output.one_line(one.note)}" if one.note else ""
    who, since = output.identifier(one.identifier), output.time(one.added_at)
    return f"{one.kind.capitalize()} since {since} in account {one.account} ({who}){note}"


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
            [output.identifier(one.identifier), one.channel, _consent(one), *([one.account] if several else [])]
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
    lines = sorted((*_rows(person.outcomes), *_decisions(person.decisions)))
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
    """Name identifiers that stand beside those that were given."""
    found: dict[str, None] = {}
    for one in person.outcomes:
        for text in (one.row.user_id, one.row.phone, one.row.email):
            if text is not None and text not in given and output.identifier(text) == text:  # no hash
                found[text] = None
    return list(found)[:_OTHERS_SHOWN]


def _accounts(person: Person) -> set[str]:
    accounts = {one.row.account for one in person.outcomes} | {one.account for one in person.decisions}
    return accounts | {one.account for one in person.consents} | {one.account for one in person.contacts}


def _print_table(columns: list[Column], rows: list[list[str]]) -> None:
    for line in output.draw(columns, [[output.one_line(cell) for cell in row] for row in rows]):
        print(f"  {line}")
    print()


def _rows(outcomes: list[PersonOutcome]) -> Iterator[_Line]:
    for one in outcomes:
        row = one.row
        event = f" {row.event!r}" if row.event else ""
        found = f"found in {one.found_in}" if one.found_in else ""
        by = f"redelivered by {row.redelivered_by}" if row.redelivered_by is not None else ""
        told = "; ".join(part for part in (one.task, row.reason, row.message, found, by) if part and part != "")
        yield _Line(one.at, f"{row.call}{event}", row.status, f"{row.delivery}, {row.where}", told)


def _decisions(decisions: list[LogLine]) -> Iterator[_Line]:
    for one in decisions:
        what = f"{one.channel} {'opt-in' if one.subscribed else 'opt-out'}"
        where = "-" if one.delivery is None else one.delivery
        if one.position is not None:
            where += f", row {one.position:,}"
        told = "; ".join(
            part
            for part in (
                f"{output.identifier(one.identifier)}",
                f"given {output.time(one.given_at)}" if one.given_at else "",
                f"ip {one.ip}" if one.ip else "",
                f"from {one.form}" if one.form else "",
                one.reason or "",
            )
            if part
        )
        yield _Line(one.logged_at, what, one.status, where, told)


def _consent(one: ConsentNow) -> str:
    told = []
    if one.subscribed is not None:
        word = "opted in" if one.subscribed else "opted out"
        told.append(f"{word} since {output.time(one.evidence_at)}, acknowledged {output.time(one.acknowledged_at)}")
    if one.owes_opt_out:
        told.append(f"opt-out of {output.time(one.opt_out_at)} is not acknowledged by Regal yet")
    if one.pending_at is not None:
        word = "opt-in" if one.pending_subscribed else "opt-out"
        state = "is being sent" if one.state == "sending" else "may have reached Regal"
        told.append(f"{word} of {output.time(one.pending_at)} {state}")
    if one.source:
        told.append(f"by {one.source}")
    return "; ".join(told) or "nothing"
