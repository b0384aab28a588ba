"""The commands, described once for both front ends: ``python -m airflow_provider_regal`` and ``airflow regal``.

Only descriptions: each names the function that runs it, whose module is imported when the command runs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final, NamedTuple

from airflow_provider_regal.client.guarantee import GUARANTEES
from airflow_provider_regal.sandbox.settings import (
    DEFAULT_API_KEY,
    DEFAULT_HOST,
    DEFAULT_PORT,
    DOCUMENTED_RATE_LIMIT,
    IDENTIFIERS,
)

INTERRUPTED: Final = 130
_CONTEXT: Final = "_AIRFLOW_PROCESS_CONTEXT"
MOST_DAYS: Final = 36_500
_MOST_NAMED: Final = 100_000
_AGO: Final = re.compile(r"(\d{1,6})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

# -- argument types -------------------------------------------------------------------------------------------------


class When(NamedTuple):
    """A time, and how it was written."""

    text: str
    moment: datetime

    @classmethod
    def read(cls, text: str) -> When:
        """Parse ``2d``, ``12h``, or an ISO 8601 date or time; UTC by default."""
        now = datetime.now(UTC)
        if (ago := _AGO.fullmatch(text)) is not None:
            with suppress(OverflowError):
                return cls(text, now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
        with suppress(ValueError):
            moment = datetime.fromisoformat(text)
            return cls(text, moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: write 2026-11-29, 2026-11-29T08:00:00+01:00, or how long ago, such as 12h or 2d"
        )


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")


def _days(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (days := float(text)) <= MOST_DAYS:
            return days
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of days (0 to {MOST_DAYS:,})")


def _positive(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _delivery(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not the id of a delivery, such as 17")


def _row_numbers(text: str) -> frozenset[int]:
    found = set[int]()
    for part in text.split(","):
        first, dash, last = (one.strip() for one in part.partition("-"))
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 2**31):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of row numbers, such as 3,7-9")
        if int(last) - int(first) > _MOST_NAMED:
            raise argparse.ArgumentTypeError(f"{text!r} names more than {_MOST_NAMED:,} rows")
        found.update(range(int(first), int(last) + 1))
    return frozenset(found)


# -- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Argument:
    """One option, with the fields that ``argparse`` and Airflow's ``Arg`` share."""

    flags: tuple[str, ...]
    options: dict[str, Any]


def _no_fault(args: argparse.Namespace) -> str | None:
    return None


@dataclass(frozen=True)
class Command:
    """One command.

    :param run: its function, as ``module:function``; takes the parsed arguments and returns the exit code.
    :param fault: returns the error in a combination of arguments; None if there is none.
    """

    name: str
    help: str
    description: str
    example: str
    arguments: tuple[Argument, ...]
    run: str
    fault: Callable[[argparse.Namespace], str | None] = _no_fault

    def __call__(self, args: argparse.Namespace) -> int:
        """Import the function and call it."""
        module, _, function = self.run.partition(":")
        try:
            with _stored_connections():
                code = int(getattr(import_module(module), function)(args))
                sys.stdout.flush()
                return code
        except BrokenPipeError:  # for example with `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            return INTERRUPTED


@dataclass(frozen=True)
class Group:
    """Commands that belong together."""

    name: str
    help: str
    description: str
    example: str
    commands: tuple[Command, ...]


@contextmanager
def _stored_connections() -> Iterator[None]:
    """Let Airflow 3 find connections made in its UI: outside a task it only reads the environment."""
    before = os.environ.get(_CONTEXT)
    os.environ.setdefault(_CONTEXT, "server")  # as `airflow connections test` does
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_CONTEXT, None)


def _argument(*flags: str, **options: Any) -> Argument:
    return Argument(flags, options)


_CONN_ID = _argument(
    "--conn-id", default="regal_default", metavar="ID", help="connection of type regal (default: regal_default)"
)
_LEDGER = _argument(
    "--ledger-conn-id",
    metavar="ID",
    help="connection of the ledger's database (default: the configured one, else regal/ledger.db in AIRFLOW_HOME)",
)
_ACCOUNT = _argument("--account", metavar="NAME", help="only this account (default: all accounts of the ledger)")
_JSON = _argument("--json", action="store_true", help="print JSON")
_YES = _argument("--yes", action="store_true", help="do not ask before events that may reach people")
_DAG = _argument("--dag", metavar="ID", help="only deliveries of this DAG")
_TASK = _argument("--task", metavar="ID", help="only deliveries of this task")
_RUN = _argument("--run", metavar="ID", help="only deliveries of this DAG run")


