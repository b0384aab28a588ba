"""``try``: show one row of a source, what it becomes, and with ``--send`` what Regal answers.

::

    source ─▶ look (nothing is sent or kept) ─▶ row, decision, request, billing ─▶ --send: a delivery of the row alone
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from airflow_provider_regal.cli.opening import CommandError, command, is_missing
from airflow_provider_regal.cli.output import Column, capitalized, draw, one_line, plural
from airflow_provider_regal.cli.task_source import RowSource, source_of
from airflow_provider_regal.client.exchange import Answer
from airflow_provider_regal.client.many import HEADERS
from airflow_provider_regal.delivery.look import BUSY, Look, look_at
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.events.names import NAME, TRAITS
from airflow_provider_regal.hooks._delivering import TaskDelivery
from airflow_provider_regal.hooks._ledger import open_account
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.deliveries import Place
from airflow_provider_regal.ledger.states import Skip

if TYPE_CHECKING:
    from airflow_provider_regal.client.exchange import Attempt
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.reading.prepared import Ready
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.events import Consent
    from airflow_provider_regal.ledger.account import Account

_LONGEST_VALUE: Final = 100
_SKIPS: Final = {
    Skip.UNCHANGED: "Regal has acknowledged it as it is, or may have it already",
    Skip.NO_DECISION: "no yes or no for a phone or email that the row has",
    Skip.DUPLICATE: "its message id was sent before, or an earlier row of the source has it",
    Skip.OLDER: "a newer decision, or a newer version of the contact, is on record or in the source",
    Skip.SUPPRESSED: "this person must not be contacted: airflow regal suppress list",
    Skip.NOT_INCLUDED: "its source says that it is not to be sent",
    Skip.RECORDED: "the delivery only records it: Regal has it already",
    BUSY: "another delivery is sending a decision of the same person right now; try again",
}
_BILLING: Final = "https://support.regal.io/hc/en-us/articles/24907583572507-How-are-billable-events-measured-in-Regal"


@command
def run_try(args: argparse.Namespace) -> int:
    """Print what becomes of a row, and send it if requested.

    :returns: 0 if it is sent or skipped; 1 if it is rejected, or Regal did not acknowledge it; 2 if not confirmed.
    """
    source = source_of(args)
    if args.conn_id is not None:
        source = replace(source, conn_id=args.conn_id)
    if args.ledger_conn_id is not None:
        source = replace(source, ledger_conn_id=args.ledger_conn_id)
    hook = RegalHook(source.conn_id)
    with _account(hook.target, source) as account:
        look = look_at(source.open(), args.row, source.settings, target=hook.target, account=account)
        apart = look_at([look.alone], 1, source.settings, target=hook.target, account=account, alone=True)
    for title, lines in (
        (_title(look, source), _row(look.row)),
        ("Decision", _decision(look, source)),
        *(("Request", _request(event, hook.target)) for event in look.events),
        *((("Billing", _billing(look.events)),) if look.events else ()),
    ):
        print(title, *(f"  {line}".rstrip() for line in lines), "", sep="\n")
    if not args.send:
        print("Nothing was sent or kept." + (" Add --send to send this row now." if look.events else ""))
        return 1 if look.rejected else 0
    return _send(look, apart, source, hook, yes=args.yes)


@contextmanager
def _account(target: Target, source: RowSource) -> Iterator[Account]:
    """Open the ledger for reading; if it does not exist, it is not created."""
    with TemporaryDirectory(prefix="regal-try-") as folder:
        database = None
        if is_missing(source.ledger_conn_id):
            database = Database(sqlite_engine(Path(folder) / "ledger.db"), name="an empty ledger")
        account = open_account(target, source.ledger_conn_id, database=database)
        with closing(account.database):
            yield account


# -- what is printed --------------------------------------------------------------------------------------------------


def _title(look: Look, source: RowSource) -> str:
    place = "" if look.place == f"row {look.number:,}" else f" ({look.place})"
    return f"Row {look.number:,}{place} of {source.name}"


def _row(row: Mapping[str, Any]) -> Iterable[str]:
    columns = (Column("COLUMN"), Column("TYPE"), Column("VALUE"))
    return draw(columns, [(one_line(name), type(value).__name__, _shown(value)) for name, value in row.items()])


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = one_line(text)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text):,} characters)"


def _decision(look: Look, source: RowSource) -> Iterator[str]:
    if look.rejected is not None:
        yield "rejected: Regal never gets it as it is"
        yield from (f"  {one_line(fault)}" for fault in look.rejected.faults)
    elif look.skip is not None:
        yield f"skipped, {look.skip}: {_SKIPS.get(look.skip, 'it is not sent')}"
    for event in look.events:
        if event.instead_of is not None:
            yield "Only its opt-outs are sent: nothing holds those back" + (
                "" if look.rejected is not None else f". The rest is skipped, {event.instead_of}"
            )
        yield f"{_what(event)}, {event.guarantee.replace('_', ' ')}"
        yield f"person: {', '.join(map(one_line, event.identifiers))}"
        yield from (f"{_consent(one)}: sent" for one in event.payload.consents)
        yield from (f"{_consent(one.consent)}: withheld, {one.reason}" for one in event.payload.withheld)
        yield from (f"left out: {fault}" for fault in event.payload.left_out)
        yield from (f"note: {note}" for note in event.payload.notes)
    if source.settings.sync is not None:
        yield "A sync compares all rows of its source; this one was looked at alone."
    elif look.read > look.number:
        yield f"Compared with all {plural(look.read, 'row')} of the source."


def _what(event: Ready) -> str:
    name = event.payload.body.get(NAME)
    return event.payload.call if name is None else f"{event.payload.call} {one_line(name)!r}"


def _consent(one: Consent) -> str:
    since = "" if one.at is None else f" of {one.at:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"{one.channel} {'opt-in' if one.subscribed else 'opt-out'}{since} for {one_line(one.identifier) or one.where}"
    )


def _request(event: Ready, target: Target) -> Iterator[str]:
    yield f"POST {target.events_url}"
    yield "Authorization: (the API key of the connection)"
    yield "Content-Type: application/json"
    yield from (f"{name}: {value}" for name, value in HEADERS.items())
    yield ""
    yield from json.dumps(json.loads(event.body), indent=2, ensure_ascii=False).splitlines()


def _billing(events: Sequence[Ready]) -> Iterator[str]:
    """Estimate what Regal bills, by its published rules."""
    named = sum(NAME in event.payload.body for event in events)
    contacts = sum(TRAITS in event.payload.body or NAME not in event.payload.body for event in events)
    parts = ((named, "track event"), (contacts, "contact updated (or created)"))
    told = " and ".join(f"{count} x {what}" for count, what in parts if count)
    yield f"{plural(named + contacts, 'billable event')}: {told}"
    yield "Each journey that it starts is 1 more."
    yield f"An estimate: Regal bills by its own records. Its rules: {_BILLING}"


# -- sending ----------------------------------------------------------------------------------------------------------


def _send(look: Look, apart: Look, source: RowSource, hook: RegalHook, *, yes: bool) -> int:
    if not look.events:
        print("Nothing to send; nothing was kept.")
        return 1 if look.rejected else 0
    if hook.dry_run or source.settings.dry_run:
        why = "the task" if source.settings.dry_run else f"the connection {source.conn_id!r} or [regal] dry_run"
        print(f"Nothing was sent or kept: {why} says dry run.")
        return 0
    if source.settings.sync is not None:
        raise CommandError(
            "A row of a sync can't be sent alone: the newest decision of the whole source counts. Run the task."
        )
    if _gist(look) != _gist(apart):
        raise CommandError(
            "This row can't be sent alone: other rows of the source change what is sent of it. Nothing was sent. Run "
            "the task, or try the newest row of this person."
        )
    if not confirmed(look.events, yes=yes, task=source.task_id):
        return 2
    answers: list[str] = []
    settings = replace(
        source.settings,
        min_rows=0,
        max_rows=None,
        volume=None,
        limit=None,
        restart=False,
        max_rejected=1,
        max_unknown=1,
    )
    delivery = TaskDelivery(
        hook,
        context=None,
        settings=settings,
        rows=lambda held: [look.alone],
        source=("try", source.name),
        ledger_conn_id=source.ledger_conn_id,
        place=Place(run_id=f"try {uuid4().hex[:16]}"),
        watch=lambda attempt, seconds: answers.append(_answer(attempt, seconds, hook.target)),
    )
    try:
        with suppress(TooManyFailedRowsError):  # the outcome of one row already says so
            delivery.run()
    finally:
        if answers:
            print("Answer", *(f"  {line}" for line in answers), "", sep="\n")
    return _outcome(delivery.report)


def confirmed(events: Sequence[Ready], *, yes: bool, task: str | None = None) -> bool:
    """Ask for confirmation to send an event that may reach people; a contact's update needs none."""
    named = [event for event in events if event.payload.call in NAMED_CALLS]
    if yes or not named:
        return True
    again = (
        "" if task is None or named[0].message_id else f" The task {task!r} will send it again: it has no message id."
    )
    print(f"This {named[0].payload.call} event may start a journey, and so a call or a text to a person.{again}")
    return answered_yes("Send it?")


