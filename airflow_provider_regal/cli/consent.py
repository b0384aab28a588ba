"""``consent``: what is on record of a person's consent, in plain words, and the evidence as a file."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from airflow_provider_regal.cli import output, owed
from airflow_provider_regal.cli.opening import CommandError, command, identifiers, opened
from airflow_provider_regal.cli.output import Column, one_line, plural
from airflow_provider_regal.cli.person import suppressed_since, suppressions_of
from airflow_provider_regal.ledger import consent_log, history
from airflow_provider_regal.ledger.consent_log import LogLine
from airflow_provider_regal.ledger.history import ConsentNow, Wanted
from airflow_provider_regal.ledger.rules import SENDING
from airflow_provider_regal.ledger.text import short, to_ledger_time

_WITHHELD_SHOWN: Final = 10
_NOT_SENT: Final = (
    Column("FOR"), Column("CHANNEL"), Column("DECISION"), Column("GIVEN (UTC)"), Column("ROW"), Column("REASON"),
)  # fmt: skip


@command
def run_consent(args: argparse.Namespace) -> int:
    """Explain a person's consent, list or export decisions; 1 if nothing is on record."""
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
            lines = consent_log.stream_lines(
                database,
                account=account,
                delivery=args.delivery,
                status=None if args.delivery is None or args.export else consent_log.WITHHELD,
                since=args.since and to_ledger_time(args.since.moment),
                until=args.until and to_ledger_time(args.until.moment),
            )
        names = _names(wanted)
        if args.export:
            return _export(Path(args.export), args, found, lines, names)
        if found is None:
            return _list(lines, args.delivery, as_json=args.json)
    if args.json:
        print(json.dumps({**_as_dict(found), "suppressions": [one._asdict() for one in suppressions]}, indent=1))
    else:
        listed = [f"{suppressed_since(one)}: nothing but opt-outs is sent." for one in suppressions]
        print("\n\n".join([*(["\n".join(listed)] if listed else []), *_explained(found, names)]), end="")
        print("\n" if listed or found.consents or found.decisions else "", end="")
    if not (found.consents or found.decisions or suppressions):
        print("No decision is on record of this person: nothing was sent, withheld or recorded.", file=sys.stderr)
        return 1
    return 0


def _names(wanted: Wanted | None) -> dict[str, str]:
    """Return the plain names of stored identifiers, of the person that was asked for."""
    if wanted is None:
        return {}
    keys = (*wanted.phones, *wanted.emails, *(f"user:{one}" for one in wanted.user_ids))
    return {identifiers().stored(key): key for key in keys}


def _as_dict(found: history.Consents) -> dict[str, Any]:
    return {
        "consents": [{**one._asdict(), "owes_opt_out": one.owes_opt_out} for one in found.consents],
        "decisions": [one._asdict() for one in found.decisions],
    }


# -- one person, in plain words ---------------------------------------------------------------------------------------


def _explained(found: history.Consents, names: dict[str, str]) -> Iterator[str]:
    """Explain each phone or email on each channel in a paragraph."""
    consents = {(one.account, one.identifier, one.channel): one for one in found.consents}
    lines: dict[tuple[str, str, str], list[LogLine]] = {}
    for line in found.decisions:
        lines.setdefault((line.account, line.identifier, line.channel), []).append(line)
    for account, identifier, channel in sorted(consents.keys() | lines.keys()):
        key = (account, identifier, channel)
        told, known = lines.get(key, []), consents.get(key)
        who = output.identifier(names.get(identifier, identifier))
        head = f"{who}, {channel}, account {account}: {_verdict(known)}"
        body = [*(_standing(known, told) if known else ()), *_not_sent(told)]
        yield "\n".join(one_line(part) for part in (head, *(f"  {sentence}" for sentence in body)))


def _verdict(known: ConsentNow | None) -> str:
    if known is None or (known.subscribed is None and known.opt_out_at is None and known.pending_at is None):
        return "no consent"
    if known.owes_opt_out:
        return "OPTED OUT, and Regal does not have that yet"
    if known.pending_at is not None:
        return f"{_opted(known.pending_subscribed)}, and it can't be known yet whether Regal has that"
    if known.subscribed is None:
        return "opted out"
    return _opted(known.subscribed)


def _opted(subscribed: object) -> str:
    return "opted in" if subscribed else "opted out"


