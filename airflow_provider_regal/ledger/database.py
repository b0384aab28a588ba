"""The ledger's database: opening, locking, retries, its clock, and its errors.

Every lock and statement has a time limit, so no transaction waits forever for another one.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError, StatementError
from sqlalchemy.pool import QueuePool

from airflow_provider_regal.errors import LedgerError, WrongLedgerError
from airflow_provider_regal.ledger.schema import MIGRATIONS, upgrade, version_of

_log = logging.getLogger(__name__)
T = TypeVar("T")
LOCK_TIMEOUT_S: Final = 10
STATEMENT_TIMEOUT_S: Final = 60
#: After this, a process that is frozen in a transaction loses its locks. Our own transactions never pause: they take
#: milliseconds, or wait in a statement.
IDLE_TIMEOUT_S: Final = 10
_PATIENCE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 0.2
_GONE_PAUSE_S: Final = 1.0
_SAID_AFTER_S: Final = 5.0
_TRIES_TO_UPGRADE: Final = 5
_READS: Final = "regal_ledger_reads"
# Deadlock, serialization failure, lock not available: of PostgreSQL and of the standard, then MySQL's numbers.
_PASSING_STATES: Final = frozenset({"40001", "40P01", "55P03"})
_PASSING_NUMBERS: Final = frozenset({1205, 1213})
_PASSING_WORDS: Final = ("is locked", "deadlock", "could not serialize")
_ON_CONNECT: Final = {
    "postgresql": (
        f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'",
        f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'",
        f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'",
        "SET jit = off",  # our long conditions take seconds to compile, and milliseconds to run
    ),
    "mysql": (
        # Only MariaDB reads what is in /*M! */; it also works with mysql URLs. MySQL has no such limits.
        f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}"
        f" /*M!100101 , SESSION max_statement_time = {STATEMENT_TIMEOUT_S} */"
        f" /*M!100302 , SESSION idle_transaction_timeout = {IDLE_TIMEOUT_S} */",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ),
}
_ON_CONNECT["mariadb"] = _ON_CONNECT["mysql"]
_NOW: Final = {
    "postgresql": """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    "mysql": "DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')",
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')",
}
_NOW["mariadb"] = _NOW["mysql"]
DIALECTS: Final = frozenset(_NOW)