def answered_yes(question: str) -> bool:
    """Ask on the terminal; without one, name the option that confirms."""
    if not sys.stdin.isatty():
        print(f"error: {question} Add --yes; nothing was sent.", file=sys.stderr)
        return False
    if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("Nothing was sent.")
    return False


def _gist(look: Look) -> object:
    """Return what must be the same for a row alone and for a row among others."""
    events = [
        (
            event.payload.call,
            type(event.instead_of),
            {(one.identifier, one.channel, one.subscribed) for one in consents},
        )
        for event in look.events
        for consents in (event.payload.consents,)
    ]
    return events, look.skip, look.rejected is None


def _answer(attempt: Attempt, seconds: float, target: Target) -> str:
    if not isinstance(attempt, Answer):
        return f"no answer after {seconds:.3f} s: {attempt.reason}"
    said = one_line(attempt.excerpt.decode(errors="replace")).replace(target.api_key, "***")
    return f"HTTP {attempt.status} after {seconds:.3f} s: {said or '(no text)'}"


def _outcome(report: DeliveryReport | None) -> int:
    if report is None:
        return 1
    status = next((name for name in ("acknowledged", "rejected", "unknown") if getattr(report, name)), "skipped")
    why = ", ".join((*report.reasons, *report.skips)) if status != "acknowledged" else ""
    print(f"{capitalized(status)}{why and f' ({why})'}. Kept as delivery {report.delivery}.")
    if report.owed_sent:
        print(f"Before it, {plural(report.owed_sent, 'opt-out')} that Regal lacked went out, as before any contact.")
    if status in ("acknowledged", "rejected", "unknown"):
        print(f"Show it: airflow regal outcomes {report.delivery} --status {status}")
    return 1 if status in ("rejected", "unknown") else 0
