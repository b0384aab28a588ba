"""Outcomes: one line per row that was sent, rejected or is unknown; with the payload while it is a dead letter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import batches, raw_rows
from airflow_provider_regal.ledger.rows import storable, untagged
from airflow_provider_regal.ledger.schema import LONGEST_MESSAGE, deliveries, outcomes
from airflow_provider_regal.ledger.text import LONGEST_KEY, LONGEST_NAME, fit
from airflow_provider_regal.ledger.upserts import write_rows

_PAGE: Final = 500
_STREAMED: Final = 1_000


class OutcomeLine(NamedTuple):
    """One line, in the order of the table's columns after delivery and account.

    :param position: the row's number in the source, from 1.
    :param place: file and line, if the source is a file.
    :param status: ``acknowledged``, ``rejected`` or ``unknown``.
    :param reason: a code to group by, such as ``invalid`` or ``HTTP 400``.
    :param field: the field at fault, if one is.
    :param message: what is wrong, without values.
    :param attempts: requests made for it in this try.
    :param payload_hash: of a dead letter; lets a later delivery recognize a row that was rejected before.
    :param form: the kind of payload: ``body`` in Regal's format, ``event`` as written, ``row`` of a table, ``consent``
        (a row of a sync), or ``unreadable``.
    :param payload: JSON of what was, or would have been, sent; only of a dead letter.
    :param consents: JSON of what else a redelivery needs and the payload does not contain.
    """

    position: int
    place: str | None
    call: str
    event: str | None
    user_id: str | None
    phone: str | None
    email: str | None
    status: str
    reason: str | None
    field: str | None
    message: str | None
    attempts: int
    first_at: str
    last_at: str
    payload_hash: str | None
    form: str | None = None
    payload: str | None = None
    consents: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected or unknown row that can be redelivered.

    :param delivery: its delivery.
    :param payload: a dictionary, see ``form`` of :class:`OutcomeLine`; values have their original types.
    :param consents: claims that the payload does not contain.
    :param contact: the contact's key in the ledger.
    :param first_at: when it was first tried, or rejected.
    :param taken_by: the delivery that has taken it.
    """

    delivery: int
    position: int
    place: str | None
    call: str
    event: str | None
    status: str
    reason: str
    message: str
    form: str
    payload: dict[str, Any]
    consents: list[list[Any]]
    contact: str | None
    first_at: str
    taken_by: int | None


#: A new line of a row is about another request: what somebody found of the earlier one is no longer true.
_COLUMNS: Final = ("delivery", "account", *OutcomeLine._fields, "found_at")
_o = outcomes.c
#: A row whose payload is kept, and that no one found at Regal.
IS_LETTER: Final = _o.payload.is_not(None) & _o.found_at.is_(None)
_LETTERS: Final = (
    select(
        _o.delivery, _o.position, _o.place, _o.call, _o.event, _o.status, _o.reason, _o.message, _o.form, _o.payload,
        _o.consents, _o.first_at, _o.redelivered_by,
    )
    .where(IS_LETTER)
    .order_by(_o.delivery, _o.position)
)  # fmt: skip
_REASONS: Final = select(_o.status, _o.reason, _o.message, _o.position).where(
    (_o.delivery == bindparam("delivery")) & (_o.status != "acknowledged")
)

_CODES: Final = (
    select(_o.status, _o.reason, func.count())
    .where((_o.delivery == bindparam("delivery")) & _o.status.in_(("rejected", "unknown")))
    .group_by(_o.status, _o.reason)
)


def write_outcomes(connection: Connection, delivery: int, account: str, lines: Sequence[OutcomeLine]) -> None:
    """Write lines; a later line of a row replaces the earlier one."""
    newest = {line.position: line for line in lines}
    acknowledged, others = list[Any](), list[Any]()
    for line in newest.values():  # written separately, since successful rows leave most columns empty
        (acknowledged if line.status == "acknowledged" else others).append((delivery, account, *line, None))
    write_rows(connection, outcomes, _COLUMNS, acknowledged, "replace")
    write_rows(connection, outcomes, _COLUMNS, others, "replace")


def remove_lines(connection: Connection, delivery: int, positions: Collection[int]) -> None:
    """Remove the lines of rows."""
    for some in batches(sorted(positions), _PAGE):
        connection.execute(outcomes.delete().where((_o.delivery == delivery) & _o.position.in_(some)))


