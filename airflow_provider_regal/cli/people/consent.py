"""``consent``: explain a person's consent in plain words, and export the evidence to a file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, identifiers, opened
from airflow_provider_regal.cli.output import Column, one_line, plural
from airflow_provider_regal.cli.people import owed
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.evidence import write_csv, write_json
from airflow_provider_regal.ledger.admin.explaining import (
    Explanation,
    explain,
    names_of,
    rejected_rows,
    suppressed_since,
    suppressions_of,
)
from airflow_provider_regal.ledger.admin.history import Wanted
from airflow_provider_regal.ledger.people import consent_log
from airflow_provider_regal.ledger.people.consent_log import LogLine
from airflow_provider_regal.ledger.text import short, to_ledger_time

_NOT_SENT: Final = (
    Column("FOR"), Column("CHANNEL"), Column("DECISION"), Column("GIVEN (UTC)"), Column("ROW"), Column("REASON"),
)  # fmt: skip


@command
def run_consent(args: argparse.Namespace) -> int:
    """Explain a person's consent, list or export decisions; return 1 if nothing is on record."""
    if args.person == ["owed"]:
        return owed.run_owed(args)
    wanted = Wanted(args.person) if args.person else None
    with opened(args.ledger_conn_id) as database:
        account = None if args.account is None else short(args.account)
        if wanted is not None:
            found = history.find_consents(database, wanted, identifiers=identifiers(), account=account)
            lines: Iterable[LogLine] = found.decisions
            suppressions = suppressions_of(database, wanted, identifiers(), args.account)
        else:
            found, suppressions = None, []
            detail = None if args.delivery is None else history.find_delivery(database, args.delivery)
            lines = consent_log.stream_lines(
                database,
                account=account,
                delivery=args.delivery,
                status=None if args.delivery is None or args.export else consent_log.WITHHELD,
                since=args.since and to_ledger_time(args.since.moment),
                until=args.until and to_ledger_time(args.until.moment),
            )
        names = {} if wanted is None else names_of(wanted, identifiers())
        if args.export:
            return _export(Path(args.export), args, found, lines, names)
        if found is None:
            return _list(lines, args.delivery, 0 if detail is None else detail.record.rejected, as_json=args.json)
    if args.json:
        print(json.dumps({**_as_dict(found), "suppressions": [one._asdict() for one in suppressions]}, indent=1))
    else:
        listed = [f"{suppressed_since(one)}: nothing but opt-outs is sent." for one in suppressions]
        paragraphs = [*(["\n".join(listed)] if listed else []), *map(_paragraph, explain(found, names))]
        if found.rejected:
            head = "Rejected rows with a decision of this person:"
            paragraphs.append("\n".join((head, *(f"  {one_line(one)}" for one in rejected_rows(found.rejected)))))
        if paragraphs:
            print("\n\n".join(paragraphs))
    if not (found.consents or found.decisions or found.rejected or suppressions):
        print(
            "No decision is on record of this person: nothing was sent, withheld, recorded or rejected.",
            file=sys.stderr,
        )
        return 1
    return 0


def _as_dict(found: history.Consents) -> dict[str, Any]:
    return {
        "consents": [{**one._asdict(), "owes_opt_out": one.owes_opt_out} for one in found.consents],
        "decisions": [one._asdict() for one in found.decisions],
        "rejected": [{**one.row._asdict(), "task": one.task, "run_id": one.run_id} for one in found.rejected],
    }


def _paragraph(one: Explanation) -> str:
    head = f"{one.who}, {one.channel}, account {one.account}: {one.verdict}"
    return "\n".join(one_line(part) for part in (head, *(f"  {sentence}" for sentence in one.sentences)))


# -- a delivery -------------------------------------------------------------------------------------------------------


def _list(lines: Iterable[LogLine], delivery: int, rejected: int, *, as_json: bool) -> int:
    """List what a delivery withheld; for many rows, a file is better.

    :param rejected: how many of its rows were rejected: these are outcomes, and not listed here.
    """
    found = list(lines)
    if as_json:
        print(json.dumps([line._asdict() for line in found], indent=1))
    elif found:
        rows = [
            [
                one_line(cell)
                for cell in (
                    output.identifier(line.identifier), line.channel, "opt-in" if line.subscribed else "opt-out",
                    output.time(line.given_at), line.place or line.position or "-", line.reason or "",
                )
            ]
            for line in found
        ]  # fmt: skip
        for text in output.draw(_NOT_SENT, rows):
            print(text)
    told = f"Delivery {delivery} withheld {plural(len(found), 'decision')}."
    if rejected:
        told += (
            f" It rejected {plural(rejected, 'row')}, in a sync also for missing evidence: "
            f"airflow regal outcomes {delivery} --status rejected"
        )
    print(told, file=sys.stderr)
    return 0


# -- a file -----------------------------------------------------------------------------------------------------------


def _export(
    file: Path,
    args: argparse.Namespace,
    found: history.Consents | None,
    lines: Iterable[LogLine],
    names: dict[str, str],
) -> int:
    write = {".json": write_json, ".csv": write_csv}.get(file.suffix.lower())
    if write is None:
        raise CommandError(f"--export writes JSON or CSV by the name of the file, and {file.name!r} ends in neither.")
    told = (line._replace(identifier=names.get(line.identifier, line.identifier)) for line in lines)
    head = {
        "exported_at": to_ledger_time(datetime.now(UTC)),
        "person": args.person or None,
        "account": args.account,
        "delivery": args.delivery,
        "since": args.since and to_ledger_time(args.since.moment),
        "until": args.until and to_ledger_time(args.until.moment),
    }
    with _new_file(file) as stream:
        count = write(stream, head, found, told)
    print(f"{file}: {plural(count, 'decision')}.", file=sys.stderr)
    return 0 if count or (found is not None and found.consents) else 1


@contextmanager
def _new_file(file: Path) -> Iterator[TextIO]:
    """Open a new file that only its owner may read: it contains personal data."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise CommandError(f"{file} exists, and evidence is not overwritten. Choose another name.") from error
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}.") from error
    with os.fdopen(number, "w", encoding="utf-8", newline="") as stream:
        yield stream