def _names_no_source(args: argparse.Namespace) -> str | None:
    """Return the error in the combination of the arguments of ``ROW_SOURCE``; None if there is none."""
    named = [name for name in ("dag", "sql", "file") if getattr(args, name) is not None]
    if len(named) != 1:
        return "name one source: --dag and --task, --sql and --sql-conn-id, or --file"
    of_task = ("task", "run_id", "logical_date")
    of_rows = ("call", "event", "mapping")
    odd = [name for name in (*of_rows, "sql_conn_id", "format") if getattr(args, name) is not None]
    if named == ["dag"]:
        if odd:
            return f"{_flags(odd)}: not with --dag, whose task has them"
        if args.run_id is not None and args.logical_date is not None:
            return "--run-id and --logical-date: name one of them"
        return "--dag needs --task" if args.task is None else None
    odd = [name for name in of_task if getattr(args, name) is not None] + ["map_index"] * (args.map_index >= 0)
    if odd:
        return f"{_flags(odd)}: only with --dag"
    if (args.sql is None) != (args.sql_conn_id is None):
        return "--sql and --sql-conn-id belong together"
    if args.format is not None and args.file is None:
        return "--format: only with --file"
    if args.call is None and args.format != "segment":
        return f"--{named[0]} needs --call: identify, track, page or screen"
    return None


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


