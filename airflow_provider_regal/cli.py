"""The command line: ``python -m airflow_provider_regal`` everywhere, ``airflow regal`` on Airflow 3.

Every ``airflow`` call imports this module, so it imports nothing but the standard library and a file of settings;
a command's own module is imported when the command runs. Both front ends are built from ``COMMANDS``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from airflow_provider_regal.sandbox.settings import (
    DEFAULT_API_KEY,
    DEFAULT_HOST,
    DEFAULT_PORT,
    DOCUMENTED_RATE_LIMIT,
    IDENTIFIERS,
)

_PROGRAM = "python -m airflow_provider_regal"


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")


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
COMMANDS = (SANDBOX,)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m airflow_provider_regal``."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Send contacts, events and opt-ins to Regal.io - tools beside the Airflow provider.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in command.arguments:
            sub.add_argument(*argument.flags, **argument.options)
        sub.set_defaults(command=command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; from the command line if ``None``.
    :return: the exit code.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = build_parser().parse_args(given or ["--help"])
    command: Command = args.command
    return command(args)


def _for_airflow(command: Command) -> Callable[[argparse.Namespace], None]:
    def run(args: argparse.Namespace) -> None:
        # Airflow ignores what a command returns.
        code = command(args)
        if code:
            sys.exit(code)

    return run


def get_cli_commands() -> list[Any]:
    """Build the commands of ``airflow regal``, for the ``cli`` key of the provider's metadata (Airflow 3)."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    make_argument: Callable[..., Any] = Arg
    return [
        GroupCommand(
            name="regal",
            help="Tools of the Regal.io provider",
            subcommands=[
                ActionCommand(
                    name=command.name,
                    help=command.help,
                    description=command.description,
                    epilog=command.example,
                    func=_for_airflow(command),
                    args=[make_argument(argument.flags, **argument.options) for argument in command.arguments],
                )
                for command in COMMANDS
            ],
        )
    ]