def sqlite_engine(path: Path) -> Engine:
    """Open a ledger in its own file, readable only by its owner.

    :param path: created if missing. It must be on a local disk: SQLite's locks don't work on network file systems.
    :raises LedgerError: the file can't be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            # Only for a new file: closing a file that SQLite has open elsewhere in this process would drop its locks.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise LedgerError(f"The ledger's file {path} cannot be opened for writing: {error.strerror}.") from error
    return create_engine(
        f"sqlite:///{path}",
        hide_parameters=True,
        poolclass=QueuePool,  # SQLAlchemy 1.4 would reopen the file for each transaction
        connect_args={"check_same_thread": False},
    )


class Database:
    """One SQL database, with retried transactions, and its clock.

    :param engine: of SQLite, PostgreSQL or MySQL/MariaDB.
    :param name: its name in messages.
    :param migrate: create and migrate the tables.
    :param patience_s: seconds for which a transaction is retried; 30 by default.
    :raises LedgerError: it can't be used.
    :raises WrongLedgerError: it is of an unsupported kind, or a newer version of this package created its tables.
    """

    def __init__(
        self, engine: Engine, *, name: str = "the ledger", migrate: bool = True, patience_s: float | None = None
    ) -> None:
        self.name = name
        self.dialect = engine.dialect.name
        self._engine = engine
        if self.dialect not in DIALECTS:
            raise WrongLedgerError(
                f"The ledger cannot live in {self.dialect}. Name a connection of PostgreSQL or MySQL/MariaDB in "
                "ledger_conn_id."
            )
        driver: Any = engine.dialect.dbapi
        self._driver_error: type[Exception] = driver.Error
        _prepare(engine)
        self._ahead = timedelta()
        self.patience_s = _PATIENCE_S if patience_s is None else patience_s
        if migrate and self.read(version_of) != len(MIGRATIONS):
            self.upgrade()
        self.read(self._set_clock)

    @property
    def file(self) -> str | None:
        """The file of an SQLite ledger; None for any other."""
        return self._engine.url.database or None if self.dialect == "sqlite" else None

    @property
    def now_sql(self) -> str:
        """The SQL expression for the database's clock, as text in the ledger's form."""
        return _NOW[self.dialect]

    def now(self) -> datetime:
        """Return the database's time, using the clock difference measured when the ledger was opened."""
        return datetime.now(UTC) + self._ahead

    def _set_clock(self, connection: Connection) -> None:
        if self.dialect == "sqlite":
            return
        before = datetime.now(UTC)
        there = datetime.fromisoformat(
            connection.exec_driver_sql(f"SELECT {self.now_sql.replace('%', '%%')}").scalar_one()
        )
        self._ahead = there - before - (datetime.now(UTC) - before) / 2

    def upgrade(self) -> int:
        """Create or migrate the tables. If two processes do it at once and one fails, its second attempt finds them.

        :returns: how many migrations were applied.
        """
        failures = 0

        def worth(error: SQLAlchemyError) -> bool:
            nonlocal failures
            failures += not is_worth_retrying(error)  # locks are waited for as usual
            return isinstance(error, DBAPIError) and failures < _TRIES_TO_UPGRADE

        return self._retried(upgrade, worth=worth)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run work that only reads; retry it if the database requires that.

        :raises LedgerError: it failed.
        """
        return self._retried(work, reads=True, worth=is_worth_retrying)

    def write(self, work: Callable[[Connection], T], *, once: bool = False) -> T:
        """Run work in one transaction; retry it from the start if it conflicts with others.

        :param once: it can't be retried, because its input is used up.
        :raises LedgerError: nothing of it was recorded.
        """
        return self._retried(work, worth=is_worth_retrying, tries=1 if once else None)

    def checkpoint(self) -> bool:
        """Write the WAL of an SQLite ledger to its file and empty it, so that erased data is in neither.

        :returns: False if another process is using the WAL; SQLite then does it later.
        """
        if self.dialect != "sqlite":
            return True
        with closing(self._engine.raw_connection()) as raw:
            cursor = raw.cursor()
            busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _as_ours(self, error: Exception) -> SQLAlchemyError:
        """Convert an error of a call that bypassed SQLAlchemy to SQLAlchemy's type."""
        if isinstance(error, SQLAlchemyError):
            return error
        dialect = self._engine.dialect
        return DBAPIError.instance("", (), error, self._driver_error, hide_parameters=True, dialect=dialect)

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[Connection]:
        with self._engine.connect() as opened:
            connection = opened.execution_options(**{_READS: True}) if reads else opened
            with connection.begin():
                yield connection

    def _retried(
        self,
        work: Callable[[Connection], T],
        *,
        worth: Callable[[SQLAlchemyError], bool],
        reads: bool = False,
        tries: int | None = None,
    ) -> T:
        began = time.monotonic()
        said, count = False, 0
        while True:
            try:
                with self._transaction(reads=reads) as connection:
                    return work(connection)
            except (SQLAlchemyError, self._driver_error) as caught:
                error = self._as_ours(caught)
                count += 1
                waited_s = time.monotonic() - began
                if count == tries or waited_s > self.patience_s or not worth(error):
                    raise described(error, self.name) from without_values(error)
                if waited_s > _SAID_AFTER_S and not said:
                    said = True
                    why = "another transaction holds a lock" if is_passing(error) else "it cannot be reached"
                    _log.warning("Waiting for %s for %.0f s: %s", self.name, waited_s, why)
                longest_s = _LONGEST_PAUSE_S if is_passing(error) else _GONE_PAUSE_S
            time.sleep(random.uniform(0, longest_s))  # noqa: S311 - only so that two do not meet again


