"""Open the ledger and read connections for commands, and print errors if that fails."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from typing import TYPE_CHECKING

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks._ledger import (
    configured,
    identifiers,
    is_missing,
    local_file,
    missing_connection,
    open_database,
)

if TYPE_CHECKING:
    from airflow_provider_regal.ledger.database import Database

__all__ = [
    "CommandError",
    "command",
    "configured",
    "identifiers",
    "is_missing",
    "log_on_stderr",
    "missing_connection",
    "opened",
]
Run = Callable[[argparse.Namespace], int]


class CommandError(Exception):
    """A command can't do what was requested; the message is for the user."""


def command(run: Run) -> Run:
    """Print errors as one line and return 1; keep log lines out of the command's output."""

    @wraps(run)
    def guarded(args: argparse.Namespace) -> int:
        try:
            with log_on_stderr():
                return run(args)
        except (RegalError, CommandError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
        except AirflowException as error:
            print(f"error: {missing_connection(error)}", file=sys.stderr)
        return 1

    return guarded


@contextmanager
def log_on_stderr(level: int = logging.WARNING) -> Iterator[None]:
    """Send log lines of this level and above to standard error."""
    root = logging.getLogger()
    moved = [
        handler
        for handler in root.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout
    ]
    ours = logging.StreamHandler(sys.stderr)
    ours.addFilter(
        lambda record: record.levelno >= logging.WARNING or record.name.startswith(__package__.split(".")[0])
    )
    for handler in moved:
        root.removeHandler(handler)  # Airflow 2's own handler can't write to another stream
    if moved:
        root.addHandler(ours)
    before = logging.root.manager.disable
    logging.disable(level - 1)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(ours)
        for handler in moved:
            root.addHandler(handler)


@contextmanager
def opened(conn_id: str | None, *, migrate: bool = True) -> Iterator[Database]:
    """Open the ledger; if it is only read, it is not created.

    :raises CommandError: it does not exist yet.
    """
    if is_missing(conn_id):
        raise CommandError(
            f"There is no ledger yet in {local_file()}: no delivery has run with this AIRFLOW_HOME. If tasks use "
            "another one, set AIRFLOW_HOME, or name the ledger's connection with --ledger-conn-id."
        )
    with closing(open_database(conn_id, migrate=migrate)) as database:
        yield database
