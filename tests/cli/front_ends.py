"""Run commands in the same way as users."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from airflow_provider_regal.cli import get_cli_commands

ROOT = Path(__file__).parents[2]


def airflow_parser() -> argparse.ArgumentParser:
    """Build the commands into a parser in the same way as ``airflow``."""
    parser = argparse.ArgumentParser(prog="airflow")
    _add(parser, get_cli_commands())
    return parser


def _add(parser, commands):
    parsers = parser.add_subparsers(dest="subcommand")
    for command in commands:
        sub = parsers.add_parser(
            command.name, help=command.help, description=command.description, epilog=command.epilog
        )
        if hasattr(command, "subcommands"):
            _add(sub, command.subcommands)
            continue
        for argument in command.args:
            argument.add_to_parser(sub)
        sub.set_defaults(func=command.func)


def program(*arguments, **environment) -> subprocess.Popen:
    """Start ``python -m airflow_provider_regal`` in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_regal", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def run_airflow(*arguments) -> subprocess.CompletedProcess:
    """Run ``airflow`` in a separate process."""
    return subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
        check=False,
    )
