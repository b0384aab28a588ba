"""What the ledger keeps, for how long, and its size.

==========================================  ===============================================================
payloads of dead letters                    ``dead_letter_days`` after their last attempt; the line stays
snapshots of deliveries that did not finish ``dead_letter_days`` after the last commit; then they can't resume
plans that are not sent                     ``plan_days`` after they were made; then they have expired
deliveries and the outcomes of their rows   ``history_days`` after the last commit
lines of the consent log                    ``consent_days``, if set; what proves a current opt-in stays
consents, contacts, message ids             until the person is forgotten: without them it could be sent again
==========================================  ===============================================================

Everything is deleted in small transactions, so that deliveries never wait long for a lock.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, case, delete, func, or_, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.admin.history import is_live
from airflow_provider_regal.ledger.database import LOCK_TIMEOUT_S, Database
from airflow_provider_regal.ledger.deliveries import (
    DROPPED,
    EXPIRED,
    FAILED,
    PLANNED,
    READING,
    RECORD,
    SENDING,
    STOPPED,
    Counts,
    Record,
)
from airflow_provider_regal.ledger.outcomes import HAS_DECISION, line_of, write_outcomes
from airflow_provider_regal.ledger.people import consent_log
from airflow_provider_regal.ledger.rows import decode_chunk
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.ledger.tries import lose_tries

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE: Final = 500
_CHUNKS_AT_ONCE: Final = 20
_AGAIN_AFTER_S: Final = 24 * 3600.0
_HURRIED_S: Final = 0.5
_LOCK_TIMEOUTS: Final = {
    "sqlite": "PRAGMA busy_timeout = {milliseconds}",
    "postgresql": "SET lock_timeout = {milliseconds}",
    "mysql": "SET SESSION innodb_lock_wait_timeout = {seconds}",
    "mariadb": "SET SESSION innodb_lock_wait_timeout = {seconds}",
}
_o, _d, _c = schema.outcomes.c, schema.deliveries.c, schema.row_chunks.c


@dataclass(frozen=True, slots=True)
class KeptFor:
    """Retention periods, in days.

    :param consent_days: None to keep forever.
    """

    history_days: float = 90.0
    dead_letter_days: float = 30.0
    plan_days: float = 7.0
    consent_days: float | None = None


@dataclass(slots=True)
class Pruned:
    """What was removed.

    :param payloads: of dead letters; their lines stay.
    :param snapshots: deliveries whose rows were dropped.
    :param deliveries: removed with all their outcomes.
    :param outcomes: the lines of these deliveries.
    :param decisions: lines of the consent log.
    """

    payloads: int = 0
    snapshots: int = 0
    deliveries: int = 0
    outcomes: int = 0
    decisions: int = 0

    def __bool__(self) -> bool:
        return any((self.payloads, self.snapshots, self.deliveries, self.outcomes, self.decisions))


def prune(database: Database, *, now: datetime, kept_for: KeptFor | None = None) -> Pruned:
    """Remove everything past its retention period; each small batch in its own transaction.

    :raises LedgerError: the database could not be used; what was removed before that stays removed.
    """
    pruned = Pruned()
    for _ in _batches(database, pruned, now, kept_for or KeptFor()):
        pass
    return pruned


_done: dict[str, float] = {}
_warned: set[str] = set()


def prune_a_little(
    database: Database,
    *,
    now: datetime,
    kept_for: KeptFor | None = None,
    budget_s: float = 1.0,
) -> Pruned:
    """Remove some of what is past its retention period, when a delivery has ended. Never raises and returns quickly.

    Once nothing is left to remove, this process does not check again for a day.

    :param budget_s: seconds after which no new batch starts.
    """
    pruned, began = Pruned(), time.monotonic()
    if began - _done.get(database.name, -_AGAIN_AFTER_S) < _AGAIN_AFTER_S:
        return pruned
    patience_s, database.patience_s = database.patience_s, 0.0
    try:
        _set_lock_timeout(database, _HURRIED_S)
        for _ in _batches(database, pruned, now, kept_for or KeptFor()):
            if time.monotonic() - began > budget_s:
                break
        else:
            _done[database.name] = began
    except Exception as error:  # noqa: BLE001 - the delivery has ended well; that must stay so
        _done[database.name] = began
        level = logging.DEBUG if database.name in _warned else logging.WARNING
        _warned.add(database.name)
        _log.log(
            level,
            "Old entries of %s could not be removed (%s). Deliveries are not affected. Run: airflow regal ledger prune",
            database.name, error,
        )  # fmt: skip
    finally:
        database.patience_s = patience_s
        with suppress(Exception):
            _set_lock_timeout(database, LOCK_TIMEOUT_S)
    if pruned:
        _log.debug("Removed from %s: %s", database.name, pruned)
    return pruned


def _set_lock_timeout(database: Database, seconds: float) -> None:
    """Set how long this session waits for locks."""
    statement = _LOCK_TIMEOUTS[database.dialect].format(seconds=max(int(seconds), 1), milliseconds=int(seconds * 1_000))
    database.read(lambda connection: connection.exec_driver_sql(statement).close())


def _batches(database: Database, pruned: Pruned, now: datetime, kept_for: KeptFor) -> Iterator[None]:
    """Remove batch after batch, with a pause after each."""
    letters_before = to_ledger_time(now - timedelta(days=kept_for.dead_letter_days))
    history_before = to_ledger_time(now - timedelta(days=kept_for.history_days))
    plans_before = to_ledger_time(now - timedelta(days=kept_for.plan_days))
    for number in _numbers(database, select(_d.id).where((_d.state == PLANNED) & (_d.ended_at < plans_before))):
        if database.write(partial(_expire, number=number, before=plans_before)):
            pruned.snapshots += 1
            yield
    while removed := database.write(partial(_drop_payloads, before=letters_before)):
        pruned.payloads += removed
        yield
    for number in _numbers(database, _with_old_rows(letters_before)):
        if database.write(partial(_give_up, number=number, before=letters_before, now=now)):
            pruned.snapshots += 1
            yield
    for number in _numbers(database, _given_up()):
        while database.write(partial(_drop_chunks, number=number)):
            yield
    is_over = _is_over(history_before, letters_before)
    for number in _numbers(database, select(_d.id).where(is_over).order_by(_d.started_at, _d.id)):
        is_gone: bool | None = None
        while is_gone is None:
            lines, is_gone = database.write(partial(_drop_delivery, number=number, is_over=is_over, now=now))
            pruned.outcomes += lines
            pruned.deliveries += bool(is_gone)
            yield
    if kept_for.consent_days is not None:
        for lines in consent_log.drop_lines(database, to_ledger_time(now - timedelta(days=kept_for.consent_days))):
            pruned.decisions += lines
            yield


def _numbers(database: Database, statement: Any) -> list[int]:
    return database.read(lambda connection: [row[0] for row in connection.execute(statement)])


# What says only that a row had a decision names no one, and is kept as long as the outcome.
_LEFT: Final = case((_o.consents == HAS_DECISION, HAS_DECISION), else_=None)


def _drop_payloads(connection: Connection, before: str) -> int:
    old = select(_o.delivery, _o.position).where(_o.payload.is_not(None) & (_o.last_at < before)).limit(_ROWS_AT_ONCE)
    found: dict[int, list[int]] = {}
    for delivery, position in connection.execute(old):
        found.setdefault(delivery, []).append(position)
    for delivery, positions in sorted(found.items()):
        this = (_o.delivery == delivery) & _o.position.in_(sorted(positions))
        connection.execute(update(schema.outcomes).where(this).values(payload=None, consents=_LEFT))
    return sum(map(len, found.values()))


# -- snapshots --------------------------------------------------------------------------------------------------------


def _quiet_since(before: str) -> Any:
    """Return the condition that nothing was written for a delivery since then."""
    return (
        (_d.started_at < before)
        & or_(_d.ended_at.is_(None), _d.ended_at < before)
        & or_(_d.held_at.is_(None), _d.held_at < before)
    )


def _with_old_rows(before: str) -> Any:
    unfinished = _d.state.in_((READING, SENDING, STOPPED, FAILED)) & (_d.source != DROPPED)
    has_rows = select(_c.delivery).where(_c.delivery == _d.id).exists()
    return select(_d.id).where(_quiet_since(before) & unfinished & has_rows).order_by(_d.id)


def _given_up() -> Any:
    has_rows = select(_c.delivery).where(_c.delivery == _d.id).exists()
    return select(_d.id).where((_d.source == DROPPED) & has_rows).order_by(_d.id)


def _expire(connection: Connection, number: int, before: str) -> bool:
    """Mark a plan as expired, unless a task has just taken it; its rows are removed later."""
    unsent = (_d.id == number) & (_d.state == PLANNED) & (_d.ended_at < before)
    values = {"state": EXPIRED, "source": DROPPED, "error": "No task sent the plan in time; its rows were dropped."}
    return bool(connection.execute(update(schema.deliveries).where(unsent).values(**values)).rowcount)


def _give_up(connection: Connection, number: int, before: str, now: datetime) -> bool:
    """Mark a delivery as not resumable, unless a try holds it; its rows are removed later.

    Rows that an earlier try had reserved and never settled are unknown from now on.
    """
    found = connection.execute(RECORD.where((_d.id == number) & _quiet_since(before)).with_for_update()).first()
    if found is None or is_live(Record(*found), now):
        return False
    record = Record(*found)
    reserved = _settle_reserved(connection, record, now) if record.kept_rows is not None else 0
    counts = Counts.of(record)
    counts.unknown_of_outage += reserved
    left = record.read_rows - (record.acknowledged + record.rejected + record.unknown + record.skipped) - reserved
    values: dict[str, Any] = {
        "source": DROPPED, "holder": None, "unknown": record.unknown + reserved, "counts": counts.to_json(),
    }  # fmt: skip
    if record.state != FAILED:
        if record.kept_rows is None:
            error = "No try came back to read the source again; nothing was sent."
        else:
            rows = "1 row was" if left == 1 else f"{left:,} rows were"
            error = f"No try resumed it in time: {rows} never sent and not kept."
        values |= {"state": STOPPED, "error": error, "ended_at": record.ended_at or to_ledger_time(now)}
    connection.execute(update(schema.deliveries).where(_d.id == number).values(**values))
    lose_tries(connection, record._replace(unknown=record.unknown + reserved))
    return True


def _settle_reserved(connection: Connection, record: Record, now: datetime) -> int:
    chunks = select(_c.chunk, _c.states).where(_c.delivery == record.id)
    moment, count = to_ledger_time(now), 0
    for chunk, states in connection.execute(chunks).fetchall():
        reserved = [state == RowState.RESERVED for state in bytes(states)]
        if not any(reserved):
            continue
        one = select(_c.rows).where((_c.delivery == record.id) & (_c.chunk == chunk))
        encoded = bytes(connection.execute(one).scalar_one())
        lines = [
            line_of(
                position=position, place=row.get("$origin"), call=record.call, event=None, user_id=None, phone=None,
                email=None, status="unknown", reason="worker died", field=None,
                message="the worker died while it was being sent; look for it in Regal", attempts=1,
                first_at=record.held_at or moment, last_at=moment, payload_hash=None,
            )
            for number, position, row in decode_chunk(encoded)
            if reserved[number]
        ]  # fmt: skip
        write_outcomes(connection, record.id, record.account, lines)
        count += len(lines)
    return count


def _drop_chunks(connection: Connection, number: int) -> int:
    chunks = select(_c.chunk).where(_c.delivery == number).order_by(_c.chunk).limit(_CHUNKS_AT_ONCE)
    found = [row[0] for row in connection.execute(chunks)]
    if found:
        connection.execute(delete(schema.row_chunks).where((_c.delivery == number) & (_c.chunk <= found[-1])))
    return len(found)


# -- history ----------------------------------------------------------------------------------------------------------


def _is_over(history_before: str, letters_before: str) -> Any:
    """Return the condition that a delivery's history is past its retention."""
    can_resume = _d.state.in_((READING, SENDING, STOPPED)) & (_d.source != DROPPED)
    return _quiet_since(history_before) & (_d.state != PLANNED) & (~can_resume | _quiet_since(letters_before))


