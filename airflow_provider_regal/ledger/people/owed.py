"""Owed opt-outs: they were read, and Regal has not acknowledged them, no matter which delivery read them.

``rules.with_debt`` maintains ``regal_consents.owed_since``, so that the cost of finding them depends only on their
number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, or_, select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import raw_rows

_PAGE: Final = 1_000
_c = schema.consents.c


class OwedOptOut(NamedTuple):
    """An opt-out that Regal lacks.

    :param identifier: phone or email in stored form: a hash if ``[regal] ledger_key`` is set.
    :param at: when it was given; when it was read, if its source did not say.
    :param since: when the ledger learned that Regal lacks it.
    :param source: the task that read it (``dag_id.task_id``); empty outside a task.
    :param delivery: the delivery that read it, as text.
    """

    account: str
    identifier: str
    channel: str
    at: str
    since: str
    source: str
    delivery: str


class Owed(NamedTuple):
    """How many opt-outs Regal lacks, and since when the oldest is owed."""

    opt_outs: int
    oldest_at: str | None


_IN_ORDER: Final = (
    select(_c.account, _c.identifier, _c.channel, _c.opt_out_at, _c.owed_since, _c.opt_out_source, _c.opt_out_delivery)
    .where(_c.account == bindparam("account"))
    .order_by(_c.owed_since, _c.identifier, _c.channel)
    .limit(_PAGE)
)
_FIRST: Final = _IN_ORDER.where(_c.owed_since.is_not(None))
# Many may be owed since the same moment. In this form, every database uses the index to find the place among them.
_OF_THE_SAME_MOMENT: Final = _IN_ORDER.where(
    (_c.owed_since == bindparam("since"))
    & (_c.identifier >= bindparam("identifier"))
    & ((_c.identifier > bindparam("identifier")) | (_c.channel > bindparam("channel")))
)
_LATER: Final = _IN_ORDER.where(_c.owed_since > bindparam("since"))
_ACCOUNTS: Final = select(_c.account).where(_c.owed_since.is_not(None)).distinct().order_by(_c.account)


def owed_opt_outs(
    database: Database, account: str | None = None, *, without: Collection[int] = ()
) -> Iterator[OwedOptOut]:
    """Stream the owed opt-outs, oldest first in each account, in constant memory.

    :param account: in stored form; None for all accounts.
    :param without: deliveries whose opt-outs are left out.
    """
    accounts = [account]
    if account is None:
        accounts = [row[0] for row in database.read(partial(raw_rows, statement=_ACCOUNTS, told={}))]
    for one in accounts:
        statement, told = _FIRST, {"account": one}
        while True:
            page = database.read(partial(raw_rows, statement=_without(statement, without), told=told))
            for row in page:
                yield OwedOptOut._make((*row[:5], row[5] or "", row[6] or ""))
            if len(page) == _PAGE:
                last = OwedOptOut(*page[-1])
                told = {"account": one, "since": last.since, "identifier": last.identifier, "channel": last.channel}
                statement = _OF_THE_SAME_MOMENT
            elif statement is _OF_THE_SAME_MOMENT:
                statement, told = _LATER, {"account": one, "since": told["since"]}
            else:
                break


def count_owed(database: Database, account: str | None = None, *, without: Collection[int] = ()) -> Owed:
    """Count the owed opt-outs."""
    counting = select(func.count(), func.min(_c.owed_since)).where(_c.owed_since.is_not(None))
    if account is not None:
        counting = counting.where(_c.account == account)
    return database.read(lambda connection: Owed(*connection.execute(_without(counting, without)).one()))


def _without(statement: Any, deliveries: Collection[int]) -> Any:
    if not deliveries:
        return statement
    theirs = _c.opt_out_delivery.in_([str(one) for one in sorted(deliveries)])
    return statement.where(or_(_c.opt_out_delivery.is_(None), ~theirs))