def reasons_of(connection: Connection, delivery: int) -> Counter[str]:
    """Count the rejected and unknown rows of a delivery by their reason."""
    counted: Counter[str] = Counter()
    for status, reason, message, _ in connection.execute(_REASONS, {"delivery": delivery}):
        counted[cause_of(status, reason, message)] += 1
    return counted


def codes_of(connection: Connection, delivery: int) -> Counter[tuple[str, str]]:
    """Count the rejected and unknown rows of a delivery by status and reason: a few codes, without the messages."""
    found = connection.execute(_CODES, {"delivery": delivery})
    return Counter({(status, reason or ""): rows for status, reason, rows in found})


def cause_of(status: str, reason: str | None, message: str | None) -> str:
    """Return a reason to group by: the first fault of an invalid row, else what happened."""
    return (message or "").partition("; ")[0] if reason == "invalid" else f"{status}, {reason}"


#: ``consents`` of a rejected row that has a decision on consent.
HAS_DECISION: Final = '{"decides": true}'


def encoded(payload: Mapping[str, Any]) -> str:
    """Encode the payload of a dead letter; types that JSON lacks are tagged."""
    return json.dumps(storable(payload, 1))


def line_of(
    *,
    place: str | None,
    event: str | None,
    reason: str | None,
    field: str | None,
    message: str | None,
    **rest: Any,
) -> OutcomeLine:
    """Make a line, with its texts cut to fit their columns."""
    return OutcomeLine(
        place=place and fit(place, LONGEST_NAME),
        event=event and fit(event, LONGEST_NAME),
        reason=reason and fit(reason, LONGEST_KEY),
        field=field and fit(field, LONGEST_KEY),
        message=message and fit(message, LONGEST_MESSAGE),
        **rest,
    )


class OutcomeRow(NamedTuple):
    """The outcome of one row: a line of ``regal_outcomes`` without its payload.

    Phones, emails and user ids are in stored form: hashes if ``[regal] ledger_key`` is set.

    :param position: the row's number in the source, from 1.
    :param place: file and line, if the source is a file.
    :param redelivered_by: the delivery that has sent it again.
    :param found_at: when somebody reported that Regal has this unknown row.
    :param is_dead_letter: its payload is kept, and it can be redelivered; a rejected row of a sync can't.
    """

    delivery: int
    position: int
    account: str
    place: str | None
    call: str
    event: str | None
    user_id: str | None
    phone: str | None
    email: str | None
    status: str
    reason: str | None
    field: str | None
    message: str | None
    attempts: int
    first_at: str
    last_at: str
    redelivered_by: int | None
    found_at: str | None
    is_dead_letter: bool

    @property
    def where(self) -> str:
        """File and line, or the number of the row."""
        return self.place or f"row {self.position:,}"


#: The form of a rejected row of a sync, which can't be redelivered.
SYNC_ROW: Final = "consent"
IS_DEAD_LETTER: Final = IS_LETTER & (func.coalesce(_o.form, "") != SYNC_ROW)
OUTCOME: Final = [*(_o[name] for name in OutcomeRow._fields[:-1]), IS_DEAD_LETTER.label("is_dead_letter")]


def outcomes_of(
    database: Database, delivery: int, *, statuses: Collection[str] = (), reason: str | None = None
) -> Iterator[OutcomeRow]:
    """Stream the outcomes of a delivery's rows, in source order and in constant memory.

    Skipped rows are only counted and have no line.

    :param statuses: only these; none means all.
    :param reason: only this reason, or messages that begin with it.
    """
    statement = select(*OUTCOME).where(_o.delivery == delivery).order_by(_o.position).limit(_STREAMED)
    if statuses:
        statement = statement.where(_o.status.in_(sorted(statuses)))
    if reason is not None:
        statement = statement.where((_o.reason == reason) | _o.message.startswith(reason, autoescape=True))
    last = -1
    while True:
        page = [outcome_row(row) for row in database.read(partial(_all, statement=statement.where(_o.position > last)))]
        yield from page
        if len(page) < _STREAMED:
            return
        last = page[-1].position


