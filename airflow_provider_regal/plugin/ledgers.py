"""The API server's access to the ledger: a database server is opened once, a file for each page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Final

from airflow_provider_regal._compat import AirflowException, conf
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks._ledger import local_file, open_database
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.schema import MIGRATIONS

OpenLedger = Callable[[], AbstractContextManager[Database]]
_PATIENCE_S: Final = 3.0


class NoLedger(Exception):  # noqa: N818 - a page says so
    """There is no ledger to read; the message says why, and what to do."""


class Ledgers:
    """Opens the configured ledger and creates none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[str, Database] | None = None

    @contextmanager
    def open(self) -> Iterator[Database]:
        """Open it for a page.

        :raises NoLedger: there is none, or it can't be used.
        """
        conn_id = conf.get("regal", "ledger_conn_id", fallback="")
        if not conn_id:
            if not local_file().exists():
                raise NoLedger(
                    f"There is no ledger in {local_file()} on this machine, where the API server runs. Either no "
                    "delivery has run yet, or tasks run on another machine: name a database that both reach in "
                    "[regal] ledger_conn_id."
                )
            with closing(_opened("")) as database:
                yield database
            return
        yield self._server(conn_id)

    def _server(self, conn_id: str) -> Database:
        with self._lock:
            if self._opened is None or self._opened[0] != conn_id:
                self._opened = (conn_id, _opened(conn_id))
            return self._opened[1]


def _opened(conn_id: str) -> Database:
    try:
        database = open_database(conn_id or None, migrate=False, patience_s=_PATIENCE_S)
        version = history.read_schema_version(database)
    except RegalError as error:
        raise NoLedger(str(error)) from None
    except AirflowException as error:
        raise NoLedger(f"The ledger's connection {conn_id!r} cannot be used: {error}") from None
    if version != len(MIGRATIONS):
        database.close()
        found = "has no tables yet" if version is None else f"has schema version {version}"
        raise NoLedger(
            f"The ledger {found}, and these pages read version {len(MIGRATIONS)}. The next delivery migrates it, or: "
            "airflow regal ledger upgrade"
        )
    return database
