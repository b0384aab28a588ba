"""The ledger's database: how it is opened, locked, tried again, and how its errors are told."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError, StatementError
from sqlalchemy.pool import QueuePool

from airflow_provider_regal.journal.ledger_error import LedgerError

T = TypeVar("T")
_BUSY_TIMEOUT_MS: Final = 30_000
_TRIES: Final = 20
_PATIENCE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 0.2
_READS: Final = "regal_ledger_reads"
# Deadlock, serialization failure, lock not available - of PostgreSQL and of the standard; then MySQL's numbers.
_PASSING_STATES: Final = frozenset({"40001", "40P01", "55P03"})
_PASSING_NUMBERS: Final = frozenset({1205, 1213})
_PASSING_WORDS: Final = ("is locked", "deadlock", "could not serialize")


def sqlite_engine(path: Path) -> Engine:
    """Open a ledger in a file of its own, readable by its owner only.

    :param path: made when missing. It must lie on a local disk: SQLite's locks do not hold on network file systems.
    :raises LedgerError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise LedgerError(f"The ledger's file {path} cannot be made: {error.strerror}.") from error
    return prepare_engine(
        create_engine(
            f"sqlite:///{path}",
            hide_parameters=True,
            poolclass=QueuePool,  # SQLAlchemy 1.4 would open the file anew for each transaction
            connect_args={"check_same_thread": False},
        )
    )


def prepare_engine(engine: Engine) -> Engine:
    """Make an engine fit for a ledger; gives the same engine back, and may be called again."""
    if engine.dialect.name == "sqlite" and not event.contains(engine, "begin", _begin_sqlite):
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    raw: Any = connection.connection.dbapi_connection
    if raw.isolation_level is not None:  # not seen before
        raw.isolation_level = None  # Python's sqlite3 would take the write lock only after having read
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
        connection.exec_driver_sql("PRAGMA synchronous = FULL")  # what is committed survives the machine
    # Whoever will write takes the lock at once, so that nobody decides on what another is about to change.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: Engine, *, reads: bool = False) -> Iterator[Connection]:
    """Commit all that is done in it, or nothing.

    :param reads: nothing will be written.
    """
    with engine.connect() as opened:
        connection = opened.execution_options(**{_READS: True}) if reads else opened
        with connection.begin():
            yield connection


def reading(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Do what only reads, again if the database asks for it.

    :raises LedgerError: it cannot.
    """
    return _retried(engine, work, reads=True, worth=is_passing)


def writing(engine: Engine, work: Callable[[Connection], T], *, tries: int = _TRIES) -> T:
    """Do work in one transaction, again from its start if others were in its way.

    :raises LedgerError: nothing of it was recorded.
    """
    return _retried(engine, work, worth=is_passing, tries=tries)


def making(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Make tables; whatever the database says when two do it at once, the second try finds them.

    :raises LedgerError: it cannot.
    """
    return _retried(engine, work, worth=lambda error: isinstance(error, DBAPIError), tries=5)


def _retried(
    engine: Engine,
    work: Callable[[Connection], T],
    *,
    worth: Callable[[SQLAlchemyError], bool],
    reads: bool = False,
    tries: int = _TRIES,
) -> T:
    ends = time.monotonic() + _PATIENCE_S
    for left in reversed(range(tries)):
        try:
            with transaction(engine, reads=reads) as connection:
                return work(connection)
        except SQLAlchemyError as error:
            if not left or time.monotonic() > ends or not worth(error):
                raise told(error) from without_values(error)
        time.sleep(random.uniform(0, _LONGEST_PAUSE_S))  # noqa: S311 - only so that two do not meet again
    raise AssertionError("the last try returns or raises")


def is_passing(error: SQLAlchemyError) -> bool:
    """Say whether the same transaction may succeed when it is begun again."""
    if not isinstance(error, DBAPIError):
        return False
    # Somebody else added the same row since we looked; or the connection of the pool had been dead for long.
    if isinstance(error, IntegrityError) or error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    number = next(iter(getattr(error.orig, "args", ())), None)
    text = str(error.orig).lower()
    return state in _PASSING_STATES or number in _PASSING_NUMBERS or any(word in text for word in _PASSING_WORDS)


def told(error: SQLAlchemyError) -> LedgerError:
    """Say what happened and what to do, without values."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    kind = type(original or error).__name__ + (f" {state}" if state else "")
    if is_passing(error):
        advice = "It was locked or unreachable for too long: see what else writes to it, then run the task again."
    else:
        advice = "See that its database is up and that its user may create and change tables, then run the task again."
    return LedgerError(f"The ledger could not be used ({kind}); nothing of this step was recorded. {advice}")


def without_values(error: SQLAlchemyError) -> SQLAlchemyError:
    """Take out of an error, and of the driver's below it, what a log must not hold."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StatementError):
            seen.hide_parameters = True
        # Only these tell of the database and never of a row; the others may quote a key.
        if not isinstance(error, (OperationalError, InterfaceError)):
            seen.args = (f"{type(seen).__name__} (its text is left out: it may hold personal data)",)
        seen = seen.__cause__ or seen.__context__
    return error
