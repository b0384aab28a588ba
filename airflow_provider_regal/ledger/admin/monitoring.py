"""Queries of the pages in Airflow's UI: lists, sums and pages of rows, all bounded and supported by an index.

All queries are limited to the DAGs that the user may read, so nothing else is counted either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, case, exists, false, func, literal_column, null, or_, select, true
from sqlalchemy.sql import ColumnElement

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.admin.as_read import identifiers_in
from airflow_provider_regal.ledger.admin.history import NOT_ACKNOWLEDGED
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import (
    EXPIRED,
    FAILED,
    FINISHED,
    PLANNED,
    READING,
    REPLACED,
    SENDING,
    STOPPED,
    Counts,
    Record,
)
from airflow_provider_regal.ledger.outcomes import IS_DEAD_LETTER, OUTCOME, SYNC_ROW, OutcomeRow, outcome_row
from airflow_provider_regal.ledger.rows import untagged
from airflow_provider_regal.ledger.states import Outcome
from airflow_provider_regal.ledger.text import LONGEST_NAME, short

#: The values of the state filter -> the delivery states they include.
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "failed": (FAILED,),
    "stopped": (STOPPED,),
    "running": (READING, SENDING),
    "fixed": (FAILED, STOPPED),
    "planned": (PLANNED,),
    "finished": (FINISHED,),
    "gone": (REPLACED, EXPIRED),
}
_MOST_CHOICES: Final = 200
_LOOKED_AT: Final = 20
_d, _o, _s = schema.deliveries.c, schema.outcomes.c, schema.senders.c
# Without the options of plans, which may be long.
_RECORD: Final = select(
    *(null().label(name) if name == "plan" else _d[name] for name in Record._fields if name != "sender"),
    _d.sender,
)
_COUNTS: Final = ("read_rows", "acknowledged", "rejected", "unknown", "skipped")
#: The reason of rows that were rejected before they were sent.
INVALID: Final = "invalid"
_UNKNOWN: Final = f"'{Outcome.UNKNOWN.value}'"


# -- deliveries that were fixed later -------------------------------------------------------------------------------


class FixedBy(NamedTuple):
    """What fixed a delivery.

    :param deliveries: ids of later deliveries, oldest first; empty if all its unknown rows were found at Regal.
    :param is_redelivery: they redelivered its rows, and Regal acknowledged all of them; else one delivered the same
        again.
    """

    deliveries: tuple[int, ...]
    is_redelivery: bool


def _redelivered(d: Any, *, unknown_only: bool) -> ColumnElement[bool]:
    """Return whether all undelivered rows were redelivered and acknowledged, or found at Regal."""
    o, by = schema.outcomes.alias().c, schema.deliveries.alias().c
    # The status is a literal in the statement: the partial index requires it.
    which = o.status == literal_column(_UNKNOWN) if unknown_only else o.status != literal_column("'acknowledged'")
    these = (o.delivery == d.id) & (o.status != literal_column("'acknowledged'")) & which
    complete = (by.state == FINISHED) & (by.acknowledged > 0) & (by.rejected + by.unknown + by.skipped == 0)
    acknowledged = exists().where((by.id == o.redelivered_by) & complete)
    left = exists().where(these & o.found_at.is_(None) & (o.redelivered_by.is_(None) | ~acknowledged))
    return and_(~left, exists().where(these & (o.redelivered_by.is_not(None) | o.found_at.is_not(None))))


def _to_check(d: Any) -> ColumnElement[bool]:
    return and_(d.state == FINISHED, d.unknown > 0, ~_redelivered(d, unknown_only=True))


def _delivered_again(d: Any, later: Any) -> ColumnElement[bool]:
    """Return whether a later delivery of the same task instance and name finished well."""
    same = and_(later.place == d.place, later.incarnation > d.incarnation)
    return and_(same, later.state == FINISHED, ~_to_check(later))


def _of_sync(d: Any) -> ColumnElement[bool]:
    """Return whether a sync failed because of rejected rows alone: the next run reads them again."""
    o = schema.outcomes.alias().c
    left, form = (o.delivery == d.id) & (o.status != literal_column("'acknowledged'")), func.coalesce(o.form, "")
    rejected, others = exists().where(left & (form == SYNC_ROW)), exists().where(left & (form != SYNC_ROW))
    return and_(d.state == FAILED, rejected, ~others)


def _synced_again(d: Any, later: Any) -> ColumnElement[bool]:
    """Return whether a later run of the same task finished well."""
    task = and_(*(later[name] == d[name] for name in ("account", "dag_id", "task_id", "map_index")))
    name = func.coalesce(later.name, "") == func.coalesce(d.name, "")
    return and_(task, name, later.id > d.id, later.state == FINISHED, ~_to_check(later))


def _is_fixed(d: Any) -> ColumnElement[bool]:
    all_settled = d.read_rows <= d.acknowledged + d.rejected + d.unknown + d.skipped
    redelivered = (d.state == FAILED) & all_settled & _redelivered(d, unknown_only=False)
    again = exists().where(_delivered_again(d, schema.deliveries.alias().c))
    synced = _of_sync(d) & exists().where(_synced_again(d, schema.deliveries.alias().c))
    return and_(d.state.in_((FAILED, STOPPED)), or_(again, synced, redelivered))


_CHECK: Final = _to_check(_d)
_FIXED: Final = _is_fixed(_d)
_NEEDS_A_LOOK: Final = or_(_d.state.in_((READING, SENDING)), _d.state.in_((FAILED, STOPPED)) & ~_FIXED, _CHECK)


def fixes(database: Database, records: Sequence[Record]) -> Mapping[int, FixedBy]:
    """Find deliveries that fixed others: id of the delivery that failed or has unknown rows -> its fix."""
    ended = [one.id for one in records if one.state in (FAILED, STOPPED)]
    ended += [one.id for one in records if one.state == FINISHED and one.unknown]
    if not ended:
        return {}
    later = schema.deliveries.alias()
    ways = (_delivered_again(_d, later.c), _of_sync(_d) & _synced_again(_d, later.c))
    again = [
        select(_d.id, func.min(later.c.id))
        .select_from(schema.deliveries.join(later, way))
        .where(_d.id.in_(ended) & _d.state.in_((FAILED, STOPPED)))
        .group_by(_d.id)
        for way in ways
    ]
    settled = select(_d.id).where(_d.id.in_(ended) & (_FIXED | ((_d.state == FINISHED) & ~_CHECK)))

    def read(connection: Any) -> dict[int, FixedBy]:
        found: dict[int, FixedBy] = {}
        for number, by in (row for statement in again for row in connection.execute(statement)):
            found.setdefault(number, FixedBy((by,), False))
        rest = [number for (number,) in connection.execute(settled) if number not in found]
        takers = select(_o.delivery, _o.redelivered_by).where(_o.delivery.in_(rest) & NOT_ACKNOWLEDGED).distinct()
        taken: dict[int, list[int]] = {number: [] for number in rest}
        for number, by in connection.execute(takers) if rest else ():
            if by is not None:
                taken.setdefault(number, []).append(by)
        return found | {number: FixedBy(tuple(sorted(by)), True) for number, by in taken.items()}

    return database.read(read)


class UnknownLeft(NamedTuple):
    """Unknown rows of a delivery that were neither redelivered nor found at Regal, and how to recognize them there.

    :param event: the name of their event, or of one of them.
    :param events: how many different names they have.
    :param first_at: when the first of them was first tried.
    :param last_at: when the last of them was last tried.
    """

    rows: int
    event: str | None
    events: int
    first_at: str
    last_at: str


def unknown_left(database: Database, records: Sequence[Record]) -> dict[int, UnknownLeft]:
    """Count the unknown rows that are still to be looked up: id of the delivery -> its rows; without those of 0."""
    wanted = [one.id for one in records if one.unknown]
    if not wanted:
        return {}
    free = _o.redelivered_by.is_(None) & _o.found_at.is_(None)
    statement = (
        select(
            _o.delivery,
            func.count(),
            func.min(_o.event),
            func.count(_o.event.distinct()),
            func.min(_o.first_at),
            func.max(_o.last_at),
        )
        .where(_o.delivery.in_(wanted) & (_o.status == literal_column(_UNKNOWN)) & NOT_ACKNOWLEDGED & free)
        .group_by(_o.delivery)
    )
    found = database.read(lambda connection: connection.execute(statement).fetchall())
    return {row[0]: UnknownLeft(*row[1:]) for row in found}


def replacements(database: Database, records: Sequence[Record]) -> dict[int, int]:
    """Find the deliveries that replaced others: id of the one replaced -> id of the next of the same task instance."""
    replaced = [one.id for one in records if one.state == REPLACED]
    if not replaced:
        return {}
    later = schema.deliveries.alias()
    statement = (
        select(_d.id, func.min(later.c.id))
        .select_from(
            schema.deliveries.join(later, (later.c.place == _d.place) & (later.c.incarnation > _d.incarnation))
        )
        .where(_d.id.in_(replaced))
        .group_by(_d.id)
    )
    return database.read(lambda connection: {row[0]: row[1] for row in connection.execute(statement)})


# -- which deliveries -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A filter for deliveries.

    :param dags: ids of DAGs; None for all.
    :param outside: include those outside a task.
    :param group: a key of ``GROUPS``, or ``check`` for finished ones with unknown rows.
    :param since: those that started at this time (of the ledger) or later.
    :param until: those that started before this time.
    """

    dags: frozenset[str] | None = None
    outside: bool = True
    dag_id: str | None = None
    account: str | None = None
    call: str | None = None
    group: str | None = None
    since: str | None = None
    until: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """Return the condition that selects these rows of ``regal_deliveries``."""
        wanted: list[ColumnElement[bool]] = [self._readable()]
        if self.dag_id is not None:
            wanted.append(_d.dag_id == short(self.dag_id, LONGEST_NAME))
        if self.account is not None:
            wanted.append(_d.account == short(self.account))
        if self.call is not None:
            wanted.append(_d.call == self.call)
        if self.since is not None:
            wanted.append(_d.started_at >= self.since)
        if self.until is not None:
            wanted.append(_d.started_at < self.until)
        if self.group == "check":
            wanted.append(_CHECK)
        elif self.group is not None:
            wanted.append(_d.state.in_(GROUPS.get(self.group, ())))
            if self.group in ("failed", "stopped", "fixed"):
                wanted.append(_FIXED if self.group == "fixed" else ~_FIXED)
        return and_(*wanted)

    def _readable(self) -> ColumnElement[bool]:
        inside = true() if self.dags is None else _d.dag_id.in_(sorted(self.dags)) if self.dags else false()
        if self.dags is None:
            return inside if self.outside else _d.dag_id.is_not(None)
        return or_(inside, _d.dag_id.is_(None)) if self.outside else inside


