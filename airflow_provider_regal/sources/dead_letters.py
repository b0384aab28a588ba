"""Return dead letters as rows, to be sent again under the same rules as any other row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.events.models import EVENTS, Page
from airflow_provider_regal.events.names import NAME
from airflow_provider_regal.ledger.account import Account, age_s
from airflow_provider_regal.ledger.deliveries import Record
from airflow_provider_regal.ledger.entries import batches
from airflow_provider_regal.ledger.outcomes import DeadLetter, Selection, letters, read_letters, take_letters
from airflow_provider_regal.ledger.schema import deliveries
from airflow_provider_regal.sources import BadSourceError
from airflow_provider_regal.sources.marks import (
    CALL_MARK,
    CLAIMS_MARK,
    EVENT_MARK,
    FORCE_MARK,
    LEDGER_KEY_MARK,
    LETTER_TIME_MARK,
    ONLY_CONSENT_MARK,
    ORIGIN_MARK,
    ROW_MARK,
    Marked,
)

_log = logging.getLogger(__name__)

Fix = Callable[[dict[str, Any]], Mapping[str, Any] | None]
Letter = tuple[int, int]  # delivery, position

STATUSES: Final = ("rejected", "unknown")
_UNREADABLE: Final = "could not be read when they were delivered: fix them with fix=, or deliver their source again"
_CONSENT: Final = "rows of an opt-in sync: run the sync again, it tries what was rejected"
_TAKEN: Final = "has taken them"
_AT_ONCE: Final = 500
_ROWS_NAMED: Final = 20


T = TypeVar("T")


class DeliveryInProgress(Protocol):
    """The delivery that reads the source: it takes over dead letters, or only reads them in a dry run."""

    @property
    def id(self) -> int:
        """Its id."""

    @property
    def record(self) -> Record:
        """Its record in the ledger."""

    @property
    def account(self) -> Account:
        """The ledger of the account."""

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read from the ledger."""

    def write(self, work: Callable[[Connection], object]) -> None:
        """Run work in a transaction, if this try still holds the delivery."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters are sent again, and how.

    :param fix: receives the payload of a letter (or the row, if it could not be mapped) and returns what to send; None
        to leave the letter where it is.
    :param allow_empty: do not fail if no letter matches.
    """

    selection: Selection
    fix: Fix | None = None
    allow_empty: bool = False


def read_dead_letters(
    held: DeliveryInProgress,
    choice: Choice,
    *,
    looks_only: bool = False,
    limit: int | None = None,
    restarts: bool = False,
) -> Iterator[Marked]:
    """Take over dead letters and return them as rows, oldest first.

    :param held: the redelivery; a letter is taken in the same transaction that checks that the redelivery is still
        held.
    :param looks_only: take over nothing.
    :param limit: the maximum number of letters.
    :param restarts: also take what earlier deliveries of the same task have taken.
    :raises FixSourceError: no letter matches.
    :raises BadSourceError: ``fix`` failed.
    """
    left, calls = Counter[str](), Counter[str]()
    free, mine = _free_letters(held, choice, left, restarts=restarts)
    taken, rows = 0, list[Marked]()
    for some in batches(free, _AT_ONCE):
        yield from rows
        wanted = [
            (letter, payload)
            for letter in held.read(partial(letters, keys=some))
            if (payload := _what_to_send(letter, choice.fix, left)) is not None
        ]
        if limit is not None:
            wanted = wanted[: limit - taken]
        ours = {(one.delivery, one.position) for one, _ in wanted}
        if not looks_only:
            ours = _take(held, sorted(ours), mine)
        rows = [_row(one, payload) for one, payload in wanted if (one.delivery, one.position) in ours]
        calls.update(one.status for one, _ in wanted if (one.delivery, one.position) in ours)
        left[f"another redelivery {_TAKEN}"] += len(wanted) - len(rows)
        taken += len(rows)
        if limit is not None and taken >= limit:
            break
    _report_left(left)  # before the last rows: after the limit, the caller requests no more
    if unknown := calls["unknown"]:
        _log.warning("%s unknown rows are sent again, as asked: people may be reached twice", f"{unknown:,}")
    yield from rows


def _free_letters(
    held: DeliveryInProgress, choice: Choice, left: Counter[str], *, restarts: bool
) -> tuple[list[Letter], Mapping[int, str | None]]:
    """Return the matching letters that are not taken, and the deliveries whose letters are available, too."""
    found = held.read(lambda connection: read_letters(connection, choice.selection))
    statuses, free = set(choice.selection.status), list[Letter]()
    mine = _may_take_from(held, {by for _, _, by, _ in found if by is not None}, restarts=restarts)
    for delivery, position, by, status in found:
        if status not in statuses:
            left[f"{status}, which was not asked for"] += 1
        elif by is not None and by not in mine:
            left[f"delivery {by} {_TAKEN}"] += 1
        elif delivery != held.id:
            free.append((delivery, position))
    if not free and not choice.allow_empty:
        _report_left(left)
        raise FixSourceError(
            f"No dead letter matches ({_described(choice.selection)}); nothing was sent. List deliveries with: airflow "
            "regal deliveries. If there may be none, set allow_empty."
        )
    return free, mine


