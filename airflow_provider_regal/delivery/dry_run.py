"""Run a dry run on a temporary ledger; the account's own ledger is only read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.deliveries import Deliveries, Held, Place, Record, Try

T = TypeVar("T")


@contextmanager
def scratch_delivery(account: Account, call: str) -> Iterator[Held]:
    """Begin a delivery on a temporary ledger, which is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="regal-dry-run-") as folder:
        engine = sqlite_engine(Path(folder) / "ledger.db")
        with closing(Database(engine, name="the dry run's scratch file")) as scratch:
            own = Account(scratch, account=account.name, now=account.now)
            yield Deliveries(own).begin(Place.outside_a_task(), Try(), call=call, source="", options="", hold_s=0)


class LookingOnly:
    """The delivery in progress of a dry run: it reads the account's ledger but takes over no dead letters."""

    id = 0

    def __init__(self, account: Account, record: Record) -> None:
        self.account = account
        self.record = record

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read from the ledger."""
        return self.account.database.read(work)

    def write(self, work: Callable[[Connection], object]) -> None:
        """Refuse to write."""
        raise RuntimeError("a dry run writes nothing")