def dags_on_record(database: Database) -> set[str]:
    """Return the ids of all DAGs that have a delivery."""
    statement = select(_d.dag_id).where(_d.dag_id.is_not(None)).distinct()
    return database.read(lambda connection: {*connection.execute(statement).scalars()})


def needing_a_look(database: Database, wanted: Wanted, *, limit: int) -> list[Record]:
    """List running deliveries, and those that failed, stopped or have unknown rows, unless a later one fixed them."""
    return _records(database, and_(wanted.condition(), _NEEDS_A_LOOK), limit=limit)


def running(database: Database, wanted: Wanted, *, limit: int) -> list[Record]:
    """List deliveries without an end, newest first."""
    return _records(database, and_(wanted.condition(), _d.state.in_(GROUPS["running"])), limit=limit)


def all_others(database: Database, wanted: Wanted, *, limit: int, offset: int = 0) -> list[Record]:
    """List the deliveries that :func:`needing_a_look` leaves out, newest first."""
    return _records(database, and_(wanted.condition(), ~_NEEDS_A_LOOK), limit=limit, offset=offset)


def of_task(
    database: Database, *, dag_id: str, run_id: str, task_id: str, map_index: int, limit: int = 20
) -> list[Record]:
    """List the deliveries of a task instance, newest first."""
    this = (_d.dag_id == short(dag_id, LONGEST_NAME)) & (_d.task_id == short(task_id, LONGEST_NAME))
    this &= (_d.run_id == short(run_id, LONGEST_NAME)) & (_d.map_index == map_index)
    return _records(database, this, limit=limit)


