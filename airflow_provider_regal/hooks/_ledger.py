"""Where the ledger of a delivery is, and how it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal._compat import AirflowException, BaseHook, conf
from airflow_provider_regal.errors import FixConnectionError
from airflow_provider_regal.hooks._bucket import is_on_object_storage
from airflow_provider_regal.hooks._place import storage

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

_FILE: Final = "ledger.db"
# How long a row may wait between its claim and its request.
_LEASE_BEYOND_TIMEOUT_S: Final = 90.0


def has_ledger_file() -> bool:
    """Whether there is an SQLite ledger beside the run folders."""
    return not _is_in_bucket() and (storage() / _FILE).exists()


def open_ledger(
    conn_id: str | None, *, account: str, run: str, source: str, timeout_s: float, keep_secret: bool = True
) -> Ledger:
    """Open the ledger of an account.

    :param conn_id: a connection of an SQL database; None for an SQLite file beside the run folders.
    :param run: the run folder.
    :param source: which task acknowledges (``dag_id.task_id``).
    :param timeout_s: how long a request may be under way.
    :param keep_secret: an account that is new keeps the ``ledger_key`` of now; False for a dry run or a check.
    :raises FixConnectionError: the connection is not one of an SQL database, or there is none and no place for a file.
    :raises LedgerError: the database cannot be used.
    """
    # Only where there is a ledger: it loads SQLAlchemy.
    from airflow_provider_regal.journal.ledger import Ledger, sqlite_engine

    key = conf.get("regal", "ledger_key", fallback="")
    if conn_id is None and _is_in_bucket():
        raise FixConnectionError(
            "The ledger is a file where ledger_conn_id is not given, and [regal] storage_path is on object storage, "
            "where no database can lie. Give ledger_conn_id= the connection of an SQL database that every worker "
            "reaches; nothing was sent."
        )
    return Ledger(
        sqlite_engine(storage() / _FILE) if conn_id is None else _engine_of(conn_id),
        account=account,
        run=run,
        source=source,
        secret=key.encode() if key else None,
        lease_s=timeout_s + _LEASE_BEYOND_TIMEOUT_S,
        keep_secret=keep_secret,
    )


def _is_in_bucket() -> bool:
    return is_on_object_storage(conf.get("regal", "storage_path", fallback=""))


def _engine_of(conn_id: str) -> Any:
    connection: Any = BaseHook.get_connection(conn_id)
    try:
        hook = connection.get_hook()
    except AirflowException as error:  # no provider that is installed knows its type
        raise FixConnectionError(f"The ledger's connection {conn_id!r} cannot be used: {error}") from error
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise FixConnectionError(
            f"The ledger's connection {conn_id!r} is not one of an SQL database: {type(hook).__name__}. Give "
            "ledger_conn_id= such a one."
        )
    return hook.get_sqlalchemy_engine(engine_kwargs={"hide_parameters": True})
