"""Opt-outs that were read and that Regal has not acknowledged: they are owed to it, whoever read them.

``regal_consents.owed_since`` says so of each; ``rules.with_debt`` keeps it, so that finding them costs no more than
there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, or_, select, tuple_

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import raw_rows

_PAGE: Final = 1_000
_c = schema.consents.c


class OwedOptOut(NamedTuple):
    """An opt-out that Regal lacks.

    :param identifier: phone or email as it is stored: a hash where ``[regal] ledger_key`` is set.
    :param at: when it was given; when it was read, if its source did not say.
    :param since: when the ledger learned that Regal lacks it.
    :param source: the task that read it (``dag_id.task_id``); empty outside of a task.
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


_KEY: Final = (_c.account, _c.owed_since, _c.identifier, _c.channel)
_OWED: Final = (
    select(_c.account, _c.identifier, _c.channel, _c.opt_out_at, _c.owed_since, _c.opt_out_source, _c.opt_out_delivery)
    .where(_c.owed_since.is_not(None))
    .order_by(*_KEY)
    .limit(_PAGE)
)
_LAST: Final[tuple[Any, ...]] = tuple(bindparam(f"last_{column.name}") for column in _KEY)
# Databases find their place by the columns after those that are told, not by ones that are told as well.
_AFTER: Final = tuple_(*_KEY) > tuple_(*_LAST)
_AFTER_IN_ACCOUNT: Final = tuple_(*_KEY[1:]) > tuple_(*_LAST[1:])


def owed_opt_outs(
    database: Database, account: str | None = None, *, without: Collection[int] = ()
) -> Iterator[OwedOptOut]:
    """Stream the opt-outs that are owed, the oldest first and in constant memory.

    :param account: as it is stored; None for all accounts.
    :param without: deliveries whose opt-outs are left out.
    """
    first = statement = _narrowed(_OWED, account, without)
    told: dict[str, Any] = {}
    while True:
        page = database.read(partial(raw_rows, statement=statement, told=told))
        for owed in page:
            account_, identifier, channel, at, since, source, delivery = owed
            yield OwedOptOut(account_, identifier, channel, at, since, source or "", delivery or "")
        if len(page) < _PAGE:
            return
        last = OwedOptOut(*page[-1])
        statement = first.where(_AFTER if account is None else _AFTER_IN_ACCOUNT)
        told = {
            "last_owed_since": last.since,
            "last_identifier": last.identifier,
            "last_channel": last.channel,
            **({} if account is not None else {"last_account": last.account}),
        }


def count_owed(database: Database, account: str | None = None, *, without: Collection[int] = ()) -> Owed:
    """Count them."""
    counting = select(func.count(), func.min(_c.owed_since)).where(_c.owed_since.is_not(None))
    counting = _narrowed(counting, account, without)
    return database.read(lambda connection: Owed(*connection.execute(counting).one()))


def _narrowed(statement: Any, account: str | None, without: Collection[int]) -> Any:
    if account is not None:
        statement = statement.where(_c.account == account)
    if without:
        theirs = _c.opt_out_delivery.in_([str(one) for one in sorted(without)])
        statement = statement.where(or_(_c.opt_out_delivery.is_(None), ~theirs))
    return statement