def runs_like(database: Database, record: Record, *, limit: int) -> list[Record]:
    """List the last deliveries of a delivery's task up to that delivery, newest first; none outside a task."""
    if record.task_id is None:
        return []
    same = (_d.dag_id == record.dag_id) & (_d.task_id == record.task_id) & (_d.map_index == record.map_index)
    same &= (_d.account == record.account) & (_d.state != REPLACED) & (_d.started_at <= record.started_at)
    same &= _d.name.is_(None) if record.name is None else _d.name == record.name
    return _records(database, same, limit=limit)


def one(database: Database, number: int) -> Record | None:
    """Find one delivery."""
    found = _records(database, _d.id == number, limit=1)
    return found[0] if found else None


def _records(database: Database, condition: Any, *, limit: int, offset: int = 0) -> list[Record]:
    statement = _RECORD.where(condition).order_by(_d.started_at.desc(), _d.id.desc()).limit(limit).offset(offset)
    return database.read(lambda connection: [Record(**row._mapping) for row in connection.execute(statement)])


class Totals(NamedTuple):
    """The number of deliveries in each state, and the outcomes of their rows.

    :param states: those that a later delivery fixed are ``fixed``.
    """

    states: dict[str, int]
    to_check: int
    rows: dict[str, int]


def totals(database: Database, wanted: Wanted) -> Totals:
    """Count deliveries and rows."""
    state, check = case((_FIXED, "fixed"), else_=_d.state).label("now"), case((_CHECK, 1), else_=0).label("to_check")
    lines = select(state, check, *(_d[name] for name in _COUNTS)).where(wanted.condition()).subquery().c
    sums = [func.sum(lines[name]) for name in ("to_check", *_COUNTS)]
    statement = select(lines.now, func.count(), *sums).group_by(lines.now)
    found = database.read(lambda connection: connection.execute(statement).fetchall())
    rows = {name: sum(int(row[3 + number] or 0) for row in found) for number, name in enumerate(_COUNTS)}
    return Totals({row[0]: int(row[1]) for row in found}, sum(int(row[2] or 0) for row in found), rows)


