"""Look up many keys of an account at once: one statement for all of them, in the way each database does fastest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Table, bindparam, select, text
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger.entries import batches, raw_rows

_AT_ONCE: Final = 500  # values of an IN; each costs as much as a row


class Lookup:
    """A prepared lookup.

    :param table: has a column ``account``.
    :param columns: the names of those that are returned.
    :param key: the column in which the keys are looked up; with the account, it begins an index.
    """

    def __init__(self, table: Table, columns: Sequence[str], key: str) -> None:
        names = ", ".join(columns)
        self._in_sqlite = text(
            f"SELECT {names} FROM {table.name} WHERE account = :account "  # noqa: S608 - names of columns
            f"AND {key} IN (SELECT value FROM json_each(:keys))"
        )
        # If a table has grown since it was last analyzed, PostgreSQL expects few rows for an account, and reads all of
        # them to find those of an IN. LATERAL makes it look up each by the index.
        self._in_postgres = text(
            "SELECT found.* FROM unnest(CAST(:keys AS text[])) AS wanted(k), LATERAL "  # noqa: S608
            f"(SELECT {names} FROM {table.name} WHERE account = :account AND {key} = wanted.k OFFSET 0) AS found"
        )
        self._elsewhere = select(*(table.c[name] for name in columns)).where(
            (table.c.account == bindparam("account")) & table.c[key].in_(bindparam("keys", expanding=True))
        )

    def rows(self, connection: Connection, account: str, keys: Iterable[str]) -> list[Any]:
        """Return the rows of these keys, in no particular order.

        :param keys: in the stored form; each once.
        """
        wanted, dialect = sorted(keys), connection.dialect.name
        if not wanted:
            return []
        if dialect == "sqlite":
            return raw_rows(connection, self._in_sqlite, {"account": account, "keys": json.dumps(wanted)})
        if dialect == "postgresql":
            return raw_rows(connection, self._in_postgres, {"account": account, "keys": wanted})
        told = [{"account": account, "keys": some} for some in batches(wanted, _AT_ONCE)]
        return [row for one in told for row in raw_rows(connection, self._elsewhere, one)]