def _take(held: DeliveryInProgress, keys: Sequence[Letter], mine: Mapping[int, str | None]) -> set[Letter]:
    taken: set[Letter] = set()
    seen = {taker: held_at for taker, held_at in mine.items() if held_at is not None}

    def work(connection: Connection) -> None:
        taken.clear()
        alive = seen.keys() - _ended(connection, seen)
        taken.update(take_letters(connection, held.id, keys, takers=mine.keys() - alive))

    held.write(work)
    return taken


def _ended(connection: Connection, seen: Mapping[int, str]) -> set[int]:
    """End redeliveries that seem dead, so that a slow one can't send anything anymore; return those that ended."""
    d = deliveries.c
    for taker, held_at in seen.items():
        as_seen = (d.id == taker) & d.kept_rows.is_(None) & (d.held_at == held_at)
        connection.execute(update(deliveries).where(as_seen).values(holder=None))
    ended = select(d.id).where(d.id.in_(sorted(seen)) & d.holder.is_(None) & d.kept_rows.is_(None))
    return set(connection.execute(ended).scalars())


def _may_take_from(held: DeliveryInProgress, takers: Collection[int], *, restarts: bool) -> dict[int, str | None]:
    """Return the deliveries that have taken letters and will not send them.

    The value is the last sign of life of a delivery that has to be ended first, else None.
    """
    if not takers:
        return {held.id: None}
    d, me = deliveries.c, held.record
    wanted = select(d.id, d.kept_rows, d.holder, d.held_at, d.hold_s, d.dag_id, d.run_id, d.task_id, d.map_index)
    found = held.read(lambda connection: connection.execute(wanted.where(d.id.in_(sorted(takers)))).fetchall())
    now = held.account.now()
    free: dict[int, str | None] = {held.id: None}
    for row in found:
        let_go = row.holder is None or (row.held_at is not None and age_s(row.held_at, now) > row.hold_s)
        never_read = row.kept_rows is None  # so nothing was sent
        same_task = (row.dag_id, row.run_id, row.task_id, row.map_index) == (
            me.dag_id, me.run_id, me.task_id, me.map_index
        )  # fmt: skip
        if restarts and same_task:
            free[row.id] = None
        elif never_read and let_go:
            free[row.id] = row.held_at
    return free


def _what_to_send(letter: DeadLetter, fix: Fix | None, left: Counter[str]) -> Mapping[str, Any] | None:
    """Return the fixed content of a letter; None if it stays where it is."""
    if letter.form == "consent":
        left[_CONSENT] += 1
        return None
    if letter.form == "unreadable" and fix is None:
        left[_UNREADABLE] += 1
        return None
    if letter.consents or fix is None:  # the person and channel of a consent must not be changed
        return dict(letter.payload)
    where = f"row {letter.position:,} of delivery {letter.delivery}"
    try:
        payload = fix(dict(letter.payload))
    except Exception as error:
        raise BadSourceError(f"fix failed on {where} ({type(error).__name__}); its letter stays as it is.") from error
    if payload is None:
        left["left out by fix"] += 1
        return None
    if not isinstance(payload, Mapping):
        raise BadSourceError(
            f"fix must return a dictionary, or None to leave the letter; on {where} it returned a "
            f"{type(payload).__name__}."
        )
    return payload


def _report_left(left: Counter[str]) -> None:
    for why, count in (+left).items():
        letters_ = "1 dead letter stays where it is" if count == 1 else f"{count:,} dead letters stay where they are"
        level = logging.INFO if why.endswith(_TAKEN) else logging.WARNING
        _log.log(level, "%s: %s", letters_, why)


def _described(selection: Selection) -> str:
    told = {
        "deliveries": ", ".join(map(str, selection.deliveries)),
        "dag": selection.dag_id,
        "task": selection.task_id,
        "run": selection.run_id,
        "since": selection.since,
        "until": selection.until,
        "reason": selection.reason,
        "rows": ", ".join(map(str, sorted(selection.positions)[:_ROWS_NAMED])),
        "status": ", ".join(selection.status),
    }
    return "; ".join(f"{name} {value}" for name, value in told.items() if value)


def _row(letter: DeadLetter, payload: Mapping[str, Any]) -> Marked:
    marks: dict[str, Any] = {
        ORIGIN_MARK: _origin(letter),
        FORCE_MARK: letter.status == "unknown",
        LETTER_TIME_MARK: letter.first_at,
        LEDGER_KEY_MARK: letter.contact,
    }
    if letter.consents:
        marks |= {CLAIMS_MARK: letter.consents, ONLY_CONSENT_MARK: True}
    if letter.form in ("row", "unreadable"):
        named = {"event": letter.event} if letter.call == "track" and letter.event is not None else {}
        return Marked({**marks, CALL_MARK: letter.call, ROW_MARK: {**named, **payload}})
    return Marked({**marks, EVENT_MARK: letter.call, ROW_MARK: _written(letter, payload)})


def _origin(letter: DeadLetter) -> str:
    """Return where a letter comes from; if it was redelivered before, its original place."""
    if letter.place is not None and letter.place.startswith("delivery "):
        return letter.place
    return f"delivery {letter.delivery} {letter.place or f'row {letter.position:,}'}"


def _written(letter: DeadLetter, payload: Mapping[str, Any]) -> dict[str, Any]:
    kind = EVENTS[letter.call]
    if letter.form == "body" and issubclass(kind, Page):  # the page's name is in the properties
        return {key: value for key, value in payload.items() if key != NAME}
    return dict(payload)