class Day(NamedTuple):
    """The outcomes of one day's deliveries, by the day they started (UTC)."""

    day: str
    acknowledged: int
    rejected: int
    unknown: int


def days(database: Database, wanted: Wanted) -> list[Day]:
    """Sum up the rows by day, oldest first."""
    day = func.substr(_d.started_at, 1, 10)
    statement = (
        select(day, func.sum(_d.acknowledged), func.sum(_d.rejected), func.sum(_d.unknown))
        .where(wanted.condition())
        .group_by(day)
        .order_by(day)
    )
    found = database.read(lambda connection: connection.execute(statement).fetchall())
    return [Day(str(row[0]), *(int(count or 0) for count in row[1:])) for row in found]


class Choices(NamedTuple):
    """The values that occur, for filters."""

    dags: list[str]
    accounts: list[str]
    calls: list[str]


def choices(database: Database, wanted: Wanted) -> Choices:
    """List the values to filter by, from readable deliveries."""
    columns = (_d.dag_id, _d.account, _d.call)

    def distinct(connection: Any, column: Any) -> list[str]:
        statement = select(column).where(wanted.condition() & column.is_not(None)).distinct().order_by(column)
        return [*connection.execute(statement.limit(_MOST_CHOICES)).scalars()]

    return database.read(lambda connection: Choices(*(distinct(connection, column) for column in columns)))


class Sender(NamedTuple):
    """What a running delivery may send: requests per second, and the limit of its account."""

    sender: str
    granted: int
    rate_limit: int
    until: str


def senders(database: Database) -> dict[str, Sender]:
    """Return who currently shares a rate limit: holder of a delivery -> its share."""
    statement = select(_s.sender, _s.granted, _s.rate_limit, _s.until)
    found = database.read(lambda connection: [Sender(*row) for row in connection.execute(statement)])
    return {sender.sender: sender for sender in found}


def last_of_accounts(database: Database, accounts: Sequence[str], wanted: Wanted) -> dict[str, Record]:
    """Return each account's delivery that asked Regal last, of the newest ones."""
    found: dict[str, Record] = {}
    for account in accounts:
        newest = _records(database, and_(wanted.condition(), _d.account == account), limit=_LOOKED_AT)
        asked = [one for one in newest if one.state == SENDING or _has_asked(one)]
        if asked:
            found[account] = max(asked, key=lambda one: one.ended_at or one.held_at or one.started_at)
    return found


def _has_asked(record: Record) -> bool:
    return bool(record.acknowledged or record.unknown or Counts.of(record).requests)


