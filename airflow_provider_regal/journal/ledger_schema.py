"""The ledger's tables, and how they are made and brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Column, Integer, MetaData, SmallInteger, String, Table, select
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.engine import Connection

from airflow_provider_regal.journal.ledger_error import WrongLedgerError
from airflow_provider_regal.journal.ledger_text import LONGEST_KEY, LONGEST_NAME

_TIME: Final = 27
_HASH: Final = 128

metadata: Final = MetaData()


def _exact(length: int) -> Any:
    """Give a text type that tells ``a`` from ``A`` and sorts by code point, as Python does, in every database."""
    return (
        String(length)
        .with_variant(String(length, collation="C"), "postgresql")
        .with_variant(
            mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"),
            "mysql",
        )
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mariadb")
        .with_variant(mssql.NVARCHAR(length, collation="Latin1_General_BIN2"), "mssql")
    )


version: Final = Table(
    "regal_ledger_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
ledger: Final = Table(
    "regal_ledger",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("call", _exact(16), primary_key=True),
    Column("key", _exact(LONGEST_KEY), primary_key=True),
    Column("channel", _exact(16), primary_key=True),
    Column("row_hash", String(_HASH)),
    Column("payload_hash", String(_HASH)),
    Column("subscribed", SmallInteger),  # 1, 0 or NULL: the one spelling every database has
    Column("evidence_at", String(_TIME)),
    Column("opt_out_at", String(_TIME)),
    Column("state", String(16), nullable=False),
    Column("pending_subscribed", SmallInteger),
    Column("pending_at", String(_TIME)),
    Column("doubt", String(_TIME + 4)),
    Column("acknowledged_at", String(_TIME)),
    Column("source", String(LONGEST_NAME)),
    Column("run", String(LONGEST_NAME)),
    Column("changed_at", String(_TIME)),
    sqlite_with_rowid=False,  # rows lie in the order of their key, in which they are read
)
types: Final = Table(
    "regal_ledger_types",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("name", _exact(LONGEST_KEY), primary_key=True),
    Column("type", String(64), nullable=False),
)


def _create(connection: Connection) -> None:
    metadata.create_all(connection, tables=[ledger, types])


# Each makes one version from the one before it. They are only ever added to, and what is there never changes: a later
# step may not rely on the tables above, which describe the newest version.
_STEPS: Final[Sequence[Callable[[Connection], None]]] = (_create,)


def bring_up_to_date(connection: Connection, steps: Sequence[Callable[[Connection], None]] = _STEPS) -> None:
    """Make the tables, or change them to what this version needs; in one transaction where the database can.

    Two at once: the second fails on what the first made and has to be called again.

    :param steps: how each version is made from the one before.
    :raises WrongLedgerError: a newer version of this package made them.
    """
    metadata.create_all(connection, tables=[version])
    found = connection.execute(select(version.c.version)).scalar()
    if found is None:
        connection.execute(version.insert(), {"id": 1, "version": 0})
        found = 0
    if found < len(steps):
        # Somebody else may have brought it up to date while we waited for the lock.
        found = connection.execute(select(version.c.version).with_for_update()).scalar_one()
    if found > len(steps):
        raise WrongLedgerError(
            f"The ledger has version {found}; this airflow-provider-regal knows versions up to {len(steps)}. "
            "Upgrade airflow-provider-regal wherever tasks run, or name another database in ledger_conn_id."
        )
    for number in range(found, len(steps)):
        steps[number](connection)
        connection.execute(version.update().values(version=number + 1))