def _standing(known: ConsentNow, lines: Sequence[LogLine]) -> Iterator[str]:
    if known.subscribed is not None:
        yield (
            f"Regal has: {_opted(known.subscribed)} at {output.time(known.evidence_at)} UTC, "
            + (
                f"acknowledged {output.time(known.acknowledged_at)}"
                if known.acknowledged_at
                else "by its own data or recorded as a baseline; nothing was sent for it"
            )
            + (f", from {known.source}." if known.source else ".")
        )
        yield _evidence(known, lines)
    if known.pending_at is not None:
        what = "opt-in" if known.pending_subscribed else "opt-out"
        state = (
            "is being sent now"
            if known.state == SENDING
            else "was sent, and it can't be known whether Regal received it"
        )
        yield f"The {what} of {output.time(known.pending_at)} {state}."
    if known.owes_opt_out:
        by = f" by {known.opt_out_source}" if known.opt_out_source else ""
        yield (
            f"The opt-out of {output.time(known.opt_out_at)} was read{by} and is not acknowledged. The next delivery "
            "of contacts sends it first; to send it now: airflow regal consent owed --send"
        )
    if known.opt_out_at is not None:
        yield f"No opt-in given up to {output.time(known.opt_out_at)} is sent: the person opted out then."


def _evidence(known: ConsentNow, lines: Sequence[LogLine]) -> str:
    proofs = [
        line
        for line in lines
        if line.subscribed == bool(known.subscribed)
        and line.given_at == known.evidence_at
        and line.status in (consent_log.ACKNOWLEDGED, consent_log.RECORDED)
    ]
    if not proofs:
        return "Evidence: none in the consent log."
    line = proofs[-1]
    parts = (
        f"IP address {line.ip}" if line.ip else "",
        f"collected by {line.form}" if line.form else "",
        f"agreed to {json.dumps(line.text, ensure_ascii=False)}" if line.text else "",
        line.reason or "",
        _where(line),
    )
    return f"Evidence: {'; '.join(part for part in parts if part)}."


def _where(line: LogLine) -> str:
    row = line.place or (f"row {line.position:,}" if line.position else "")
    return ", ".join(part for part in (row, f"delivery {line.delivery}" if line.delivery else "") if part)


def _not_sent(lines: Sequence[LogLine]) -> Iterator[str]:
    """Say what Regal does not have, and why; the newest."""
    left = [line for line in lines if line.status in (consent_log.WITHHELD, consent_log.REFUSED)]
    for line in left[-_WITHHELD_SHOWN:]:
        what = "opt-in" if line.subscribed else "opt-out"
        given = f"given {output.time(line.given_at)}" if line.given_at else "without a time"
        verb = "Withheld" if line.status == consent_log.WITHHELD else "Refused by Regal"
        yield f"{verb} {output.time(line.logged_at)}: {what} {given} ({_where(line)}): {line.reason or '-'}."
    if (more := len(left) - _WITHHELD_SHOWN) > 0:
        yield f"and {plural(more, 'older one')} that Regal does not have either (--json lists all)."


# -- a delivery -------------------------------------------------------------------------------------------------------


def _list(lines: Iterable[LogLine], delivery: int, *, as_json: bool) -> int:
    """List what a delivery withheld; a page of many columns is fit for few, a file for all."""
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
    print(f"Delivery {delivery} withheld {plural(len(found), 'decision')}.", file=sys.stderr)
    return 0


# -- a file -----------------------------------------------------------------------------------------------------------


def _export(
    file: Path,
    args: argparse.Namespace,
    found: history.Consents | None,
    lines: Iterable[LogLine],
    names: dict[str, str],
) -> int:
    write = {".json": _write_json, ".csv": _write_csv}.get(file.suffix.lower())
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
    """Open a file that only its owner may read: it is full of personal data."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise CommandError(f"{file} exists, and evidence is not overwritten. Choose another name.") from error
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}.") from error
    with os.fdopen(number, "w", encoding="utf-8", newline="") as stream:
        yield stream


def _write_csv(stream: TextIO, head: dict[str, Any], found: history.Consents | None, lines: Iterable[LogLine]) -> int:
    writer, count = csv.writer(stream), 0
    writer.writerow(LogLine._fields)
    for line in lines:
        writer.writerow([*line[:4], str(line.subscribed).lower(), *line[5:]])
        count += 1
    return count


def _write_json(stream: TextIO, head: dict[str, Any], found: history.Consents | None, lines: Iterable[LogLine]) -> int:
    """Write one object; the decisions line by line, however many there are."""
    count = 0
    if found is not None:
        head = {**head, "consents": [one._asdict() for one in found.consents]}
    stream.write(json.dumps(head, indent=1)[:-2] + ',\n "decisions": [')
    for count, line in enumerate(lines, 1):
        stream.write(("," if count > 1 else "") + "\n  " + json.dumps(line._asdict(), ensure_ascii=False))
    stream.write("\n ]\n}\n")
    return count
