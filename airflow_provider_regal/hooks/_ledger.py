"""Locate the ledger and open it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal._compat import AirflowException, BaseHook, conf
from airflow_provider_regal.errors import FixConnectionError, WrongLedgerError

if TYPE_CHECKING:
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.ledger.account import Account
    from airflow_provider_regal.ledger.admin.retention import KeptFor
    from airflow_provider_regal.ledger.database import Database
    from airflow_provider_regal.ledger.people.identifiers import Identifiers

MOST_DAYS: Final = 36_500
_log = logging.getLogger(__name__)
# Executors whose tasks run on the scheduler's machine.
_LOCAL: Final = ("LocalExecutor", "SequentialExecutor", "DebugExecutor")
# A delivery reads on one connection while it commits on another: 200 tasks must not exhaust a server's connections.
ENGINE: Final = {"hide_parameters": True, "pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}


def local_file() -> Path:
    """Return the file of the default ledger: ``regal/ledger.db`` in Airflow's home."""
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "regal" / "ledger.db"


def configured(conn_id: str | None) -> str | None:
    """Return the connection id of the ledger; None for the SQLite file in Airflow's home."""
    return conn_id or conf.get("regal", "ledger_conn_id", fallback="") or None


def is_missing(conn_id: str | None) -> bool:
    """Return whether the ledger is a file that does not exist."""
    return configured(conn_id) is None and not local_file().exists()


def identifiers() -> Identifiers:
    """Return how the ledger stores identifiers, according to ``[regal] ledger_key``."""
    from airflow_provider_regal.ledger.people.identifiers import Identifiers

    key = conf.get("regal", "ledger_key", fallback="")
    return Identifiers(key.encode() if key else None)


def missing_connection(error: AirflowException) -> str:
    """Return the message for a connection that can't be found here, with the next step."""
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    return (
        f"{str(error).rstrip('.')}: not as AIRFLOW_CONN_..., not in a secrets backend, and not in Airflow's database "
        f"as this shell reaches it (AIRFLOW_HOME={home}). Run this where the scheduler runs, or set the variable."
    )


def open_database(conn_id: str | None = None, *, migrate: bool = True, patience_s: float | None = None) -> Database:
    """Open the ledger's database.

    :param conn_id: a connection of PostgreSQL or MySQL/MariaDB; None for that of ``[regal] ledger_conn_id`` or, if it
        is not set, the SQLite file in Airflow's home.
    :raises FixConnectionError: the connection can't be used; or tasks run on other machines, which would not see the
        file.
    :raises LedgerError: the database can't be used.
    """
    # Loaded only if there is a ledger, because it imports SQLAlchemy.
    from airflow_provider_regal.ledger.database import Database, sqlite_engine

    conn_id = configured(conn_id)
    if conn_id is not None:
        name = f"the ledger (connection {conn_id!r})"
        return Database(_engine_of(conn_id), name=name, migrate=migrate, patience_s=patience_s)
    check_executor()
    file = local_file()
    return Database(sqlite_engine(file), name=f"the ledger ({file})", migrate=migrate, patience_s=patience_s)


def check_executor() -> None:
    """Reject the default ledger if tasks may run on another machine.

    :raises WrongLedgerError: with the next step.
    """
    if (executor := remote_executor()) is None or conf.getboolean("regal", "allow_local_ledger", fallback=False):
        return
    raise WrongLedgerError(
        f"{executor} may run tasks on other machines, which would not see the ledger in {local_file()}. Name a "
        "PostgreSQL or MySQL/MariaDB connection that every worker reaches:\n"
        "  AIRFLOW__REGAL__LEDGER_CONN_ID=<connection id>\n"
        "or, if all workers run on this one machine:\n"
        "  AIRFLOW__REGAL__ALLOW_LOCAL_LEDGER=True"
    )


def remote_executor() -> str | None:
    """Return the configured executor that may run tasks on other machines; None if there is none."""
    configured = conf.get("core", "executor", fallback="")
    for one in re.split(r"[,;]", configured):
        name = one.rpartition("=")[2].rpartition(":")[2].rpartition(".")[2].strip()  # team=alias:module.Class
        if name and name not in _LOCAL:
            return name
    return None


def open_account(
    target: Target,
    conn_id: str | None = None,
    *,
    source: str = "",
    database: Database | None = None,
    patience_s: float | None = None,
) -> Account:
    """Open the ledger of an account.

    :param source: the task that sends (``dag_id.task_id``).
    :param patience_s: seconds for which a transaction is retried.
    :raises FixConnectionError: see :func:`open_database`.
    :raises LedgerError: the database can't be used.
    """
    from airflow_provider_regal.ledger.account import Account

    key = conf.get("regal", "ledger_key", fallback="")
    return Account(
        database or open_database(conn_id, patience_s=patience_s),
        account=target.account,
        source=source,
        secret=key.encode() if key else None,
    )


def kept_for() -> KeptFor:
    """Read the retention periods from the configuration.

    :raises ValueError: an option is not a number of days.
    """
    from airflow_provider_regal.ledger.admin.retention import KeptFor

    usual = KeptFor()
    given: dict[str, float] = {}
    for option in ("history_days", "dead_letter_days", "plan_days", "consent_days"):
        text = conf.get("regal", option, fallback="").strip()
        if text:
            try:
                given[option] = float(text)
            except ValueError as error:
                raise ValueError(f"[regal] {option} must be a number of days, not {text!r}") from error
            if not 0 <= given[option] <= MOST_DAYS:
                raise ValueError(f"[regal] {option} must be from 0 to {MOST_DAYS:,} days, not {text}")
    return replace(usual, **given)


def tidy(account: Account) -> None:
    """Delete some of what is past its retention period; never raises."""
    from airflow_provider_regal.ledger.admin.retention import prune_a_little

    try:
        kept = kept_for()
    except (AirflowException, ValueError) as error:
        _log.warning("%s; nothing old is removed until it is", error)
        return
    prune_a_little(account.database, now=account.now(), kept_for=kept)


def _engine_of(conn_id: str) -> Any:
    connection: Any = BaseHook.get_connection(conn_id)
    if connection.conn_type == "sqlite":
        from airflow_provider_regal.ledger.database import sqlite_engine

        return sqlite_engine(Path(connection.host or connection.schema or ""))
    try:
        hook = connection.get_hook()
    except AirflowException as error:  # no installed provider has its type
        raise FixConnectionError(f"The ledger's connection {conn_id!r} cannot be used: {error}") from error
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise FixConnectionError(
            f"The ledger's connection {conn_id!r} is not of an SQL database ({type(hook).__name__}). Name one of "
            "PostgreSQL or MySQL/MariaDB in ledger_conn_id."
        )
    return hook.get_sqlalchemy_engine(engine_kwargs=ENGINE)