CALLS: Final = ("identify", "track", "page", "screen")
#: Name the rows of a task, a query or a file; ``task_source.source_of`` opens them.
ROW_SOURCE: Final = (
    _argument("--dag", metavar="ID", help="the DAG; its file is processed as Airflow does"),
    _argument("--task", metavar="ID", help="the task whose rows are meant"),
    _argument("--run-id", metavar="ID", help="render templates for this run of Airflow's database, with its XComs"),
    _argument(
        "--logical-date",
        type=When.read,
        metavar="TIME",
        help="render them as for a run triggered by hand at this time (default: now)",
    ),
    _argument("--map-index", type=int, default=-1, metavar="N", help="which instance of a mapped task"),
    _argument("--sql", metavar="QUERY", help="a query, instead of a task"),
    _argument("--sql-conn-id", metavar="ID", help="connection of the database for --sql"),
    _argument("--file", metavar="PATH", help="a file, URI or glob, instead of a task"),
    _argument(
        "--format", choices=("jsonl", "csv", "parquet", "segment"), help="of --file (default: what its name ends in)"
    ),
    _argument("--call", choices=CALLS, help="what the rows of --sql or --file are"),
    _argument("--event", metavar="NAME", help="name of the track events, where no column event has it"),
    _argument(
        "--mapping", metavar="JSON", help='column -> place or list of places, such as \'{"plan": "traits.tier"}\''
    ),
)
SANDBOX = Command(
    name="sandbox",
    help="run a local Regal to try things out against",
    description=(
        "Run a local Regal: it takes events like the real one, shows what became of them on its\n"
        "pages, and says what was wrong with them. Nothing leaves this machine."
    ),
    example=(
        "example:\n"
        "  %(prog)s --port 8010\n"
        "  then open http://127.0.0.1:8010/ and copy the connection it prints.\n"
        "\n"
        "  %(prog)s --rate-limit 50 --latency-ms 120 --faults faults.json\n"
        '  with [{"on": {"every": 50}, "do": {"status": 503, "retry_after": 2}}] in faults.json'
    ),
    arguments=(
        _argument("--host", default=DEFAULT_HOST, help=f"address to listen on (default: {DEFAULT_HOST})"),
        _argument(
            "--port", default=DEFAULT_PORT, type=_port, help=f"port, 0 for any free one (default: {DEFAULT_PORT})"
        ),
        _argument(
            "--api-key", default=DEFAULT_API_KEY, metavar="KEY", help=f"the key to expect (default: {DEFAULT_API_KEY})"
        ),
        _argument(
            "--rate-limit",
            default=DOCUMENTED_RATE_LIMIT,
            type=int,
            metavar="N",
            help=f"requests let through in any second, 0 for no limit (default: {DOCUMENTED_RATE_LIMIT})",
        ),
        _argument(
            "--retry-after",
            type=int,
            metavar="S",
            help="announce this many seconds when over the limit (default: no header)",
        ),
        _argument(
            "--latency-ms", default=0.0, type=float, metavar="MS", help="how long each answer takes (default: 0)"
        ),
        _argument(
            "--wrong-key-status",
            default=401,
            type=int,
            choices=(401, 403),
            help="what a wrong key gets (default: 401)",
        ),
        _argument(
            "--lookup-order",
            default=",".join(IDENTIFIERS),
            metavar="ORDER",
            help=f"which identifier finds a profile first (default: {','.join(IDENTIFIERS)})",
        ),
        _argument("--faults", metavar="FILE", help="JSON file with scripted faults"),
        _argument(
            "--allow-host",
            action="append",
            default=[],
            metavar="NAME",
            help="answer to this host name, too, such as the name of a Docker service; may be repeated\n"
            "(default: only to localhost, IP addresses and the name in --host)",
        ),
    ),
    run="airflow_provider_regal.sandbox.server:run_sandbox",
)
CHECK = Command(
    name="check",
    help="check that everything a delivery needs is there",
    description=(
        "Check the connection, that Regal can be reached, the clocks, the ledger (a trial entry is written\n"
        "and removed) and the versions. Sends no event. Run it where tasks run, as the user who runs them.\n"
        "Exits with 1 if anything would keep a delivery from working."
    ),
    example="examples:\n  %(prog)s\n  %(prog)s --conn-id regal_prod --ledger-conn-id regal_ledger",
    arguments=(_CONN_ID, _LEDGER),
    run="airflow_provider_regal.cli.check:run_check",
)
DELIVERIES = Command(
    name="deliveries",
    help="list deliveries, or show one",
    description=(
        "List deliveries with what became of their rows, the newest first. With the id of one, show it in\n"
        "full, with the reasons of its rejected and unknown rows. Prints no personal data."
    ),
    example=(
        "examples:\n"
        "  %(prog)s --since 2d\n"
        "  %(prog)s --dag crm_sync --state failed --state stopped\n"
        "  %(prog)s 17\n"
        "  %(prog)s --json --limit 1000 | jq '.[] | select(.rejected > 0)'"
    ),
    arguments=(
        _argument("delivery", nargs="?", type=_delivery, metavar="DELIVERY", help="id of one delivery to show in full"),
        _DAG,
        _TASK,
        _RUN,
        _argument(
            "--state",
            action="append",
            choices=("reading", "sending", "finished", "failed", "stopped", "replaced", "planned", "expired"),
            metavar="STATE",
            help="only deliveries in this state (%(choices)s); may be repeated",
        ),
        _ACCOUNT,
        _argument(
            "--since", type=When.read, metavar="TIME", help="started at this time or later: 2026-11-29, 12h, 2d (ago)"
        ),
        _argument("--limit", type=_positive, default=20, metavar="N", help="at most so many (default: 20)"),
        _JSON,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.history:run_deliveries",
)


def _lists_or_copies(args: argparse.Namespace) -> str | None:
    copying = {"--table": args.table, "--since": args.since, "--account": args.account, "--all": args.again or None}
    if args.to_conn_id is None:
        if args.delivery is None:
            return "name a DELIVERY; or copy the outcomes of all with --to-conn-id and --table"
        given = [name for name, value in copying.items() if value is not None]
        return f"{given[0]} is for --to-conn-id" if given else None
    if args.table is None:
        return "--to-conn-id needs --table"
    if args.delivery is not None or args.status or args.reason or args.format != "table":
        return "--to-conn-id copies all outcomes: leave DELIVERY, --status, --reason and --format out"
    return None


OUTCOMES = Command(
    name="outcomes",
    help="list the rows of a delivery that were not delivered, and why; or copy outcomes into a warehouse",
    description=(
        "List the rows of a delivery with what became of each: which row of the source (file and line where\n"
        "there is a file), why, and who it is about. Without --status: rejected and unknown rows. With --status left:\n"
        "rows without an outcome yet. Skipped rows are only counted. This prints personal data.\n"
        "\n"
        "With --to-conn-id, copy the outcomes of all deliveries into a table of another database, to be joined with\n"
        "the rows they came from. Each run copies only what has changed. After an\n"
        "interrupted run, the next one copies the rest."
    ),
    example=(
        "examples:\n"
        "  %(prog)s 17\n"
        "  %(prog)s 17 --status rejected --reason 'HTTP 400'\n"
        "  %(prog)s 17 --status acknowledged --format csv > delivered.csv\n"
        "  %(prog)s --to-conn-id warehouse --table regal.outcomes --since 7d"
    ),
    arguments=(
        _argument("delivery", nargs="?", type=_delivery, metavar="DELIVERY", help="id of the delivery"),
        _argument(
            "--status",
            action="append",
            choices=("acknowledged", "rejected", "unknown", "left"),
            help="which rows; may be repeated (default: rejected and unknown)",
        ),
        _argument("--reason", metavar="TEXT", help="only rows with this reason, or whose message begins with it"),
        _argument("--format", choices=("table", "csv", "jsonl"), default="table", help="default: table"),
        _argument("--to-conn-id", metavar="CONN_ID", help="copy into the database of this connection"),
        _argument("--table", help="into this table, and TABLE_deliveries; both are made where they are missing"),
        _argument(
            "--since", type=When.read, metavar="TIME", help="deliveries started at this time or later: 2026-11-29, 7d"
        ),
        _argument("--account", help="deliveries of this account"),
        _argument("--all", dest="again", action="store_true", help="also deliveries that have not changed"),
        _LEDGER,
    ),
    fault=_lists_or_copies,
    run="airflow_provider_regal.cli.history:run_outcomes",
)
FIND = Command(
    name="find",
    help="show everything on record about one person",
    description=(
        "Show what is on record of one person, by phone, email or user id: every row that was sent, rejected\n"
        "or is unknown, every decision on consent, consent as it is now, and rows that are still to be sent.\n"
        "Give several identifiers of the same person to see them together. This prints personal data.\n"
        "\n"
        "Rows that are still to be sent, and invalid rows, are as their source wrote them. They are read one by\n"
        "one, up to --scan-rows: a phone or email that is valid is found however it is written, any other value\n"
        "as it is written; a user id that is only digits is looked for in columns\n"
        "whose name has a word such as id, key, no or number."
    ),
    example=(
        "examples:\n"
        "  %(prog)s '(212) 555-0100'\n"
        "  %(prog)s anne@example.com cust-1042 --account acme\n"
        "  %(prog)s +12125550100 --json"
    ),
    arguments=(
        _argument("person", nargs="+", metavar="PHONE|EMAIL|USER_ID", help="an identifier of the person"),
        _ACCOUNT,
        _argument(
            "--limit", type=_positive, default=500, metavar="N", help="rows and decisions at most, the newest (500)"
        ),
        _argument(
            "--scan-rows",
            type=_positive,
            default=1_000_000,
            metavar="N",
            help="rows to read at most that are kept as their source wrote them (1,000,000)",
        ),
        _JSON,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.people.person:run_find",
)


def _names_no_letters(args: argparse.Namespace) -> str | None:
    if args.delivery or any(getattr(args, name) is not None for name in ("dag", "task", "run", "since", "reason")):
        return None
    return "name what to redeliver: a DELIVERY, or at least one of --dag, --task, --run, --since, --reason"


REDELIVER = Command(
    name="redeliver",
    help="send dead letters again",
    description=(
        "Send dead letters again: rows that were rejected, or of which it can't be known whether Regal received\n"
        "them. A letter has to match all that is named. Every rule applies as at first, and each letter is taken\n"
        "by one redelivery only. What is rejected again is a dead letter of this redelivery. If it was stopped or\n"
        "killed, the same command resumes it."
    ),
    example=(
        "examples:\n"
        "  %(prog)s 17 --dry-run\n"
        "  %(prog)s 17 18\n"
        "  %(prog)s --dag crm_sync --since 2d --reason 'HTTP 400'\n"
        "  %(prog)s 17 --status unknown      accepts that people are reached twice"
    ),
    arguments=(
        _argument("delivery", nargs="*", type=_delivery, metavar="DELIVERY", help="id of a delivery"),
        _argument("--dag", metavar="ID", help="letters of this DAG"),
        _argument("--task", metavar="ID", help="letters of this task"),
        _argument("--run", metavar="ID", help="letters of this DAG run"),
        _argument(
            "--since", type=When.read, metavar="TIME", help="failed first at this time or later: 2026-11-29, 12h, 2d"
        ),
        _argument("--until", type=When.read, metavar="TIME", help="failed first before this time"),
        _argument("--reason", metavar="TEXT", help="with this reason, or whose message begins with it"),
        _argument(
            "--status",
            action="append",
            choices=("rejected", "unknown"),
            help="may be repeated (default: rejected); unknown accepts that people are reached twice",
        ),
        _argument("--event", metavar="NAME", help="name of track events whose rows do not hold it"),
        _argument("--rate", type=_positive, metavar="N", help="requests per second (default: the connection's)"),
        _argument("--limit", type=_positive, metavar="N", help="take so many letters at most, the oldest first"),
        _argument(
            "--max-event-age-days",
            type=_days,
            default=7.0,
            metavar="D",
            help="reject older track, page and screen events, 0 for no limit (default: 7)",
        ),
        _argument("--dry-run", action="store_true", help="check and count; send and take nothing"),
        _argument("--allow-empty", action="store_true", help="exit with 0 if no letter matches"),
        _CONN_ID,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.redeliver:run_redeliver",
    fault=_names_no_letters,
)


def _names_no_rows(args: argparse.Namespace) -> str | None:
    return None if (args.rows is None) == args.all else "name the rows with --rows, or take --all"


SETTLE = Command(
    name="settle",
    help="mark unknown rows that you found at Regal",
    description=(
        "Mark unknown rows that you found at Regal: no redelivery sends them, and they need no look any more. Rows\n"
        "that Regal does not have can then be redelivered: redeliver DELIVERY --status unknown. Nothing else\n"
        "changes: the status of the marked rows stays unknown, and consent on record stays as it is."
    ),
    example="examples:\n  %(prog)s 17 --rows 212,215-219\n  %(prog)s 17 --all\n  %(prog)s 17 --rows 212 --undo",
    arguments=(
        _argument("delivery", type=_delivery, metavar="DELIVERY", help="id of the delivery"),
        _argument("--rows", type=_row_numbers, metavar="ROWS", help="numbers of rows, such as 212,215-219"),
        _argument("--all", action="store_true", help="all unknown rows that no redelivery has taken"),
        _argument("--undo", action="store_true", help="remove the mark"),
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.settle:run_settle",
    fault=_names_no_rows,
)
UPGRADE = Command(
    name="upgrade",
    help="create the ledger's tables, or migrate them to this version",
    description=(
        "Create the ledger's tables, or migrate them to this version of the package. A delivery does so, too, when it\n"
        "first opens the ledger. Older versions of the package refuse a newer ledger: upgrade all workers together."
    ),
    example="example:\n  %(prog)s --ledger-conn-id regal_ledger",
    arguments=(_LEDGER,),
    run="airflow_provider_regal.cli.ledger:run_upgrade",
)
PRUNE = Command(
    name="prune",
    help="remove what is past its retention period",
    description=(
        "Remove payloads of dead letters, and rows of deliveries that never finished, after --dead-letter-days;\n"
        "rows of plans that were not sent, after --plan-days;\n"
        "deliveries with the outcomes of their rows after --history-days; and, if that is set, lines of the consent\n"
        "log after --consent-days, but for what proves an opt-in that Regal still has. Consents, contacts and message\n"
        "ids stay. Works in small transactions while deliveries run."
    ),
    example="examples:\n  %(prog)s\n  %(prog)s --history-days 30 --dead-letter-days 14",
    arguments=(
        _argument("--history-days", type=_days, metavar="D", help="default: the configured history_days (90)"),
        _argument("--dead-letter-days", type=_days, metavar="D", help="default: the configured dead_letter_days (30)"),
        _argument("--plan-days", type=_days, metavar="D", help="default: the configured plan_days (7)"),
        _argument(
            "--consent-days", type=_days, metavar="D", help="default: the configured consent_days (kept forever)"
        ),
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.ledger:run_prune",
)
STATS = Command(
    name="stats",
    help="show how large the ledger is",
    description="Count the rows of the ledger's tables, and show how large they are. Prints no personal data.",
    example="examples:\n  %(prog)s\n  %(prog)s --json",
    arguments=(_JSON, _LEDGER),
    run="airflow_provider_regal.cli.ledger:run_stats",
)
COPY = Command(
    name="copy",
    help="copy the ledger into another database",
    description=(
        "Copy the whole ledger into an empty database, such as from the SQLite file to PostgreSQL: all of it or\n"
        "nothing. Pause the DAGs that use it first; then set AIRFLOW__REGAL__LEDGER_CONN_ID to the new connection."
    ),
    example="example:\n  %(prog)s --to-conn-id regal_ledger",
    arguments=(
        _argument("--to-conn-id", required=True, metavar="ID", help="connection of the new database"),
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.ledger:run_copy",
)
LEDGER = Group(
    name="ledger",
    help="manage the ledger's database",
    description="Manage the ledger's database.",
    example="example:\n  %(prog)s stats",
    commands=(UPGRADE, PRUNE, STATS, COPY),
)


def _names_no_decisions(args: argparse.Namespace) -> str | None:
    period = args.since is not None or args.until is not None
    if args.person == ["owed"]:
        if period or args.export or args.delivery is not None:
            return "owed takes --send, --account and --json alone"
        return None
    if args.send:
        return "--send is for owed opt-outs: consent owed --send"
    if args.person and (period or args.delivery is not None):
        return "name a person, or a period or delivery, not both"
    if not args.person and not args.export and args.delivery is None:
        return "name a person, --delivery N, or --export FILE with --since and --until; or write: consent owed"
    if period and not args.export:
        return "--since and --until are for --export"
    return None


CONSENT = Command(
    name="consent",
    help="explain a person's consent, export the evidence, send owed opt-outs",
    description=(
        "Explain in plain words what is on record of a person's consent, by phone, email or user id: what Regal has\n"
        "and since when, with which evidence, and what was withheld or rejected and why. --export writes the evidence\n"
        "to a file, of that person, or of all decisions of a period. --delivery lists what a delivery withheld.\n"
        "\n"
        "consent owed lists the opt-outs that were read and that Regal has not acknowledged, the oldest first. The\n"
        "next delivery of contacts on the account sends them first; --send sends exactly those now.\n"
        "This prints personal data."
    ),
    example=(
        "examples:\n"
        "  %(prog)s '(212) 555-0100'\n"
        "  %(prog)s anne@example.com cust-1042 --export anne.json\n"
        "  %(prog)s --export 2026-q4.csv --since 2026-10-01 --until 2027-01-01\n"
        "  %(prog)s --delivery 17\n"
        "  %(prog)s owed\n"
        "  %(prog)s owed --send --conn-id regal_default"
    ),
    arguments=(
        _argument("person", nargs="*", metavar="PHONE|EMAIL|USER_ID|owed", help="identifiers of one person; or: owed"),
        _argument(
            "--export", metavar="FILE", help="write the decisions with their evidence to a new .json or .csv file"
        ),
        _argument("--since", type=When.read, metavar="TIME", help="logged at this time or later: 2026-11-29, 12h, 2d"),
        _argument("--until", type=When.read, metavar="TIME", help="logged before this time"),
        _argument("--delivery", type=_delivery, metavar="N", help="decisions of one delivery"),
        _argument("--send", action="store_true", help="with owed: send them now; exits with 1 if any is left"),
        _ACCOUNT,
        _JSON,
        _CONN_ID,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.people.consent:run_consent",
    fault=_names_no_decisions,
)


def _names_nobody(args: argparse.Namespace) -> str | None:
    if (args.sql is None) != (args.sql_conn_id is None):
        return "--sql and --sql-conn-id belong together"
    return None if args.person or args.file or args.sql else "name people: PHONE|EMAIL|USER_ID, --file, or --sql"


_PEOPLE = _argument(
    "person",
    nargs="*",
    metavar="PHONE|EMAIL|USER_ID",
    help="the people; user:<id> for a user id that looks like a phone",
)
_FILE = _argument(
    "--file", metavar="FILE", help="one identifier a line, or CSV with columns user_id, phone, email; - for stdin"
)
_SQL = (
    _argument("--sql", metavar="QUERY", help="a query with columns user_id, phone or email"),
    _argument("--sql-conn-id", metavar="ID", help="connection of the database for --sql"),
)
_ONE_ACCOUNT = _argument("--account", metavar="NAME", help="the account (default: the only one of the ledger)")
SUPPRESS_LIST = Command(
    name="list",
    help="list who is suppressed or was forgotten",
    description=(
        "List who is suppressed, and hashes of who was forgotten. With identifiers, list these people alone, and exit\n"
        "with 1 if none of them is suppressed. This prints personal data."
    ),
    example="examples:\n  %(prog)s\n  %(prog)s '(212) 555-0100' anne@example.com\n  %(prog)s --json",
    arguments=(_PEOPLE, _FILE, _ACCOUNT, _JSON, _LEDGER),
    run="airflow_provider_regal.cli.people.suppress:run_list",
)
SUPPRESS_ADD = Command(
    name="add",
    help="suppress people",
    description=(
        "Suppress people: from then on rows about them are skipped on every path, and only their opt-outs are sent.\n"
        "A text is read as a phone, else as an email, else as a user id. Entries that can't be read are\n"
        "listed; the others are added."
    ),
    example=(
        "examples:\n"
        "  %(prog)s '(212) 555-0100' anne@example.com user:1042 --note 'by letter'\n"
        "  %(prog)s --file do_not_contact.csv\n"
        "  %(prog)s --sql-conn-id dwh --sql 'SELECT phone FROM do_not_call'"
    ),
    arguments=(
        _PEOPLE,
        _FILE,
        *_SQL,
        _argument("--note", metavar="TEXT", help="why, to be listed with them"),
        _ONE_ACCOUNT,
        _JSON,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.people.suppress:run_add",
    fault=_names_nobody,
)
SUPPRESS_REMOVE = Command(
    name="remove",
    help="let people be contacted again",
    description=(
        "Take people off the list. Of people who were forgotten, the times of their opt-outs are on record again:\n"
        "they block older opt-ins, and the next delivery of contacts sends them. Exits with 1 if none was suppressed."
    ),
    example="examples:\n  %(prog)s anne@example.com\n  %(prog)s --file contact_again.csv",
    arguments=(_PEOPLE, _FILE, *_SQL, _ONE_ACCOUNT, _JSON, _LEDGER),
    run="airflow_provider_regal.cli.people.suppress:run_remove",
    fault=_names_nobody,
)
SUPPRESS = Group(
    name="suppress",
    help="manage the list of people who must not be contacted",
    description="Manage the list of people who must not be contacted.",
    example="example:\n  %(prog)s add anne@example.com",
    commands=(SUPPRESS_LIST, SUPPRESS_ADD, SUPPRESS_REMOVE),
)
FORGET = Command(
    name="forget",
    help="remove all that is on record of a person",
    description=(
        "Remove a person from the ledger: outcomes, dead letters, rows of snapshots, consents and their log,\n"
        "contacts, message ids. Other identifiers that are on record with those given are included: look at them with\n"
        "--dry-run. A keyed hash stays, so that an old table does not bring the person back, with the times of their\n"
        "opt-outs. Exits with 1 if a running delivery, or an opt-out that Regal lacks, is in the way.\n"
        "This prints personal data, and can't be undone."
    ),
    example="examples:\n  %(prog)s anne@example.com --dry-run\n  %(prog)s +12125550100 user:1042 --account acme",
    arguments=(
        _argument("person", nargs="+", metavar="PHONE|EMAIL|USER_ID", help="identifiers of one person; user:<id>"),
        _argument("--dry-run", action="store_true", help="show what would be removed; remove nothing"),
        _argument(
            "--lose-owed", action="store_true", help="even if Regal has not acknowledged an opt-out of the person"
        ),
        _ACCOUNT,
        _JSON,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.people.forget:run_forget",
)


def _names_no_event(args: argparse.Namespace) -> str | None:
    of_one = ("user_id", "phone", "email", "traits", "properties", "timestamp", "message_id")
    given = [name for name in of_one if getattr(args, name) is not None]
    if args.file is not None:
        if given:
            return f"{_flags(given)}: of one event, not with --file"
        return "--event: with --file, only with --call track" if args.event and args.call != "track" else None
    if args.call is None:
        return "name what to send: --call with the event's options, or --file"
    if args.call == "track" and args.event is None:
        return "--call track needs --event"
    if args.call == "identify" and (odd := [name for name in ("event", "properties") if getattr(args, name)]):
        return f"{_flags(odd)}: not for identify; use --traits"
    return None


SEND = Command(
    name="send",
    help="send one event, or the events of a JSON Lines file",
    description=(
        "Send one event, or the lines of a file, as a delivery: by the rules of tasks, in the same ledger, at the\n"
        "connection's rate. A line is an object with a call (identify, track, page, screen) and its fields, a call as\n"
        "Segment writes it (type), or with --call a plain row. Ctrl-C stops it with the rest saved: the same command\n"
        "resumes. Once it has finished, the same command sends everything again but for message ids that were sent.\n"
        "Exits with 1 if a row was rejected, or it can't be known whether Regal received it."
    ),
    example=(
        "examples:\n"
        "  %(prog)s --call track --event Paid --user-id anne --properties '{\"price\": 30}'\n"
        "  %(prog)s --call identify --phone '(212) 555-0100' --traits '{\"plan\": \"gold\"}'\n"
        "  %(prog)s --file events.jsonl --dry-run\n"
        "  jq -c '.[]' a.json | %(prog)s --file - --call identify"
    ),
    arguments=(
        _argument("--file", metavar="PATH", help="JSON Lines, plain or gzip; a URI or glob; - for stdin"),
        _argument("--call", choices=CALLS, help="of the one event; with --file, of rows that do not say it themselves"),
        _argument("--event", metavar="NAME", help="name of the track event, page or screen"),
        _argument("--user-id", metavar="ID", help="your own id of the person"),
        _argument("--phone", metavar="PHONE", help="the person's phone"),
        _argument("--email", metavar="EMAIL", help="the person's email"),
        _argument("--traits", metavar="JSON", help="attributes of the contact, and optIn"),
        _argument("--properties", metavar="JSON", help="what is to be known about the event"),
        _argument("--timestamp", metavar="TIME", help="when it happened, ISO 8601 (default: Regal's time of receipt)"),
        _argument("--message-id", metavar="ID", help="an event with the same message id is sent once"),
        _argument(
            "--guarantee",
            choices=GUARANTEES,
            help="whether what may have arrived is sent again (default: at_least_once for identify alone)",
        ),
        _argument("--rate", type=_positive, metavar="N", help="requests per second (default: the connection's)"),
        _argument(
            "--max-event-age-days",
            type=_days,
            default=7.0,
            metavar="D",
            help="reject older track, page and screen events, 0 for no limit (default: 7)",
        ),
        _argument("--dry-run", action="store_true", help="check and count; send and keep nothing"),
        _YES,
        _CONN_ID,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.send:run_send",
    fault=_names_no_event,
)
TRY = Command(
    name="try",
    help="show what becomes of one row, and send it if asked to",
    description=(
        "Show one row of a task, a query or a file: the row as it is read, what is decided about it, the exact\n"
        "request, and what Regal would bill. Nothing is sent or kept without --send; with it the row is a delivery of\n"
        "its own, by the same rules and in the same ledger, and Regal's answer is shown. This prints personal data.\n"
        "Exits with 1 if the row is rejected, or Regal did not acknowledge it."
    ),
    example=(
        "examples:\n"
        "  %(prog)s --dag crm_sync --task contacts\n"
        "  %(prog)s --dag crm_sync --task lessons --row 17 --logical-date 2026-11-28 --send\n"
        "  %(prog)s --sql 'SELECT phone FROM leads' --sql-conn-id dwh --call identify\n"
        "  %(prog)s --file contacts.csv --call identify --row 3"
    ),
    arguments=(
        *ROW_SOURCE,
        _argument("--row", type=_positive, default=1, metavar="N", help="which row, from 1 (default: 1)"),
        _argument("--send", action="store_true", help="send this row now, and show what Regal answers"),
        _YES,
        _argument("--conn-id", metavar="ID", help="connection of type regal (default: the task's, else regal_default)"),
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.try_row:run_try",
    fault=_names_no_source,
)


def _names_no_output(args: argparse.Namespace) -> str | None:
    if args.merge and args.force:
        return "--merge and --force: name one of them"
    if (args.merge or args.force) and args.output is None:
        return "--merge and --force: only with --output"
    return _names_no_source(args)


CONTRACT_INFER = Command(
    name="infer",
    help="write a first contract from the rows of a task, a query or a file",
    description=(
        "Read the rows of a task as its dry run does, and write a contract that they meet: the names and types of\n"
        "traits and properties, and what every row has. It holds no value of a row. Nothing is sent, and nothing is\n"
        "written to the ledger. Rows that would be rejected are counted and left out."
    ),
    example=(
        "examples:\n"
        "  %(prog)s --dag crm_sync --task contacts --output contract.json\n"
        "  %(prog)s --dag crm_sync --task orders --output contract.json --merge\n"
        "  %(prog)s --sql-conn-id dwh --sql 'SELECT * FROM people' --call identify"
    ),
    arguments=(
        *ROW_SOURCE,
        _argument("--rows", type=_positive, metavar="N", help="read at most this many rows (default: all)"),
        _argument("--output", metavar="FILE", help="write to this new file (default: print)"),
        _argument("--merge", action="store_true", help="add to the contract in --output what it lacks"),
        _argument("--force", action="store_true", help="replace --output"),
    ),
    run="airflow_provider_regal.cli.contract:run_infer",
    fault=_names_no_output,
)
CONTRACT_VALIDATE = Command(
    name="validate",
    help="check that a file is a contract",
    description="Check that a file is a contract whose schemas can be used. Exits with 1 if it is not.",
    example="example:\n  %(prog)s contract.json",
    arguments=(_argument("file", metavar="FILE", help="path or URI of the JSON file"),),
    run="airflow_provider_regal.cli.contract:run_validate",
)
CONTRACT_TYPES = Command(
    name="types",
    help="list the types that traits and properties are sent with",
    description=(
        "List the types that traits and properties were first sent with, and since when. Values of another type are\n"
        "rejected (type_drift)."
    ),
    example="example:\n  %(prog)s --account acme",
    arguments=(_ONE_ACCOUNT, _JSON, _LEDGER),
    run="airflow_provider_regal.cli.contract:run_types",
)
CONTRACT_ACCEPT = Command(
    name="accept",
    help="accept another type of a trait or property",
    description=(
        "Record that a trait or property is sent with another type from now on, so that its values are no longer\n"
        "rejected (type_drift). Regal keeps the first type it got, until its support resets it: ask for that first."
    ),
    example="examples:\n  %(prog)s traits.plan text\n  %(prog)s 'Order Placed: total' number",
    arguments=(
        _argument("name", metavar="NAME", help="as the rejected row and the list of types have it"),
        _argument("type", choices=("text", "number", "boolean", "list", "object"), help="the new type"),
        _ONE_ACCOUNT,
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.contract:run_accept",
)
CONTRACT = Group(
    name="contract",
    help="write and check contracts, and manage the types that Regal keeps",
    description="Write and check contracts, and manage the types that Regal keeps.",
    example="example:\n  %(prog)s infer --dag crm_sync --task contacts --output contract.json",
    commands=(CONTRACT_INFER, CONTRACT_VALIDATE, CONTRACT_TYPES, CONTRACT_ACCEPT),
)
COMMANDS: Final[tuple[Command | Group, ...]] = (
    SANDBOX, CHECK, TRY, SEND, DELIVERIES, OUTCOMES, FIND, REDELIVER, SETTLE, CONSENT, SUPPRESS, FORGET, CONTRACT,
    LEDGER,
)  # fmt: skip
