"""The commands, described once for both front ends: ``python -m airflow_provider_regal`` and ``airflow regal``.

Only descriptions: each names the function that runs it, whose module is imported when the command runs.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from airflow_provider_regal.sandbox.settings import (
    DEFAULT_API_KEY,
    DEFAULT_HOST,
    DEFAULT_PORT,
    DOCUMENTED_RATE_LIMIT,
    IDENTIFIERS,
)

_MOST_DAYS: Final = 36_500


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")


def _days(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (days := float(text)) <= _MOST_DAYS:
            return days
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of days (0 to {_MOST_DAYS:,})")


@dataclass(frozen=True)
class Argument:
    """One option, in the words ``argparse`` and Airflow's ``Arg`` share."""

    flags: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """One command.

    :param run: where its function is, as ``module:function``; it takes the parsed arguments and returns the exit code.
    """

    name: str
    help: str
    description: str
    example: str
    arguments: tuple[Argument, ...]
    run: str

    def __call__(self, args: argparse.Namespace) -> int:
        """Import the function and call it."""
        module, _, function = self.run.partition(":")
        return int(getattr(import_module(module), function)(args))


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
        Argument(("--host",), {"default": DEFAULT_HOST, "help": f"address to listen on (default: {DEFAULT_HOST})"}),
        Argument(
            ("--port",),
            {
                "default": DEFAULT_PORT,
                "type": _port,
                "help": f"port, 0 for any free one (default: {DEFAULT_PORT})",
            },
        ),
        Argument(
            ("--api-key",),
            {
                "default": DEFAULT_API_KEY,
                "metavar": "KEY",
                "help": f"the key to expect (default: {DEFAULT_API_KEY})",
            },
        ),
        Argument(
            ("--rate-limit",),
            {
                "default": DOCUMENTED_RATE_LIMIT,
                "type": int,
                "metavar": "N",
                "help": f"requests let through in any second, 0 for no limit (default: {DOCUMENTED_RATE_LIMIT})",
            },
        ),
        Argument(
            ("--retry-after",),
            {
                "type": int,
                "metavar": "S",
                "help": "announce this many seconds when over the limit (default: no header)",
            },
        ),
        Argument(
            ("--latency-ms",),
            {
                "default": 0.0,
                "type": float,
                "metavar": "MS",
                "help": "how long each answer takes (default: 0)",
            },
        ),
        Argument(
            ("--wrong-key-status",),
            {
                "default": 401,
                "type": int,
                "choices": (401, 403),
                "help": "what a wrong key gets (default: 401)",
            },
        ),
        Argument(
            ("--lookup-order",),
            {
                "default": ",".join(IDENTIFIERS),
                "metavar": "ORDER",
                "help": f"which identifier finds a profile first (default: {','.join(IDENTIFIERS)})",
            },
        ),
        Argument(("--faults",), {"metavar": "FILE", "help": "JSON file with scripted faults"}),
    ),
    run="airflow_provider_regal.sandbox.server:run_sandbox",
)
_CONN_ID = Argument(
    ("--conn-id",),
    {"default": "regal_default", "metavar": "ID", "help": "connection of type regal (default: regal_default)"},
)
_LEDGER = Argument(
    ("--ledger-conn-id",), {"metavar": "ID", "help": "connection of the ledger's database, if deliveries have one"}
)
CHECK = Command(
    name="check",
    help="check that everything a delivery needs is there",
    description=(
        "Check the connection, that Regal can be reached, the storage of run folders, the ledger, the clock\n"
        "and the versions. Sends no event. Ends with 1 if anything would keep a delivery from working."
    ),
    example="example:\n  %(prog)s --conn-id regal_default --ledger-conn-id warehouse",
    arguments=(_CONN_ID, _LEDGER),
    run="airflow_provider_regal.tools.check:run_check",
)
REDELIVER = Command(
    name="redeliver",
    help="send dead letters again",
    description=(
        "Send the dead letters of run folders again. Every rule applies to them as at first; each is taken by\n"
        "one redelivery only. What is rejected anew is a dead letter of this redelivery. If it was stopped or\n"
        "killed, the same command goes on where it stopped."
    ),
    example=(
        "example:\n"
        "  %(prog)s 'contacts_and_events/*/events'\n"
        "  %(prog)s --status unknown --dry-run /var/lib/regal/my_dag/scheduled__2026-03-02T00:00:00+00:00/events"
    ),
    arguments=(
        Argument(
            ("path",),
            {"nargs": "+", "help": "run folder, or a glob; relative ones lie below storage_path; also s3://..."},
        ),
        Argument(
            ("--status",),
            {
                "action": "append",
                "choices": ("rejected", "unknown"),
                "help": "which letters (default: rejected); unknown accepts that people are reached twice",
            },
        ),
        _CONN_ID,
        _LEDGER,
        Argument(("--event",), {"metavar": "NAME", "help": "name of track events whose rows do not hold it"}),
        Argument(("--rate",), {"type": int, "metavar": "N", "help": "requests a second (default: the connection's)"}),
        Argument(
            ("--max-event-age-days",),
            {"type": _days, "default": 7.0, "metavar": "D", "help": "reject older named events; 0 for no limit"},
        ),
        Argument(("--dry-run",), {"action": "store_true", "help": "check and count, send nothing"}),
    ),
    run="airflow_provider_regal.tools.redeliver:run_redeliver",
)
COMMANDS = (SANDBOX, CHECK, REDELIVER)