def outcome_row(row: Sequence[Any]) -> OutcomeRow:
    """Make a row from the columns of ``OUTCOME``."""
    return OutcomeRow._make((*row[:-1], bool(row[-1])))


def _all(connection: Connection, statement: Any) -> list[Any]:
    return [*connection.execute(statement)]


class Selection(NamedTuple):
    """A filter for dead letters.

    :param deliveries: ids of deliveries.
    :param since: those that first failed at this time (of the ledger) or later.
    :param until: those that first failed before this time.
    :param reason: the reason, or the beginning of the message.
    :param positions: of the rows in their deliveries; empty for all.
    """

    account: str
    deliveries: Sequence[int] = ()
    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    since: str | None = None
    until: str | None = None
    reason: str | None = None
    status: Sequence[str] = ("rejected",)
    positions: Collection[int] = ()


def read_letters(connection: Connection, chosen: Selection) -> list[tuple[int, int, int | None, str]]:
    """List dead letters, oldest first: delivery, position, the delivery that has taken it, status."""
    d = deliveries.c
    statement = (
        select(_o.delivery, _o.position, _o.redelivered_by, _o.status)
        .select_from(outcomes.join(deliveries, d.id == _o.delivery))
        .where(IS_LETTER & (d.account == chosen.account))
        .order_by(_o.first_at, _o.delivery, _o.position)
    )
    if chosen.deliveries:
        statement = statement.where(_o.delivery.in_(chosen.deliveries))
    for column, wanted in ((d.dag_id, chosen.dag_id), (d.task_id, chosen.task_id), (d.run_id, chosen.run_id)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if chosen.since is not None:
        statement = statement.where(_o.first_at >= chosen.since)
    if chosen.until is not None:
        statement = statement.where(_o.first_at < chosen.until)
    if chosen.reason is not None:
        statement = statement.where(
            (_o.reason == chosen.reason) | _o.message.startswith(chosen.reason, autoescape=True)
        )
    # Not in the statement: databases limit the number of values.
    wanted_rows = frozenset(chosen.positions)
    return [tuple(row) for row in connection.execute(statement) if not wanted_rows or row.position in wanted_rows]


def letters(connection: Connection, keys: Sequence[tuple[int, int]]) -> Iterator[DeadLetter]:
    """Read dead letters by delivery and position, in the given order."""
    found: dict[tuple[int, int], DeadLetter] = {}
    for delivery in {delivery for delivery, _ in keys}:
        for some in batches(sorted(position for one, position in keys if one == delivery), _PAGE):
            statement = _LETTERS.where((_o.delivery == delivery) & _o.position.in_(some))
            for row in connection.execute(statement):
                found[row.delivery, row.position] = _letter(row)
    return (found[key] for key in keys if key in found)


def _letter(row: Any) -> DeadLetter:
    more = json.loads(row.consents) if row.consents else {}
    return DeadLetter(
        row.delivery, row.position, row.place, row.call, row.event, row.status, row.reason, row.message or "",
        row.form or "body", json.loads(row.payload, object_hook=untagged), more.get("claims", []),
        more.get("contact"), row.first_at,
        row.redelivered_by,
    )  # fmt: skip


def take_letters(
    connection: Connection, by: int, keys: Sequence[tuple[int, int]], *, takers: Collection[int] = ()
) -> set[tuple[int, int]]:
    """Take dead letters for a redelivery, except those taken by another one; return those that are ours now.

    :param takers: letters taken by these deliveries are available.
    """
    free: Any = _o.redelivered_by.is_(None)
    if takers:
        free |= _o.redelivered_by.in_(sorted(takers))
    ours: set[tuple[int, int]] = set()
    for delivery, position in keys:
        this = (_o.delivery == delivery) & (_o.position == position) & IS_LETTER
        changed = connection.execute(update(outcomes).where(this & free).values(redelivered_by=by))
        if changed.rowcount:
            ours.add((delivery, position))
    return ours


def redelivered(connection: Connection, delivery: int) -> dict[int, int]:
    """Return the dead letters of a delivery that redeliveries have taken: position -> delivery."""
    statement = select(_o.position, _o.redelivered_by).where((_o.delivery == delivery) & _o.redelivered_by.is_not(None))
    return {int(position): int(by) for position, by in raw_rows(connection, statement, {})}
