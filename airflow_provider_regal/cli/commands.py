"""The commands, described once for both front ends: ``python -m airflow_provider_regal`` and ``airflow regal``.

Only descriptions: each names the function that runs it, whose module is imported when the command runs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final, NamedTuple

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
_AGO: Final = re.compile(r"(\d{1,6})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

# -- what an argument may be ------------------------------------------------------------------------------------------


class When(NamedTuple):
    """A time, and how it was written."""

    text: str
    moment: datetime

    @classmethod
    def read(cls, text: str) -> When:
        """Read ``2d``, ``12h``, or a date or time of ISO 8601; UTC unless it says otherwise."""
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


# -- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Argument:
    """One option, in the words ``argparse`` and Airflow's ``Arg`` share."""

    flags: tuple[str, ...]
    options: dict[str, Any]


def _no_fault(args: argparse.Namespace) -> str | None:
    return None


@dataclass(frozen=True)
class Command:
    """One command.

    :param run: where its function is, as ``module:function``; it takes the parsed arguments and returns the exit code.
    :param fault: returns what is wrong with the arguments together; None if nothing is.
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
        except BrokenPipeError:  # such as of `| head`
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
    """Let Airflow 3 find connections made in its UI: outside of a task it looks into the environment alone."""
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
_DAG = _argument("--dag", metavar="ID", help="only deliveries of this DAG")
_TASK = _argument("--task", metavar="ID", help="only deliveries of this task")
_RUN = _argument("--run", metavar="ID", help="only deliveries of this DAG run")

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
            choices=("reading", "sending", "finished", "failed", "stopped", "replaced"),
            help="only deliveries in this state; may be repeated",
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
OUTCOMES = Command(
    name="outcomes",
    help="list the rows of a delivery that were not delivered, and why",
    description=(
        "List the rows of a delivery with what became of each: which row of the source (file and line where\n"
        "there is a file), why, and who it is about. Without --status: rejected and unknown rows. Skipped rows\n"
        "are only counted. This prints personal data."
    ),
    example=(
        "examples:\n"
        "  %(prog)s 17\n"
        "  %(prog)s 17 --status rejected --reason 'HTTP 400'\n"
        "  %(prog)s 17 --status acknowledged --format csv > delivered.csv"
    ),
    arguments=(
        _argument("delivery", type=_delivery, metavar="DELIVERY", help="id of the delivery"),
        _argument(
            "--status",
            action="append",
            choices=("acknowledged", "rejected", "unknown"),
            help="which rows; may be repeated (default: rejected and unknown)",
        ),
        _argument("--reason", metavar="TEXT", help="only rows with this reason, or whose message begins with it"),
        _argument("--format", choices=("table", "csv", "jsonl"), default="table", help="default: table"),
        _LEDGER,
    ),
    run="airflow_provider_regal.cli.history:run_outcomes",
)
FIND = Command(
    name="find",
    help="show all that is on record of one person",
    description=(
        "Show what is on record of one person, by phone, email or user id: every row that was sent, rejected\n"
        "or is unknown, every decision on consent, consent as it is now, and rows that are still to be sent.\n"
        "Give several identifiers of the same person to see them together. This prints personal data.\n"
        "\n"
        "Rows that are still to be sent, and rows that could not be mapped, are as their source wrote them.\n"
        "They are read one by one, up to --scan-rows; a user id that is only digits is looked for in columns\n"
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
    run="airflow_provider_regal.cli.person:run_find",
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
    help="remove what is older than it is kept",
    description=(
        "Remove payloads of dead letters, and rows of deliveries that never finished, after --dead-letter-days;\n"
        "deliveries with the outcomes of their rows after --history-days; and, if that is set, lines of the consent\n"
        "log after --consent-days, but for what proves an opt-in that Regal still has. Consents, contacts and message\n"
        "ids stay. Works in small transactions while deliveries run."
    ),
    example="examples:\n  %(prog)s\n  %(prog)s --history-days 30 --dead-letter-days 14",
    arguments=(
        _argument("--history-days", type=_days, metavar="D", help="default: the configured history_days (90)"),
        _argument("--dead-letter-days", type=_days, metavar="D", help="default: the configured dead_letter_days (30)"),
        _argument(
            "--consent-days", type=_days, metavar="D", help="default: the configured consent_days (kept for ever)"
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
    help="look after the ledger's database",
    description="Look after the ledger's database.",
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
        "and since when, with which evidence, and what was withheld and why. --export writes the evidence to a file,\n"
        "of that person, or of all decisions of a period. --delivery lists the decisions that a delivery withheld.\n"
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
    run="airflow_provider_regal.cli.consent:run_consent",
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
    run="airflow_provider_regal.cli.suppress:run_list",
)
SUPPRESS_ADD = Command(
    name="add",
    help="suppress people",
    description=(
        "Suppress people: from then on rows about them are skipped on every path, and only their opt-outs are sent.\n"
        "A text is read as a phone, else as an email, else as a user id. What can't be read is listed, all else is\n"
        "added."
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
    run="airflow_provider_regal.cli.suppress:run_add",
    fault=_names_nobody,
)
SUPPRESS_REMOVE = Command(
    name="remove",
    help="let people be contacted again",
    description=(
        "Take people off the list. Of people who were forgotten, the times of their opt-outs are on record again:\n"
        "they bar older opt-ins, and the next delivery of contacts sends them. Exits with 1 if none was suppressed."
    ),
    example="examples:\n  %(prog)s anne@example.com\n  %(prog)s --file contact_again.csv",
    arguments=(_PEOPLE, _FILE, *_SQL, _ONE_ACCOUNT, _JSON, _LEDGER),
    run="airflow_provider_regal.cli.suppress:run_remove",
    fault=_names_nobody,
)
SUPPRESS = Group(
    name="suppress",
    help="look after the list of people who must not be contacted",
    description="Look after the list of people who must not be contacted.",
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
    run="airflow_provider_regal.cli.forget:run_forget",
)
COMMANDS: Final[tuple[Command | Group, ...]] = (
    SANDBOX, CHECK, DELIVERIES, OUTCOMES, FIND, REDELIVER, CONSENT, SUPPRESS, FORGET, LEDGER,
)  # fmt: skip
