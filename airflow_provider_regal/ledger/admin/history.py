"""Query the ledger: deliveries, the outcomes of their rows, and everything on record about one person.

This module only reads, and streams large results.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import func, inspect, literal_column, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from airflow_provider_regal.events.identifiers import read_email, read_phone, read_user_id
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import age_s
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import FAILED, PLANNED, READING, RECORD, SENDING, STOPPED, Record
from airflow_provider_regal.ledger.formats import task_name
from airflow_provider_regal.ledger.outcomes import (
    HAS_DECISION,
    IS_LETTER,
    OUTCOME,
    SYNC_ROW,
    OutcomeRow,
    cause_of,
    outcome_row,
)
from airflow_provider_regal.ledger.people import consent_log
from airflow_provider_regal.ledger.people.consent_log import LogLine
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.rows import decode_chunk, untagged
from airflow_provider_regal.ledger.states import OUTCOMES, Outcome, RowState
from airflow_provider_regal.ledger.text import LONGEST_NAME, short, to_ledger_time

_PAGE: Final = 1_000
_LETTERS_AT_ONCE: Final = 200
_DEEPEST: Final = 8
#: Deliveries in these states may have rows that were not sent.
UNFINISHED: Final = (READING, SENDING, STOPPED, FAILED, PLANNED)
SCANNED_ROWS: Final = 1_000_000
_LONGEST: Final = timedelta(days=7)
#: Rows that were not delivered. The status is a literal in the statement: the partial index requires it.
NOT_ACKNOWLEDGED: Final = schema.outcomes.c.status != literal_column(f"'{Outcome.ACKNOWLEDGED.value}'")
_o, _d = schema.outcomes.c, schema.deliveries.c

# -- deliveries -------------------------------------------------------------------------------------------------------


def list_deliveries(
    database: Database,
    *,
    account: str | None = None,
    dag_id: str | None = None,
    task_id: str | None = None,
    run_id: str | None = None,
    states: Collection[str] = (),
    since: str | None = None,
    limit: int = 50,
) -> list[Record]:
    """List deliveries, newest first.

    :param since: those that started at this time (of the ledger) or later.
    """
    statement = RECORD.order_by(_d.started_at.desc(), _d.id.desc()).limit(limit)
    for column, wanted in ((_d.dag_id, dag_id), (_d.task_id, task_id), (_d.run_id, run_id)):
        if wanted is not None:
            statement = statement.where(column == short(wanted, LONGEST_NAME))
    if account is not None:
        statement = statement.where(_d.account == short(account))
    if states:
        statement = statement.where(_d.state.in_(sorted(states)))
    if since is not None:
        statement = statement.where(_d.started_at >= since)
    return database.read(lambda connection: [Record(*row) for row in connection.execute(statement)])


class Reason(NamedTuple):
    """A reason why rows of a delivery were not delivered, and their number.

    :param reason: what they have in common, such as ``rejected, HTTP 400`` or ``phone: not a phone number``.
    """

    status: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class DeliveryDetail:
    """A delivery, with the reasons of its rejected and unknown rows, most frequent first."""

    record: Record
    reasons: list[Reason]


def find_delivery(database: Database, number: int) -> DeliveryDetail | None:
    """Find one delivery and count the reasons why rows of it were not delivered."""

    def read(connection: Connection) -> DeliveryDetail | None:
        found = connection.execute(RECORD.where(_d.id == number)).first()
        return None if found is None else DeliveryDetail(Record(*found), _reasons(connection, number))

    return database.read(read)


def _reasons(connection: Connection, delivery: int) -> list[Reason]:
    statement = (
        select(_o.status, _o.reason, _o.message, func.count())
        .where((_o.delivery == delivery) & NOT_ACKNOWLEDGED)
        .group_by(_o.status, _o.reason, _o.message)
    )
    counted: Counter[tuple[str, str]] = Counter()
    for status, reason, message, rows in connection.execute(statement):
        counted[status, cause_of(status, reason, message)] += rows
    return [Reason(status, reason, rows) for (status, reason), rows in counted.most_common()]


def is_live(record: Record, now: datetime) -> bool:
    """Return whether a try holds the delivery and has committed so recently that it counts as running."""
    return record.holder is not None and record.held_at is not None and age_s(record.held_at, now) <= record.hold_s


def running_deliveries(database: Database) -> list[int]:
    """List the running deliveries: a try holds them and has committed recently."""
    now = database.now()
    found = _all(database, RECORD.where(_d.holder.is_not(None) & (_d.started_at >= to_ledger_time(now - _LONGEST))))
    return [record.id for record in map(Record._make, found) if is_live(record, now)]


# -- what became of rows ----------------------------------------------------------------------------------------------


def _all(database: Database, statement: Any) -> list[Any]:
    return database.read(lambda connection: [*connection.execute(statement)])


class Unknowns(NamedTuple):
    """Unknown rows that were neither redelivered nor found at Regal."""

    rows: int
    oldest_at: str | None
    delivery: int | None


def unknown_rows(database: Database, account: str | None = None) -> Unknowns:
    """Count the unknown rows whose payload is kept, and find the oldest one."""
    wanted = IS_LETTER & (_o.status == Outcome.UNKNOWN.value) & _o.redelivered_by.is_(None)
    if account is not None:
        wanted = wanted & (_o.account == short(account))
    counting = select(func.count(), func.min(_o.first_at)).where(wanted)

    def read(connection: Connection) -> Unknowns:
        rows, oldest_at = connection.execute(counting).one()
        first = select(func.min(_o.delivery)).where(wanted & (_o.first_at == oldest_at))
        return Unknowns(rows, oldest_at, connection.execute(first).scalar() if rows else None)

    return database.read(read)


# -- accounts ---------------------------------------------------------------------------------------------------------


class AccountRow(NamedTuple):
    """An account that uses the ledger.

    :param identifiers: how they are stored: ``plain``, or the mark of a ledger key.
    """

    account: str
    identifiers: str | None
    deliveries: int


def list_accounts(database: Database) -> list[AccountRow]:
    """List the accounts of the ledger, with their deliveries."""
    a = schema.accounts.c
    statement = (
        select(a.account, a.identifiers, func.count(_d.id))
        .select_from(schema.accounts.outerjoin(schema.deliveries, _d.account == a.account))
        .group_by(a.account, a.identifiers)
        .order_by(a.account)
    )
    return database.read(lambda connection: [AccountRow(*row) for row in connection.execute(statement)])


def read_schema_version(database: Database) -> int | None:
    """Return the version of the ledger's tables; None if they don't exist."""

    def read(connection: Connection) -> int | None:
        if not inspect(connection).has_table(schema.schema_version.name):
            return None
        version: int | None = connection.execute(select(schema.schema_version.c.version)).scalar()
        return version

    return database.read(read)


# -- one person -------------------------------------------------------------------------------------------------------


class PersonOutcome(NamedTuple):
    """The outcome of a row about one person.

    :param task: the task that delivered it, if that is on record.
    :param found_in: the field of the kept payload that matched; None if the line names the person.
    """

    at: str
    row: OutcomeRow
    task: str | None
    run_id: str | None
    found_in: str | None = None


class ConsentNow(NamedTuple):
    """The consent on record for one phone or email on one channel.

    :param subscribed: what Regal last acknowledged: 1, 0, or None for nothing.
    :param evidence_at: when the person made that decision.
    :param opt_out_at: time of the newest opt-out that was read, whether Regal has it or not.
    :param pending_subscribed: the decision that is being sent, or is unknown.
    """

    account: str
    identifier: str
    channel: str
    subscribed: int | None
    evidence_at: str | None
    opt_out_at: str | None
    state: str
    pending_subscribed: int | None
    pending_at: str | None
    acknowledged_at: str | None
    source: str | None
    changed_at: str | None
    opt_out_source: str | None
    owed_since: str | None

    @property
    def owes_opt_out(self) -> bool:
        """Whether an opt-out is on record that Regal has not acknowledged."""
        return self.owed_since is not None


class ContactNow(NamedTuple):
    """A contact on record for ``only_changed``."""

    account: str
    contact: str
    acknowledged_at: str
    delivery: int | None


class UnsentRow(NamedTuple):
    """A row about one person in an unfinished delivery.

    :param position: its number in the source, from 1.
    :param where: file and line, or the number of the row.
    :param state: ``not sent yet``, or ``may have been sent``.
    :param found_in: the field that matched.
    """

    delivery: int
    position: int
    where: str
    state: str
    found_in: str
    task: str | None
    run_id: str | None
    delivery_state: str


@dataclass(slots=True)
class Person:
    """Everything on record about one person.

    :param outcomes: rows that were sent, rejected or are unknown, oldest first.
    :param decisions: lines of the consent log, oldest first.
    :param unsent: rows that unfinished deliveries still hold.
    :param scanned_rows: how many rows of unfinished deliveries and dead letters were searched.
    :param scanned_all: whether all such rows were searched.
    :param is_cut: there are more outcomes or decisions than requested; the newest are here.
    """

    outcomes: list[PersonOutcome] = field(default_factory=list)
    decisions: list[LogLine] = field(default_factory=list)
    consents: list[ConsentNow] = field(default_factory=list)
    contacts: list[ContactNow] = field(default_factory=list)
    unsent: list[UnsentRow] = field(default_factory=list)
    scanned_rows: int = 0
    scanned_all: bool = True
    is_cut: bool = False

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.decisions or self.consents or self.contacts or self.unsent)


class Wanted:
    """The person to look for: phones, emails and user ids, each in one canonical spelling.

    A user id that is only digits could match any number in a row, so it is only matched in columns whose name contains
    a word such as id, key, no or number.

    :param given: as people write them. A text may be a phone and a user id at the same time.
    :param phones: use these instead of those found in the texts.
    :param emails: use these instead of those found in the texts.
    :param words_anywhere: match a user id that is only letters, such as ``gold``, in any column, too; False if a
        mistake can't be undone.
    :param is_stored: returns whether a phone, email or user id is one of those known only in stored form.
    """

    def __init__(
        self,
        given: Sequence[str],
        *,
        phones: Sequence[str] | None = None,
        emails: Sequence[str] | None = None,
        words_anywhere: bool = True,
        is_stored: Callable[[str], bool] | None = None,
    ) -> None:
        self.user_ids = sorted({text.strip() for text in given if text.strip()})
        self.phones = sorted(_read(read_phone, self.user_ids) if phones is None else phones)
        self.emails = sorted(_read(read_email, self.user_ids) if emails is None else emails)
        self._is_ambiguous = str.isdigit if words_anywhere else _is_a_word
        self._is_stored = is_stored
        self._ends = tuple(phone[-7:] for phone in self.phones)
        self._ids, self._phones, self._emails = {*self.user_ids}, {*self.phones}, {*self.emails}

    def found_in(self, row: Any) -> str | None:
        """Return the field of a row that identifies the person; None if no field does."""
        return self._search(row, "", 0)

    def _search(self, value: Any, path: str, depth: int) -> str | None:
        if isinstance(value, Mapping):
            if depth > _DEEPEST:
                return None
            for name, inside in value.items():
                if isinstance(name, str) and self._is_address(name):  # Regal's map of phones
                    return path or "a name of a column"
                below = f"{path}.{name}" if path else str(name)
                if (found := self._search(inside, below, depth + 1)) is not None:
                    return found
            return None
        if isinstance(value, (list, tuple)):
            if depth > _DEEPEST:
                return None
            return next((at for inside in value if (at := self._search(inside, path, depth + 1)) is not None), None)
        return (path or "the row") if self._is_person(value, path) else None

    def _is_person(self, value: Any, path: str) -> bool:
        if value is None or isinstance(value, (bool, bytes)):
            return False
        text = value if isinstance(value, str) else str(value)
        if self._is_address(text):
            return True
        written = text.strip()
        if written not in self._ids:
            try:
                written = read_user_id(value)
            except ValueError:
                return False
        is_theirs = written in self._ids or (self._is_stored is not None and self._is_stored(written))
        return is_theirs and (not self._is_ambiguous(written) or _names_an_id(path))

    def _is_address(self, text: str) -> bool:
        if "@" in text:
            email = text.strip().lower()
            return email in self._emails or (self._is_stored is not None and self._is_stored(email))
        # Parsing a phone takes 30 us, and most values are not phones.
        digits = _NOT_DIGITS.sub("", text) if len(text) >= _SHORTEST_PHONE else ""
        if self._is_stored is not None and len(digits) >= _SHORTEST_PHONE:
            return any(phone in self._phones or self._is_stored(phone) for phone in _read(read_phone, [text]))
        return (
            bool(self._ends) and digits.endswith(self._ends) and not _read(read_phone, [text]).isdisjoint(self._phones)
        )


_SHORTEST_PHONE: Final = 7
_NOT_DIGITS: Final = re.compile(r"\D+")
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_WORDS_OF_IDS: Final = frozenset({"id", "ids", "userid", "key", "no", "nr", "number", "user", "customer", "contact"})


def _is_a_word(user_id: str) -> bool:
    return user_id.isdigit() or user_id.isalpha()


def _names_an_id(path: str) -> bool:
    return not _WORDS_OF_IDS.isdisjoint(word.lower() for word in _WORDS.findall(path.rpartition(".")[2]))


def _read(reader: Any, texts: Sequence[str]) -> set[str]:
    read = set()
    for text in texts:
        try:
            read.add(reader(text))
        except ValueError:
            continue
    return read


def find_person(
    database: Database,
    wanted: Wanted,
    *,
    identifiers: Identifiers,
    account: str | None = None,
    limit: int = 500,
    scan_rows: int = SCANNED_ROWS,
) -> Person:
    """Find everything on record about one person.

    Outcomes, decisions, consents and contacts are looked up by their stored identifiers. Rows of unfinished deliveries
    and payloads of invalid rows are stored as their source wrote them: up to ``scan_rows`` of them are searched one by
    one.

    :param identifiers: how the ledger stores them.
    :param account: only of this account.
    :param limit: maximum number of outcomes and of decisions; the newest.
    :param scan_rows: how many of the rows stored as their source wrote them are searched; 0 for none.
    """
    person = Person()
    columns: list[tuple[ColumnElement[Any], list[str]]] = [
        (column, [identifiers.stored(one) for one in given])
        for column, given in ((_o.user_id, wanted.user_ids), (_o.phone, wanted.phones), (_o.email, wanted.emails))
        if given
    ]
    contacts = [identifiers.stored(one) for one in {*wanted.user_ids, *wanted.phones, *wanted.emails}]

    def read(connection: Connection) -> None:
        found = _consents_of(connection, wanted, identifiers, account, limit + 1)
        person.consents, person.decisions = found.consents, found.decisions
        person.outcomes = _outcomes_of_person(connection, columns, account, limit)
        person.contacts = _rows_of(
            connection, ContactNow, schema.contacts, schema.contacts.c.contact.in_(contacts), account
        )

    database.read(read)
    person.is_cut = len(person.outcomes) > limit or len(person.decisions) > limit
    person.outcomes, person.decisions = person.outcomes[-limit:], person.decisions[-limit:]
    if scan_rows:
        named = [(str(column.key), frozenset(given)) for column, given in columns]
        _scan_letters(database, wanted, account, person, scan_rows, named=named)
        _scan_snapshots(database, wanted, account, person, scan_rows)
    else:
        person.scanned_all = False
    person.outcomes.sort(key=lambda one: (one.at, one.row.delivery, one.row.position))
    return person


class Consents(NamedTuple):
    """A person's current consent, and all decisions, oldest first.

    :param rejected: rows with a decision of the person that we rejected, oldest first.
    """

    consents: list[ConsentNow]
    decisions: list[LogLine]
    rejected: Sequence[PersonOutcome] = ()


def find_consents(
    database: Database, wanted: Wanted, *, identifiers: Identifiers, account: str | None = None
) -> Consents:
    """Find the consent of one person, with all phones that Regal acknowledged for them.

    :param identifiers: how the ledger stores them.
    :param account: only of this account.
    """

    def read(connection: Connection) -> Consents:
        found = _consents_of(connection, wanted, identifiers, account, None)
        users, emails = (sorted(map(identifiers.stored, given)) for given in (wanted.user_ids, wanted.emails))
        phones = sorted({*map(identifiers.stored, wanted.phones), *_phones_of(connection, users, account)})
        columns = [(_o.user_id, users), (_o.phone, phones), (_o.email, emails)]
        return found._replace(rejected=_outcomes_of_person(connection, columns, account, None, only=_REJECTED_DECISION))

    return database.read(read)


def _consents_of(
    connection: Connection, wanted: Wanted, identifiers: Identifiers, account: str | None, limit: int | None
) -> Consents:
    # Consent is stored by phone and email; the phones that Regal acknowledged for a user id are that person's.
    keys = [*wanted.phones, *wanted.emails, *(f"user:{one}" for one in wanted.user_ids)]
    phones = _phones_of(connection, [identifiers.stored(one) for one in wanted.user_ids], account)
    stored = sorted({*map(identifiers.stored, keys), *phones})
    of_person = schema.consents.c.identifier.in_(stored)
    return Consents(
        _rows_of(connection, ConsentNow, schema.consents, of_person, account),
        consent_log.lines_of(connection, stored, account=None if account is None else short(account), limit=limit),
    )


def _phones_of(connection: Connection, user_ids: Sequence[str], account: str | None) -> list[str]:
    p = schema.contact_phones.c
    return [phone for (phone,) in _rows_of(connection, _Phone, schema.contact_phones, p.user_id.in_(user_ids), account)]


class _Phone(NamedTuple):
    phone: str


def _outcomes_of_person(
    connection: Connection,
    columns: Sequence[tuple[ColumnElement[Any], list[str]]],
    account: str | None,
    limit: int | None,
    *,
    only: ColumnElement[bool] | None = None,
) -> list[PersonOutcome]:
    found: dict[tuple[int, int], PersonOutcome] = {}
    for column, given in columns:  # separate queries: each has its own index
        statement = _PERSON.where(column.in_(given)).order_by(_o.delivery.desc(), _o.position.desc())
        if limit is not None:
            statement = statement.limit(limit + 1)
        if only is not None:
            statement = statement.where(only)
        if account is not None:
            statement = statement.where(_o.account == short(account))
        for row in connection.execute(statement):
            one = _person_outcome(row)
            found[one.row.delivery, one.row.position] = one
    return sorted(found.values(), key=lambda one: (one.at, one.row.delivery, one.row.position))


_REJECTED_DECISION: Final = (
    (_o.status == Outcome.REJECTED.value)
    & (_o.reason == "invalid")
    & ((func.coalesce(_o.form, "") == SYNC_ROW) | (_o.consents == HAS_DECISION))
)
_PERSON: Final = select(*OUTCOME, _d.dag_id, _d.task_id, _d.map_index, _d.run_id).select_from(
    schema.outcomes.outerjoin(schema.deliveries, _d.id == _o.delivery)
)


def _person_outcome(row: Any, found_in: str | None = None) -> PersonOutcome:
    size = len(OutcomeRow._fields)
    line = outcome_row(row[:size])
    dag_id, task_id, map_index, run_id = row[size : size + 4]
    return PersonOutcome(line.last_at, line, task_name(dag_id, task_id, map_index), run_id, found_in)


def _rows_of(connection: Connection, kind: Any, table: Any, wanted: ColumnElement[bool], account: str | None) -> Any:
    statement = select(*(table.c[name] for name in kind._fields)).where(wanted)
    # The account is the first column of every key of these tables.
    accounts = select(schema.accounts.c.account) if account is None else [short(account)]
    statement = statement.where(table.c.account.in_(accounts))
    return [kind(*row) for row in connection.execute(statement.order_by(*(table.c[one] for one in kind._fields[:3])))]


# -- rows that are kept as their source wrote them --------------------------------------------------------------------


_NAMELESS: Final = _o.user_id.is_(None) & _o.phone.is_(None) & _o.email.is_(None)
_AS_READ: Final = _o.payload.is_not(None) & ((_o.reason == "invalid") | _NAMELESS)


def _scan_letters(
    database: Database,
    wanted: Wanted,
    account: str | None,
    person: Person,
    most: int,
    *,
    named: Sequence[tuple[str, frozenset[str]]],
) -> None:
    """Search the payloads of rows as they were read: what could not be read, or comes second, is not in the line.

    :param named: column -> the person's identifiers; such lines were found already.
    """
    with_letters = select(_d.id).where((_d.rejected > 0) | (_d.unknown > 0)).order_by(_d.id.desc())
    if account is not None:
        with_letters = with_letters.where(_d.account == short(account))
    for (delivery,) in _all(database, with_letters):
        page = _PERSON.add_columns(_o.payload).where((_o.delivery == delivery) & _AS_READ)
        page, last = page.order_by(_o.position).limit(_LETTERS_AT_ONCE), -1
        while True:
            rows = _all(database, page.where(_o.position > last))
            if person.scanned_rows + len(rows) > most:
                person.scanned_all = False
                return
            person.scanned_rows += len(rows)
            for row in rows:
                if any(getattr(row, column) in given for column, given in named):
                    continue
                if (where := wanted.found_in(json.loads(row.payload, object_hook=untagged))) is not None:
                    person.outcomes.append(_person_outcome(row, where))
            if len(rows) < _LETTERS_AT_ONCE:
                break
            last = rows[-1].position


_STATES_OF_CHUNKS: Final = select(schema.row_chunks.c.chunk, schema.row_chunks.c.states).order_by(
    schema.row_chunks.c.chunk
)


def _scan_snapshots(database: Database, wanted: Wanted, account: str | None, person: Person, most: int) -> None:
    """Search the rows of unfinished deliveries without an outcome."""
    c = schema.row_chunks.c
    records = RECORD.where(_d.state.in_(UNFINISHED)).order_by(_d.id)
    if account is not None:
        records = records.where(_d.account == short(account))
    for found in _all(database, records):
        record = Record(*found)
        chunks = _STATES_OF_CHUNKS.where(c.delivery == record.id)
        for chunk, states in _all(database, chunks):
            left = [state not in OUTCOMES for state in bytes(states)]
            if not any(left):
                continue
            if person.scanned_rows + sum(left) > most:
                person.scanned_all = False
                return
            person.scanned_rows += sum(left)
            one = select(c.rows).where((c.delivery == record.id) & (c.chunk == chunk))
            for (encoded,) in _all(database, one):  # none if it has finished in the meantime
                person.unsent += _unsent(record, bytes(encoded), bytes(states), left, wanted)


def _unsent(record: Record, encoded: bytes, states: bytes, left: Sequence[bool], wanted: Wanted) -> Iterator[UnsentRow]:
    task = task_name(record.dag_id, record.task_id, record.map_index)
    for number, position, row in decode_chunk(encoded, without=lambda number: not left[number]):
        found_in = wanted.found_in(row)
        if found_in is not None:
            state = "may have been sent" if states[number] == RowState.RESERVED else "not sent yet"
            where = row.get("$origin") or f"row {position:,}"
            field_ = found_in.removeprefix("$row.")
            yield UnsentRow(record.id, position, where, state, field_, task, record.run_id, record.state)
