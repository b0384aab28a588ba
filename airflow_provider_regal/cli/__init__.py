"""The command line: ``python -m airflow_provider_regal`` everywhere, ``airflow regal`` on Airflow 3.2 and later.

Every ``airflow`` call imports this package, so it imports only the standard library and one settings file; the module
of a command is imported when the command runs. Both front ends are built from ``commands.COMMANDS``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_regal.cli.commands import COMMANDS, Command, Group

_PROGRAM = "python -m airflow_provider_regal"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m airflow_provider_regal``."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Tools of the Regal.io provider: look at deliveries, send dead letters again, check the setup.",
        epilog=f"Help on a command: {_PROGRAM} COMMAND --help",
    )
    _add(parser.add_subparsers(title="commands", metavar="COMMAND", required=True), COMMANDS)
    return parser


def _add(parsers: Any, commands: Sequence[Command | Group]) -> None:
    for command in commands:
        sub = parsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if isinstance(command, Group):
            _add(sub.add_subparsers(title="commands", metavar="COMMAND", required=True), command.commands)
            continue
        for argument in command.arguments:
            sub.add_argument(*argument.flags, **argument.options)
        sub.set_defaults(command=command, usage_error=sub.error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; from the command line if ``None``.
    :return: the exit code: 0 success, 1 a problem, 2 wrong usage.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = build_parser().parse_args(given or ["--help"])
    command: Command = args.command
    if (fault := command.fault(args)) is not None:
        args.usage_error(fault)
    return command(args)


def _for_airflow(command: Command) -> Callable[[argparse.Namespace], None]:
    def run(args: argparse.Namespace) -> None:
        if (fault := command.fault(args)) is not None:
            print(f"airflow regal {command.name}: error: {fault}", file=sys.stderr)
            sys.exit(2)
        # Airflow ignores the return value of a command.
        code = command(args)
        if code:
            sys.exit(code)

    return run


def get_cli_commands() -> list[Any]:
    """Build the commands of ``airflow regal``, for the key ``cli`` of the provider's metadata (Airflow 3.2+)."""
    from airflow.cli.cli_config import GroupCommand

    return [
        GroupCommand(name="regal", help="Tools of the Regal.io provider", subcommands=[*map(_airflows, COMMANDS)]),
    ]


def _airflows(command: Command | Group) -> Any:
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    if isinstance(command, Group):
        return GroupCommand(
            name=command.name,
            help=command.help,
            description=command.description,
            epilog=command.example,
            subcommands=[*map(_airflows, command.commands)],
        )
    make_argument: Callable[..., Any] = Arg
    return ActionCommand(
        name=command.name,
        help=command.help,
        description=command.description,
        epilog=command.example,
        func=_for_airflow(command),
        args=[make_argument(argument.flags, **argument.options) for argument in command.arguments],
    )