def _prepare(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        if not event.contains(engine, "begin", _begin_sqlite):
            event.listen(engine, "begin", _begin_sqlite)
    elif not event.contains(engine, "connect", _LISTENERS[engine.dialect.name]):
        event.listen(engine, "connect", _LISTENERS[engine.dialect.name])


def _setting(dialect: str) -> Callable[[Any, Any], None]:
    def configure(raw: Any, record: Any) -> None:
        cursor = raw.cursor()
        for statement in _ON_CONNECT[dialect]:
            cursor.execute(statement)
        cursor.close()
        raw.commit()

    return configure


_LISTENERS: Final = {dialect: _setting(dialect) for dialect in _ON_CONNECT}


def _begin_sqlite(connection: Connection) -> None:
    raw: Any = connection.connection.dbapi_connection
    if raw.isolation_level is not None:  # a new connection
        raw.isolation_level = None  # Python's sqlite3 would take the write lock only after reading
        raw.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_S * 1_000}")
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raw.execute("PRAGMA journal_mode = WAL")  # readers and the writer don't wait for each other
        raw.execute("PRAGMA synchronous = FULL")  # a commit survives a crash of the machine
        raw.execute("PRAGMA secure_delete = ON")  # erased data is overwritten
        raw.execute("PRAGMA cache_size = -16000")
    # Writers take the lock at once, so that no writer decides based on what another is about to change.
    raw.execute("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")


def let_pause(connection: Connection) -> None:
    """Allow pauses between the statements of this transaction: a copy waits for the other ledger."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    elif getattr(connection.dialect, "is_mariadb", False):
        connection.exec_driver_sql("SET SESSION idle_transaction_timeout = 0")


def is_passing(error: SQLAlchemyError) -> bool:
    """Return whether the same transaction may succeed if it is started again."""
    if not isinstance(error, DBAPIError):
        return False
    # Another process added the same row since we looked, or the pooled connection was dead.
    if isinstance(error, IntegrityError) or error.connection_invalidated:
        return True
    state, number, text = _codes(error)
    return state in _PASSING_STATES or number in _PASSING_NUMBERS or any(word in text for word in _PASSING_WORDS)


def is_worth_retrying(error: SQLAlchemyError) -> bool:
    """Return whether the database may accept the transaction later: it was locked, or could not be reached."""
    if is_passing(error):
        return True
    state = _codes(error)[0]
    gone = isinstance(error, (OperationalError, InterfaceError)) and not _is_sqlite(error)
    return gone and (state is None or state.startswith(("08", "57P")))


def _is_sqlite(error: SQLAlchemyError) -> bool:
    return type(getattr(error, "orig", None)).__module__.startswith("sqlite3")


def _codes(error: SQLAlchemyError) -> tuple[str | None, object, str]:
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return state, next(iter(getattr(original, "args", ())), None), str(original).lower()


def described(error: SQLAlchemyError, name: str) -> LedgerError:
    """Return what happened and what to do, without values."""
    original = getattr(error, "orig", None)
    state, _, text = _codes(error)
    kind = type(original or error).__name__ + (f" {state}" if state else "")
    if is_passing(error):
        advice = "It was locked or unreachable for too long: check what else writes to it."
    elif "disk is full" in text or "disk full" in text or state == "53100":
        advice = "Its disk is full: free some space."
    elif "readonly" in text or "read-only" in text or state == "25006":
        advice = "It is read-only: the worker's user must be able to write the file and its folder."
    elif "too many" in text or state == "53300":
        advice = "It takes no more connections: raise its limit, or let fewer tasks run at once."
    else:
        advice = "Check that the database is up and that its user may create and change tables."
    return LedgerError(
        f"{name[:1].upper()}{name[1:]} could not be used ({kind}); nothing of this step was recorded. {advice}"
    )


def without_values(error: SQLAlchemyError) -> SQLAlchemyError:
    """Remove what a log must not contain from an error and from the driver's error below it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StatementError):
            seen.hide_parameters = True
        # Only these are about the database and never about a row; the others may quote a key.
        if not isinstance(error, (OperationalError, InterfaceError)):
            seen.args = (f"{type(seen).__name__} (its text is left out: it may hold personal data)",)
        seen = seen.__cause__ or seen.__context__
    return error