def _drop_delivery(connection: Connection, number: int, is_over: Any, now: datetime) -> tuple[int, bool | None]:
    """Remove some outcomes of a delivery, and the delivery itself with the last of them.

    :returns: how many outcomes, and whether the delivery was removed; None while outcomes are left.
    """
    found = connection.execute(RECORD.where((_d.id == number) & is_over).with_for_update()).first()
    if found is None or is_live(Record(*found), now):
        return 0, False
    if _drop_chunks(connection, number):
        return 0, None
    lines = select(_o.position).where(_o.delivery == number).order_by(_o.position).limit(_ROWS_AT_ONCE)
    positions = [row[0] for row in connection.execute(lines)]
    if positions:
        connection.execute(delete(schema.outcomes).where((_o.delivery == number) & (_o.position <= positions[-1])))
    if len(positions) == _ROWS_AT_ONCE:
        return len(positions), None
    connection.execute(delete(schema.tries).where(schema.tries.c.delivery == number))
    connection.execute(delete(schema.deliveries).where(_d.id == number))
    return len(positions), True


# -- size -------------------------------------------------------------------------------------------------------------


class TableStats(NamedTuple):
    """A table of the ledger.

    :param size: bytes including indexes; None if the database does not report it.
    """

    name: str
    rows: int
    size: int | None


