"""The command line: ``python -m airflow_provider_regal`` everywhere, ``airflow regal`` from Airflow 3.2.

Every ``airflow`` call imports this module, so it imports nothing but the standard library and a file of settings;
a command's own module is imported when the command runs. Both front ends are built from ``commands.COMMANDS``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_regal.commands import COMMANDS, Command

_PROGRAM = "python -m airflow_provider_regal"


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
    """Build the commands of ``airflow regal``, for the ``cli`` key of the provider's metadata (from Airflow 3.2)."""
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
