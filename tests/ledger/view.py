"""A ledger's content, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select, text
from sqlalchemy.engine import Engine

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.deliveries import RECORD, Place, Record
from airflow_provider_regal.ledger.outcomes import DeadLetter, letters
from airflow_provider_regal.ledger.people.consent_log import LogLine, stream_lines
from airflow_provider_regal.ledger.rows import decode_chunk
from airflow_provider_regal.ledger.states import RowState

ACCOUNT, DAG, TASK = "acme", "dag", "task"
SQLITE = "sqlite:///"


def place_of(run: str, name: str | None = None) -> Place:
    return Place(dag_id=DAG, run_id=run, task_id=TASK, name=name)


def open_database(where: Path | str) -> Database:
    """Open a ledger in a file, or at a URL of SQLAlchemy."""
    return Database(engine_of(where))


def engine_of(where: Path | str) -> Engine:
    """Make an engine for a file, or a URL of SQLAlchemy."""
    if isinstance(where, str) and where.startswith(SQLITE):
        where = Path(where.removeprefix(SQLITE))
    return sqlite_engine(where) if isinstance(where, Path) else create_engine(where, hide_parameters=True)


class LedgerView:
    """The ledger's content about the deliveries of a test; a delivery is identified by its run.

    :param where: its file, or its URL.
    """

    def __init__(self, where: Path | str, *, account: str = ACCOUNT, secret: bytes | None = None) -> None:
        self.where = where
        self._account = account
        self._secret = secret

    @contextmanager
    def account(self, *, now: datetime | None = None, **options: Any) -> Iterator[Account]:
        """Open the account; ``now`` stops its clock."""
        database = open_database(self.where)
        given = {"account": self._account, "secret": self._secret, "source": f"{DAG}.{TASK}", **options}
        try:
            yield Account(database, now=None if now is None else lambda: now, **given)
        finally:
            database.close()

    def query(self, statement: Any, **values: Any) -> list[Any]:
        """Query with SQL."""
        with self.account() as account:
            asked = text(statement) if isinstance(statement, str) else statement
            return account.database.read(lambda connection: connection.execute(asked, values).fetchall())

    def change(self, statement: str, **values: Any) -> None:
        """Change it with SQL, as no user should."""
        with self.account() as account:
            account.database.write(lambda connection: connection.execute(text(statement), values))

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def deliveries(self, run: str | None = None) -> list[Record]:
        """List the deliveries, of one run or all, oldest first."""
        d = schema.deliveries.c
        records = [Record(*row) for row in self.query(RECORD.order_by(d.id))]
        return [record for record in records if run in (None, record.run_id)]

    def delivery(self, run: str = "run") -> Record:
        """Find the last delivery of a run."""
        return self.deliveries(run)[-1]

    def states(self, run: str = "run") -> list[RowState]:
        """List the states of the rows that the snapshot still has."""
        c = schema.row_chunks.c
        chunks = self.query(select(c.states).where(c.delivery == self.delivery(run).id).order_by(c.chunk))
        return [RowState(state) for (states,) in chunks for state in bytes(states)]

    def rows(self, run: str = "run") -> list[tuple[int, dict[str, Any]]]:
        """List the rows the snapshot still has: the number in the source, the row."""
        c = schema.row_chunks.c
        return self._decoded(self.query(select(c.rows).where(c.delivery == self.delivery(run).id).order_by(c.chunk)))

    def rows_of_all(self) -> list[tuple[int, dict[str, Any]]]:
        """List the rows of all snapshots."""
        return self._decoded(self.query(select(schema.row_chunks.c.rows)))

    def _decoded(self, chunks: list[Any]) -> list[tuple[int, dict[str, Any]]]:
        return [(number, row) for (encoded,) in chunks for _, number, row in decode_chunk(bytes(encoded))]

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def outcomes(self, run: str = "run", *, status: str | None = None) -> list[Any]:
        """List the outcome lines of a delivery in source order; their columns are attributes."""
        o = schema.outcomes.c
        lines = self.query(select(schema.outcomes).where(o.delivery == self.delivery(run).id).order_by(o.position))
        return [line for line in lines if status in (None, line.status)]

    def dead_letters(self, run: str = "run") -> list[DeadLetter]:
        """List the dead letters of a delivery, with their original payloads."""
        keys = [(line.delivery, line.position) for line in self.outcomes(run) if line.payload is not None]
        with self.account() as account:
            return account.database.read(lambda connection: list(letters(connection, keys)))

    def reasons(self, run: str = "run") -> dict[str, int]:
        """Count the rejected and unknown rows of a delivery by their reason."""
        found: dict[str, int] = {}
        for line in self.outcomes(run):
            if line.status != "acknowledged":
                found[line.reason] = found.get(line.reason, 0) + 1
        return found

    # -- people -------------------------------------------------------------------------------------------------------

    def consents(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return stored identifier and channel -> subscribed, evidence, opt-out, state, and what is pending."""
        with self.account() as account:
            return {(key, channel): tuple(rest) for key, channel, *rest in account.consents()}

    def consent_log(self, run: str | None = None) -> list[LogLine]:
        """List the lines of the consent log, oldest first; their columns are attributes."""
        with self.account() as account:
            lines = list(stream_lines(account.database))
        return [line for line in lines if run is None or line.delivery == str(self.delivery(run).id)]

    def contacts(self) -> dict[str, tuple[str | None, str | None]]:
        """Return contacts -> the hashes of row and payload when last acknowledged."""
        k = schema.contacts.c
        return {row.contact: (row.row_hash, row.payload_hash) for row in self.query(select(*k))}

    def messages(self) -> dict[str, str]:
        """Return the states of message ids."""
        m = schema.messages.c
        return {row.message_id: row.state for row in self.query(select(m.message_id, m.state))}