class LedgerStats(NamedTuple):
    """The size of the ledger.

    :param size: bytes of the file with its write-ahead log, or of all tables; None if the database does not report it.
    """

    tables: list[TableStats]
    size: int | None


def read_stats(database: Database) -> LedgerStats:
    """Return the number of rows and the size of each table."""
    tables = schema.metadata.sorted_tables
    names = [table.name for table in tables]
    rows = {table.name: database.read(partial(_count, table=table)) for table in tables}
    sizes = _sizes(database, names)
    if database.file is not None:
        total: int | None = _size_of_file(database.file)
    else:
        total = sum(sizes.values()) if sizes else None
    found = [TableStats(name, rows[name], sizes.get(name)) for name in names]
    return LedgerStats(sorted(found, key=lambda one: (-(one.size or 0), -one.rows, one.name)), total)


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


_SIZES: Final = {
    "postgresql": "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE oid = ANY(ARRAY({}))",
    "mysql": (
        "SELECT table_name, data_length + index_length FROM information_schema.tables WHERE table_schema = DATABASE()"
    ),
    # Including indexes; few builds of SQLite support this.
    "sqlite": "SELECT m.tbl_name, SUM(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name GROUP BY 1",
}


def _sizes(database: Database, names: list[str]) -> dict[str, int]:
    if database.dialect == "postgresql":
        regclasses = " UNION ALL ".join(f"SELECT to_regclass('{name}')::oid" for name in names)
        statement = _SIZES["postgresql"].format(regclasses)
    else:
        statement = _SIZES["mysql" if database.dialect == "mariadb" else database.dialect]

    def read(connection: Connection) -> dict[str, int]:
        try:
            found = Counter[str]()
            for name, size in connection.execute(text(statement)):
                found[name] += int(size or 0)
        except SQLAlchemyError:
            return {}
        return {name: found[name] for name in names if name in found}

    return database.read(read)


def _size_of_file(file: str) -> int:
    size = 0
    for suffix in ("", "-wal"):
        with suppress(OSError):
            size += Path(file + suffix).stat().st_size
    return size
