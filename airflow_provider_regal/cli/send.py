"""``send``: deliver one event, or the events of a JSON Lines file, from the command line.

::

    options ─▶ one event ───────────────────────────┐
    file, stdin ─▶ lines: a call each, or rows ──────┴▶ may people be reached? asked ─▶ a delivery ─▶ report, exit code
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.cli.commands import CALLS, INTERRUPTED
from airflow_provider_regal.cli.delivering import IN_LOG_S, ON_TERMINAL_S, progress_on_stderr, stopped_by, which_try
from airflow_provider_regal.cli.opening import CommandError, log_on_stderr, missing_connection
from airflow_provider_regal.cli.output import capitalized, plural, time
from airflow_provider_regal.cli.task_source import json_object
from airflow_provider_regal.cli.try_row import answered_yes
from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.delivery.settings import NAMED_CALLS, DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import RegalError, TooManyFailedRowsError
from airflow_provider_regal.events.models import EVENTS
from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.hooks._delivering import TaskDelivery
from airflow_provider_regal.hooks._ledger import open_account, open_database
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.deliveries import FINISHED, Deliveries, Place, Record, Try
from airflow_provider_regal.ledger.formats import redeliver_command
from airflow_provider_regal.ledger.outcomes import outcomes_of
from airflow_provider_regal.operators._files import find_files
from airflow_provider_regal.sources.files import SourceFile
from airflow_provider_regal.sources.json_lines import BadLineError, objects, read_json_lines
from airflow_provider_regal.sources.marks import EVENT_MARK, ORIGIN_MARK, ROW_MARK, Marked
from airflow_provider_regal.sources.rows import bad_row
from airflow_provider_regal.sources.segment import message_row

_FAILED_SHOWN: Final = 5
_PLACE: Final = "send"


@dataclass(frozen=True)
class _Input:
    """What is sent.

    :param name: for people.
    :param key: identifies the same command, so that it resumes.
    :param rows: opens it.
    """

    name: str
    key: str
    rows: Callable[[], Iterator[Marked]]


def run_send(args: argparse.Namespace) -> int:
    """Deliver, and print the report.

    :returns: 0 if every row was acknowledged or skipped; 1 if not, with the reason on standard error; 2 if no one
        confirmed; 130 if it was interrupted.
    """
    stop = Stop()
    try:
        with log_on_stderr(logging.INFO), progress_on_stderr(), ExitStack() as stack:
            return _send(args, _input(args, stack), stop)
    except (RegalError, CommandError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    except AirflowException as error:
        print(f"error: {missing_connection(error)}", file=sys.stderr)
    except OSError as error:
        print(f"error: {args.file} can't be read: {error.strerror or error}", file=sys.stderr)
    return INTERRUPTED if stop.requested else 1


def _send(args: argparse.Namespace, given: _Input, stop: Stop) -> int:
    age = timedelta(days=args.max_event_age_days) if args.max_event_age_days else None
    settings = DeliverySettings.of(
        call=args.call or "track",
        event=args.event if args.file is not None and args.call == "track" else None,
        guarantee=args.guarantee,
        rate=args.rate,
        max_event_age=age,
        dry_run=args.dry_run,
        max_rejected=1.0,  # the exit code reports it
        max_unknown=1.0,
    )
    hook = RegalHook(args.conn_id)
    # The key may contain personal data, so it is stored as a keyed hash.
    known_by = hmac.digest(hook.target.api_key.encode(), given.key.encode(), "sha256").hex()[:16]
    place, this = Place(run_id=f"{_PLACE} {known_by}"), Try()
    if not settings.dry_run and not hook.dry_run:
        account = open_account(hook.target, args.ledger_conn_id)
        with closing(account.database):
            before = Deliveries(account).latest(place)
            this = which_try(account, place)
        if this.number == 1 and settings.mapping.call in NAMED_CALLS and not args.yes and not _confirmed(given, before):
            return 2
    delivery = TaskDelivery(
        hook,
        context=None,
        settings=settings,
        rows=lambda held: given.rows(),
        source=(_PLACE, known_by),
        ledger_conn_id=args.ledger_conn_id,
        place=place,
        this=this,
        stop=stop,
        progress_every_s=ON_TERMINAL_S if sys.stderr.isatty() else IN_LOG_S,
    )
    try:
        with stopped_by(stop, signal.SIGINT, signal.SIGTERM), suppress(TooManyFailedRowsError):
            delivery.run()
    except (RegalError, KeyboardInterrupt):
        _print_report(delivery.report)
        _say_how_to_resume(delivery.report)
        if not stop.requested:
            raise
        return INTERRUPTED
    report = delivery.report
    _print_report(report)
    return 0 if report is not None and not _print_failed(report, args) else 1


def _confirmed(given: _Input, before: Record | None) -> bool:
    print(f"{capitalized(given.name)} may start journeys, and so calls or texts to people.")
    if before is not None and before.state == FINISHED:
        print(
            f"Delivery {before.id} sent the same at {time(before.ended_at)} UTC: whatever has no message id is sent a "
            "second time."
        )
    return answered_yes("Send?")


def _print_report(report: DeliveryReport | None) -> None:
    if report is None:
        return
    print(report.as_table())
    print(f"Delivery {report.delivery}" if report.delivery is not None else "Dry run: nothing was sent or kept")


def _say_how_to_resume(report: DeliveryReport | None) -> None:
    if report is not None and report.left:
        print(f"{plural(report.left, 'row')} left, and saved: the same command resumes with them.", file=sys.stderr)
    else:
        print("Stopped before anything was sent: run the same command again.", file=sys.stderr)


def _print_failed(report: DeliveryReport, args: argparse.Namespace) -> bool:
    """Print the first rows that were not delivered, and what to do; return whether there are any."""
    if not report.rejected and not report.unknown:
        return False
    if report.delivery is None:
        return True
    with closing(open_database(args.ledger_conn_id)) as database:
        for row in islice(outcomes_of(database, report.delivery, statuses=("rejected", "unknown")), _FAILED_SHOWN):
            print(f"{row.place or f'row {row.position:,}'}: {row.status}, {row.message or row.reason}", file=sys.stderr)
    print(
        f"All of them: airflow regal outcomes {report.delivery}. Send them again: "
        f"{redeliver_command(report.delivery, args.conn_id)}",
        file=sys.stderr,
    )
    return True


# -- what is sent -----------------------------------------------------------------------------------------------------


def _input(args: argparse.Namespace, stack: ExitStack) -> _Input:
    """Determine what is sent.

    :raises InvalidEventError: the one event has faults.
    """
    if args.file is None:
        return _one_event(args)
    how = f"call {args.call}, event {args.event}"
    if args.file == "-":
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="regal-send-")))
        with (folder / "stdin").open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        with (folder / "stdin").open("rb") as copy:
            content = hashlib.file_digest(copy, "sha256").hexdigest()
        files = [SourceFile("stdin", lambda: (folder / "stdin").open("rb"))]
        return _Input("the events of stdin", f"stdin {content}, {how}", lambda: _rows(files, args.call))
    path = args.file if "://" in args.file else str(Path(args.file).absolute())
    try:
        files = find_files([path])
    except FileNotFoundError as error:
        raise CommandError(str(error)) from None
    return _Input(f"the events of {args.file}", f"file {path}, {how}", lambda: _rows(files, args.call))


def _one_event(args: argparse.Namespace) -> _Input:
    name = "event" if args.call == "track" else "name"
    fields = {
        name: args.event,
        "user_id": args.user_id,
        "phone": args.phone,
        "email": args.email,
        "traits": json_object("--traits", args.traits),
        "properties": json_object("--properties", args.properties),
        "timestamp": args.timestamp,
        "message_id": args.message_id,
    }
    written = {field: value for field, value in fields.items() if value is not None}
    EVENTS[args.call].read(written)  # report errors before anything is stored
    key = json.dumps({"call": args.call, **written}, sort_keys=True)
    return _Input(f"this {args.call} event", key, lambda: iter([Marked({EVENT_MARK: args.call, ROW_MARK: written})]))


def _rows(files: list[SourceFile], call: str | None) -> Iterator[Marked]:
    for file in files:
        with closing(file.open()) as stream:
            yield from (_calls(stream, file.name) if call is None else read_json_lines(stream, file.name))


def _calls(stream: IO[bytes], name: str) -> Iterator[Marked]:
    """Return the events of lines that name their own call: with ``call``, or like Segment with ``type``."""
    for origin, line, found in objects(stream, name):
        if isinstance(found, BadLineError):
            yield bad_row("the line", str(found), origin, {"line": line.decode(errors="replace").rstrip("\r\n")})
        elif "call" in found:
            yield _event(found, origin)
        elif "type" in found:
            yield message_row(found, origin, ("page", "screen"))
        else:
            yield bad_row("call", f"is missing: write one of {', '.join(CALLS)}, or name it with --call", origin, found)


def _event(found: Mapping[str, Any], origin: str) -> Marked:
    call = found["call"]
    if call not in CALLS:
        shown = shown_key(call) if isinstance(call, str) else type(call).__name__
        return bad_row("call", f"must be one of {', '.join(CALLS)}, not {shown!r}", origin, found)
    written = {name: value for name, value in found.items() if name != "call"}
    return Marked({ORIGIN_MARK: origin, EVENT_MARK: call, ROW_MARK: written})