def outcome_page(
    database: Database,
    delivery: int,
    *,
    status: str | None = None,
    reason: str | None = None,
    after: int = 0,
    limit: int,
) -> list[OutcomeRow]:
    """List some rows of a delivery in source order.

    :param status: only these; None for all that were not acknowledged.
    :param reason: only this reason, or messages that begin with it.
    :param after: the last row of the previous page.
    """
    statement = select(*OUTCOME).where((_o.delivery == delivery) & (_o.position > after))
    if status != Outcome.ACKNOWLEDGED.value:
        statement = statement.where(NOT_ACKNOWLEDGED)
    if status is not None:
        statement = statement.where(_o.status == status)
    if reason is not None:
        statement = statement.where(_with_reason(reason))
    statement = statement.order_by(_o.position).limit(limit)
    return database.read(lambda connection: [outcome_row(row) for row in connection.execute(statement)])


def _with_reason(reason: str) -> ColumnElement[bool]:
    return (_o.reason == reason) | _o.message.startswith(reason, autoescape=True)


_FAILED: Final = (Outcome.REJECTED.value, Outcome.UNKNOWN.value)


def with_what_was_read(database: Database, rows: Sequence[OutcomeRow]) -> list[OutcomeRow]:
    """Fill in the phones and emails that could not be read, from the kept payloads, by the names of the columns.

    :param rows: of one delivery; a few hundred at most.
    """
    wanted = [row.position for row in rows if row.status in _FAILED and None in (row.phone, row.email)]
    if not wanted:
        return [*rows]
    statement = select(_o.position, _o.payload).where(
        (_o.delivery == rows[0].delivery) & _o.position.in_(wanted) & _o.payload.is_not(None)
    )
    found = database.read(lambda connection: {row.position: row.payload for row in connection.execute(statement)})
    return [_filled(row, found[row.position]) if row.position in found else row for row in rows]


def _filled(row: OutcomeRow, payload: str) -> OutcomeRow:
    read = identifiers_in(json.loads(payload, object_hook=untagged))
    phone = read["phone"] if row.phone is None else row.phone
    return row._replace(phone=phone, email=read["email"] if row.email is None else row.email)


def count_letters(
    database: Database, delivery: int, *, statuses: Sequence[str], reason: str | None, positions: Sequence[int]
) -> int:
    """Count the rows of a delivery that a redelivery would take.

    :param reason: only this reason, or messages that begin with it.
    :param positions: only these rows; empty for all.
    """
    statement = select(_o.position).where(
        (_o.delivery == delivery) & NOT_ACKNOWLEDGED & IS_DEAD_LETTER & _o.redelivered_by.is_(None)
    )
    statement = statement.where(_o.status.in_(statuses))
    if reason is not None:
        statement = statement.where(_with_reason(reason))
    found = database.read(lambda connection: {*connection.execute(statement).scalars()})
    return len(found & {*positions} if positions else found)


class Letters(NamedTuple):
    """Dead letters of a delivery: rows whose payload is kept and that no redelivery has taken.

    :param refused: rejected rows that Regal refused; the other rejected rows were invalid and not sent.
    :param of_sync: rejected rows of a sync of opt-ins. They can't be redelivered: the next run reads them again.
    :param found: unknown rows that somebody found at Regal.
    """

    rejected: int
    refused: int
    unknown: int
    redelivered: int
    of_sync: int = 0
    found: int = 0


def letters(database: Database, delivery: int) -> Letters:
    """Count the dead letters of a delivery."""
    free = IS_DEAD_LETTER & _o.redelivered_by.is_(None)
    rejected = free & (_o.status == Outcome.REJECTED.value)
    counts = [
        func.sum(case((rejected, 1), else_=0)),
        func.sum(case((rejected & (_o.reason != INVALID), 1), else_=0)),
        func.sum(case((free & (_o.status == Outcome.UNKNOWN.value), 1), else_=0)),
        func.sum(case((_o.redelivered_by.is_not(None), 1), else_=0)),
        func.sum(case((_o.form == SYNC_ROW, 1), else_=0)),
        func.sum(case((_o.found_at.is_not(None), 1), else_=0)),
    ]
    statement = select(*counts).where((_o.delivery == delivery) & NOT_ACKNOWLEDGED)
    found = database.read(lambda connection: connection.execute(statement).one())
    return Letters(*(int(count or 0) for count in found))
