"""The types that traits and properties were first sent with, in SQL: the first write of a name holds."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.engine import Connection

from airflow_provider_regal.journal.ledger_schema import types
from airflow_provider_regal.journal.ledger_text import short

_TYPES: Final = select(types.c.name, types.c.type).where(types.c.account == bindparam("account"))


def read_types(connection: Connection, account: str) -> dict[str, str]:
    """Give all types of an account."""
    return dict(tuple(row) for row in connection.execute(_TYPES, {"account": account}).fetchall())


def claim_types(connection: Connection, account: str, wanted: dict[str, str]) -> dict[str, str]:
    """Record the types of names not seen before; gives what holds now for the names asked about."""
    known = read_types(connection, account)
    new = {name_: kind for name, kind in wanted.items() if (name_ := short(name)) not in known}
    if new:
        told = [{"account": account, "name": name, "type": new[name]} for name in sorted(new)]
        connection.execute(types.insert(), told)
    return {name: (known | new)[short(name)] for name in wanted}
