"""Write outcomes to a table in the warehouse, where they can be joined with their source rows.

::

    deliveries of the ledger ─▶ runs now? ─▶ as it was copied last? ─▶ one transaction: its lines, and how it was
                                 left out        left out                               │
                                                                  TABLE and TABLE_deliveries in the warehouse

The unit is a delivery: all its lines are replaced together, with a record of the state they were copied in. So an
interrupted copy does no harm, and a delivery that was resumed or redelivered since is copied again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine

from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.admin.history import NOT_ACKNOWLEDGED, is_live
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import RECORD, Record
from airflow_provider_regal.ledger.outcomes import outcomes_of
from airflow_provider_regal.ledger.schema import LONGEST_MESSAGE
from airflow_provider_regal.ledger.text import LONGEST_KEY, LONGEST_NAME, from_ledger_time, short

_PAGE: Final = 1_000
_WORD: Final = 32
_MARK: Final = 160
_NAME: Final = re.compile(r"(?:\w+\.){0,2}[A-Za-z_]\w*")
_d, _o = schema.deliveries.c, schema.outcomes.c


@dataclass(slots=True)
class Written:
    """What was copied.

    :param deliveries: copied now.
    :param outcomes: the lines of these deliveries.
    :param unchanged: deliveries that have not changed since they were copied.
    :param running: left out; they are copied next time.
    """

    deliveries: int = 0
    outcomes: int = 0
    unchanged: int = 0
    running: int = 0


def write_back(
    ledger: Database,
    warehouse: Engine,
    table: str,
    *,
    since: str | None = None,
    account: str | None = None,
    again: bool = False,
    on_delivery: Callable[[Record, int], None] = lambda record, lines: None,
) -> Written:
    """Copy new and changed outcomes to a table in another database.

    Creates two tables if they are missing: ``table`` has a line for each outcome, ``table_deliveries`` one for each
    delivery. Times are UTC. Payloads of dead letters are not copied; identifiers are in the ledger's stored form.

    :param table: its name, with its schema if that is not the default: ``regal.outcomes``.
    :param since: only deliveries that started at this time (of the ledger) or later.
    :param account: only those of this account.
    :param again: copy unchanged deliveries, too.
    :param on_delivery: called with each delivery that was copied, and its number of lines.
    :raises FixSourceError: the table name is invalid, or the existing table lacks a column.
    :raises LedgerError: the ledger can't be read. What was copied stays.
    """
    lines, copied = _tables(table)
    _make(warehouse, lines, copied)
    done, now = Written(), ledger.now()
    for record in _changed(ledger, warehouse, copied, since=since, account=account, again=again, done=done):
        if is_live(record, now):
            done.running += 1
            continue
        with warehouse.begin() as connection:
            count = _replace(ledger, connection, record, lines, copied)
        done.deliveries += 1
        done.outcomes += count
        on_delivery(record, count)
    return done


def _tables(name: str) -> tuple[Table, Table]:
    if not _NAME.fullmatch(name):
        raise FixSourceError(f"{name!r} is not the name of a table: letters, digits and _, such as regal.outcomes")
    where, _, bare = name.rpartition(".")
    metadata = MetaData(schema=where or None)
    lines = Table(
        bare,
        metadata,
        Column("delivery", BigInteger, primary_key=True, autoincrement=False),
        Column("position", Integer, primary_key=True, autoincrement=False),
        Column("account", _text(LONGEST_KEY), nullable=False),
        Column("dag_id", _text(LONGEST_NAME)),
        Column("task_id", _text(LONGEST_NAME)),
        Column("run_id", _text(LONGEST_NAME)),
        Column("map_index", Integer),
        Column("place", _text(LONGEST_NAME)),
        Column("call", _text(_WORD), nullable=False),
        Column("event", _text(LONGEST_NAME)),
        Column("user_id", _text(LONGEST_KEY)),
        Column("phone", _text(LONGEST_KEY)),
        Column("email", _text(LONGEST_KEY)),
        Column("status", _text(_WORD), nullable=False),
        Column("reason", _text(LONGEST_KEY)),
        Column("field", _text(LONGEST_KEY)),
        Column("message", _text(LONGEST_MESSAGE)),
        Column("attempts", Integer, nullable=False),
        Column("first_at", _time(), nullable=False),
        Column("last_at", _time(), nullable=False),
        Column("redelivered_by", BigInteger),
        Column("found_at", _time()),
    )
    copied = Table(
        f"{bare}_deliveries",
        metadata,
        Column("delivery", BigInteger, primary_key=True, autoincrement=False),
        Column("account", _text(LONGEST_KEY), nullable=False),
        Column("dag_id", _text(LONGEST_NAME)),
        Column("task_id", _text(LONGEST_NAME)),
        Column("run_id", _text(LONGEST_NAME)),
        Column("map_index", Integer),
        Column("name", _text(LONGEST_NAME)),
        Column("call", _text(_WORD), nullable=False),
        Column("state", _text(_WORD), nullable=False),
        *(Column(name, Integer, nullable=False) for name in ("read_rows", *_OUTCOMES)),
        Column("started_at", _time(), nullable=False),
        Column("ended_at", _time()),
        Column("copied_in", _text(_MARK), nullable=False),
    )
    return lines, copied


_OUTCOMES: Final = ("acknowledged", "rejected", "unknown", "skipped")
_TIMES: Final = ("first_at", "last_at", "found_at")


def _text(length: int) -> Any:
    wide = mysql.VARCHAR(length, charset="utf8mb4")
    return String(length).with_variant(wide, "mysql").with_variant(wide, "mariadb")


def _time() -> Any:
    exact = mysql.DATETIME(fsp=6)
    return DateTime().with_variant(exact, "mysql").with_variant(exact, "mariadb")


def _make(warehouse: Engine, *tables: Table) -> None:
    for table in tables:
        table.create(warehouse, checkfirst=True)
        there = {column["name"].lower() for column in inspect(warehouse).get_columns(table.name, schema=table.schema)}
        if missing := [column.name for column in table.columns if column.name not in there]:
            raise FixSourceError(
                f"The table {table.fullname} of the warehouse lacks {', '.join(missing)}. Drop it, so that it is made "
                "and filled anew, or name another one with --table."
            )


def _changed(
    ledger: Database,
    warehouse: Engine,
    copied: Table,
    *,
    since: str | None,
    account: str | None,
    again: bool,
    done: Written,
) -> Iterator[Record]:
    """Return the deliveries that changed since they were copied, and those whose dead letters they have taken."""
    with warehouse.connect() as connection:
        marks = {row[0]: row[1] for row in connection.execute(select(copied.c.delivery, copied.c.copied_in))}
    given: set[int] = set()
    for record in _records(ledger, since, account):
        if not again and marks.get(record.id) == _mark(ledger, record):
            done.unchanged += 1
            continue
        yield record
        given.add(record.id)
        for earlier in _took_from(ledger, record.id):
            if earlier.id in marks and earlier.id not in given:
                done.unchanged -= _mark(ledger, earlier) == marks[earlier.id] and not again
                given.add(earlier.id)
                yield earlier


def _records(ledger: Database, since: str | None, account: str | None) -> Iterator[Record]:
    wanted = RECORD.order_by(_d.id).limit(_PAGE)
    if since is not None:
        wanted = wanted.where(_d.started_at >= since)
    if account is not None:
        wanted = wanted.where(_d.account == short(account))
    last = 0
    while True:
        page = _read(ledger, wanted.where(_d.id > last))
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1].id


def _took_from(ledger: Database, delivery: int) -> list[Record]:
    """Find the deliveries whose dead letters a redelivery has taken, according to their lines."""
    earlier = select(_o.delivery).where(_o.redelivered_by == delivery).distinct()
    return _read(ledger, RECORD.where(_d.id.in_(earlier)).order_by(_d.id))


def _read(ledger: Database, statement: Any) -> list[Record]:
    return ledger.read(lambda connection: [Record(*row) for row in connection.execute(statement)])


def _mark(ledger: Database, record: Record) -> str:
    """Return the state in which a delivery is copied; every commit changes it, and every change of what was found."""
    found = ""
    if record.unknown:
        these = (_o.delivery == record.id) & NOT_ACKNOWLEDGED & _o.found_at.is_not(None)
        marks = select(func.count(), func.max(_o.found_at)).where(these)
        rows, at = ledger.read(lambda connection: connection.execute(marks).one())
        found = f" {rows} {at}" if rows else ""
    return f"{record.state} {record.try_number} {record.held_at} {record.ended_at}{found}"


def _replace(ledger: Database, connection: Connection, record: Record, lines: Table, copied: Table) -> int:
    connection.execute(delete(lines).where(lines.c.delivery == record.id))
    connection.execute(delete(copied).where(copied.c.delivery == record.id))
    task = {name: getattr(record, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    count, page = 0, list[dict[str, Any]]()
    for one in outcomes_of(ledger, record.id):
        told = one._asdict()
        del told["is_dead_letter"]
        page.append({**told, **task, **{name: _moment(told[name]) for name in _TIMES}})
        if len(page) >= _PAGE:
            connection.execute(insert(lines), page)
            count, page = count + len(page), []
    if page:
        connection.execute(insert(lines), page)
    told = {name: getattr(record, name) for name in ("account", "name", "call", "state", "read_rows", *_OUTCOMES)}
    started, ended = _moment(record.started_at), _moment(record.ended_at)
    told |= {"delivery": record.id, "started_at": started, "ended_at": ended, "copied_in": _mark(ledger, record)}
    connection.execute(insert(copied), [{**told, **task}])
    return count + len(page)


def _moment(at: str | None) -> datetime | None:
    return None if at is None else from_ledger_time(at).replace(tzinfo=None)
