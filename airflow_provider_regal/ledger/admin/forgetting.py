"""Forget a person: delete everything on record about them, except a keyed hash and the times of their opt-outs.

::

    identifiers given ─▶ linked ones ─▶ traces: lines, payloads, rows of snapshots ─▶ hashes ─▶ does a delivery that
                         (on record)     (found by column, or read one by one)                  runs hold any? ─▶ erased

Lines of outcomes stay, without the person, and rows of snapshots become skipped, so that counts still add up. The
hashes are committed first: from then on, nothing about the person is recorded again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Table, and_, delete, func, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from airflow_provider_regal.errors import LedgerError
from airflow_provider_regal.events.names import MESSAGE_ID
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin.history import Wanted, is_live
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import READING, RECORD, Record
from airflow_provider_regal.ledger.entries import batches
from airflow_provider_regal.ledger.formats import task_name
from airflow_provider_regal.ledger.people.consent_log import RECORDED
from airflow_provider_regal.ledger.people.suppressions import USER, leave_hashes
from airflow_provider_regal.ledger.rows import RowChunk, decode_chunk, untagged
from airflow_provider_regal.ledger.states import RowState, Skip
from airflow_provider_regal.ledger.text import short

_AT_ONCE: Final = 200
_MESSAGE_IDS: Final = ("message_id", MESSAGE_ID)
# Kept from an erased row: marks of sources.marks that its counts depend on.
_KEPT_MARKS: Final[tuple[str, ...]] = ("$weight", "$origin")
_ERASED: Final[dict[str, Any]] = {"$skip": Skip.SUPPRESSED.value}
# A running delivery may still write to these.
_MAY_CHANGE: Final = (RowState.OPEN, RowState.AMBIGUOUS, RowState.RESERVED, RowState.UNKNOWN)
_o, _d, _c = schema.outcomes.c, schema.deliveries.c, schema.row_chunks.c
_EMPTIED: Final = dict.fromkeys(("user_id", "phone", "email", "payload", "consents", "payload_hash", "form"))

#: What is removed -> a description that starts with the table.
REMOVED: Final = {
    "regal_outcomes": "outcomes, which stay without the person",
    "payloads": "of these, payloads of dead letters",
    "regal_row_chunks": "rows of snapshots, which are skipped as suppressed",
    "regal_consents": "consents",
    "regal_consent_log": "lines of the consent log",
    "regal_contacts": "contacts",
    "regal_contact_phones": "phones of contacts",
    "regal_messages": "message ids",
    "regal_suppressions": "suppressions, replaced by hashes",
}
_NOT_REACHED: Final = (
    "Regal: ask Regal's support to delete the contact",
    "your tables and files: remove the person there",
    "Airflow's logs, XCom and database, if a DAG has put values there",
    "backups of the ledger",
)
_OF_SERVERS: Final = "{}'s dead rows, until it vacuums them, and its logs"
_OF_HASHES: Final = "with [regal] ledger_key: opt-ins that were sent for a user id without a phone, unless it is given"


def not_reached(database: Database, *, plain: bool) -> list[str]:
    """List where data about a person may remain.

    :param plain: whether identifiers are stored in plain text.
    """
    left = [*_NOT_REACHED, *([] if plain else [_OF_HASHES])]
    return left if database.file is not None else [*left, _OF_SERVERS.format(database.dialect)]


@dataclass(slots=True)
class Traces:
    """The records about one person in one account.

    :param users: their user ids, in stored form.
    :param addresses: their phones and emails, in stored form.
    :param keys: the suppression key of each identifier -> its name in consents; None if only its hash is known.
    :param linked: identifiers that were not given but are on record with those that were, in stored form.
    :param outcomes: lines: delivery and position.
    :param chunks: of snapshots with rows of the person: delivery and number.
    :param may_change: deliveries whose snapshots have rows of the person that may still be sent.
    :param message_ids: of events about them, in stored form.
    :param contacts: their contact keys.
    :param counts: table -> rows; ``payloads``: dead letters among the outcomes.
    :param opt_outs: how many opt-outs stay in effect.
    :param owed: how many of these Regal has not acknowledged.
    """

    users: set[str]
    addresses: set[str]
    keys: dict[str, str | None] = field(default_factory=dict)
    linked: list[str] = field(default_factory=list)
    outcomes: set[tuple[int, int]] = field(default_factory=set)
    chunks: set[tuple[int, int]] = field(default_factory=set)
    may_change: set[int] = field(default_factory=set)
    message_ids: set[str] = field(default_factory=set)
    contacts: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    opt_outs: int = 0
    owed: int = 0


class Forgetting:
    """Forgets one person in one account.

    :param given: identifiers of the person: phones, emails, ``user:<id>``.
    :raises ValueError: they are on record for several user ids, and no user id was given.
    """

    def __init__(self, account: Account, given: Collection[str]) -> None:
        self._account = account
        self._given = given
        self._plain = account.identifiers.plain
        self.traces = account.database.read(self._find_identifiers)
        self._wanted = self._read_as_written()
        self._find_letters()
        self._find_rows()
        account.database.read(self._find_keys)
        account.database.read(self._count)

    def running(self, connection: Connection) -> list[Record]:
        """List the running deliveries that may write data about the person again."""
        traces, theirs = self.traces, {delivery for delivery, _ in self.traces.outcomes}
        return [
            record
            for record in self._held(connection)
            if is_live(record, self._account.now())
            and (
                record.state == READING
                or record.id in traces.may_change
                or (record.kept_rows is None and record.id in theirs)
            )
        ]

    def _held(self, connection: Connection) -> list[Record]:
        # Lock in the order of a commit: its delivery first. This blocks commits in the meantime.
        held = RECORD.where((_d.account == self._account.name) & _d.holder.is_not(None)).order_by(_d.id)
        return [Record(*row) for row in connection.execute(held.with_for_update())]

    def suppress(self, *, by: str | None = None) -> None:
        """Commit that the person is forgotten: from now on, nothing already known is sent or recorded."""
        self._account.join()
        self._account.database.write(
            lambda connection: leave_hashes(connection, self._account, self._opt_outs(connection), by=by)
        )

    def erase(self, *, by: str | None = None) -> Counter[str]:
        """Delete all records, or none of them.

        :returns: table -> rows, as in :class:`Traces`.
        :raises LedgerError: a running delivery may write data about the person again; nothing was removed.
        """
        erased = self._account.database.write(lambda connection: self._erase(connection, by))
        self._account.database.checkpoint()
        return erased

    # -- who it is ----------------------------------------------------------------------------------------------------

    def _find_identifiers(self, connection: Connection) -> Traces:
        """Find what is on record with the given identifiers: the user id, and its phones and emails.

        The search stops there: two people who share a phone are not the same person.
        """
        stored = self._account.identifiers.stored
        users = {stored(one.removeprefix(USER)) for one in self._given if one.startswith(USER)}
        addresses = {stored(one) for one in self._given if not one.startswith(USER)}
        given = [USER + one for one in users] + [*addresses]
        lines = self._lines(connection, users, addresses)
        phones = self._phones(connection, users, addresses)
        if not users:
            users = {user for user, *_ in lines if user is not None} | {user for user, _ in phones}
            if len(users) > 1:
                raise ValueError(
                    f"Account {self._account.name!r} has {len(users)} user ids on record with it "
                    f"({', '.join(sorted(users))}), so it can't be known who is meant. Name the user id of the person "
                    "as well: user:<id>."
                )
        # For each line, and for all lines of the user: who else it names.
        lines = [line for line in lines if line[0] in (None, *users)] + self._lines(connection, users, ())
        addresses |= {one for _, phone, email, *_ in lines for one in (phone, email) if one is not None}
        addresses |= {phone for user, phone in self._phones(connection, users, ()) if user in users}
        addresses |= self._logged(connection, {(line[3], line[4]) for line in lines if line[0] is not None})
        named = {stored(one.removeprefix(USER)): one for one in self._given if one.startswith(USER)}
        if self._plain:
            named |= {user: USER + user for user in users}
        keys: dict[str, str | None] = {one: one for one in addresses}
        keys |= {short(USER + user): stored(named[user]) if user in named else None for user in users}
        linked = sorted({*(USER + one for one in users), *addresses}.difference(given))
        return Traces(users, addresses, keys, linked)

    def _lines(self, connection: Connection, users: Collection[str], addresses: Collection[str]) -> list[Any]:
        wanted = _named_by((_o.user_id, users), (_o.phone, addresses), (_o.email, addresses))
        columns = (_o.user_id, _o.phone, _o.email, _o.delivery, _o.position)
        return self._rows(connection, select(*columns).where((_o.account == self._account.name) & wanted))

    def _phones(self, connection: Connection, users: Collection[str], addresses: Collection[str]) -> list[Any]:
        p = schema.contact_phones.c
        wanted = _named_by((p.user_id, users), (p.phone, addresses))
        return self._rows(connection, select(p.user_id, p.phone).where((p.account == self._account.name) & wanted))

    def _logged(self, connection: Connection, lines: Collection[tuple[int, int]]) -> set[str]:
        """Return further phones and emails of the same person: those with consents in the events of these lines.

        What was only recorded was in no event: its positions are those of the source, not those of these lines.
        """
        log, found = schema.consent_log.c, set[str]()
        for delivery in sorted({delivery for delivery, _ in lines}):
            for some in batches(sorted(position for one, position in lines if one == delivery), _AT_ONCE):
                these = (log.delivery == str(delivery)) & log.position.in_(some) & (log.account == self._account.name)
                these &= log.status != RECORDED
                found |= {identifier for (identifier,) in self._rows(connection, select(log.identifier).where(these))}
        return {one for one in found if one and not one.startswith(USER)}

    def _read_as_written(self) -> Wanted:
        """Return a matcher that finds the person in rows as their source wrote them."""
        users, addresses, stored = self.traces.users, self.traces.addresses, self._account.identifiers.stored
        if self._plain:
            emails = {one for one in addresses if "@" in one}
            return Wanted([*users], phones=sorted(addresses - emails), emails=sorted(emails), words_anywhere=False)
        hidden = users | addresses  # identifiers known only as hashes
        return Wanted([], phones=[], emails=[], words_anywhere=False, is_stored=lambda text: stored(text) in hidden)

    # -- where they are -----------------------------------------------------------------------------------------------

    def _find_letters(self) -> None:
        """Find the outcomes that name the person, in a column or in the payload of a dead letter."""
        traces = self.traces
        lines = self._account.database.read(lambda one: self._lines(one, traces.users, traces.addresses))
        traces.outcomes = {(delivery, position) for *_, delivery, position in lines}
        mine = (_d.account == self._account.name) & ((_d.rejected > 0) | (_d.unknown > 0))
        for (delivery,) in self._read(select(_d.id).where(mine).order_by(_d.id)):
            page = select(_o.position, _o.payload, _o.consents).where(
                (_o.delivery == delivery) & _o.payload.is_not(None)
            )
            page, last, more = page.order_by(_o.position).limit(_AT_ONCE), -1, True
            while more:
                rows = self._read(page.where(_o.position > last))
                for last, payload, consents in rows:
                    letter = json.loads(payload, object_hook=untagged)
                    said = [letter, json.loads(consents) if consents else None]
                    if (delivery, last) in traces.outcomes or self._wanted.found_in(said) is not None:
                        traces.outcomes.add((delivery, last))
                        traces.counts["payloads"] += 1
                        self._take_message_id(letter)
                more = len(rows) == _AT_ONCE

    def _find_rows(self) -> None:
        """Find the rows of snapshots that name the person."""
        mine = select(_d.id).where(_d.account == self._account.name)
        numbers = select(_c.delivery, _c.chunk).where(_c.delivery.in_(mine)).order_by(_c.delivery, _c.chunk)
        for delivery, chunk in self._read(numbers):
            one = select(_c.rows, _c.states).where((_c.delivery == delivery) & (_c.chunk == chunk))
            for encoded, states in self._read(one):
                for number, _, row in decode_chunk(bytes(encoded)):
                    if self._wanted.found_in(row) is None:
                        continue
                    self.traces.chunks.add((delivery, chunk))
                    self.traces.counts["regal_row_chunks"] += 1
                    self._take_message_id(row.get("$row", row))
                    if bytes(states)[number] in _MAY_CHANGE:
                        self.traces.may_change.add(delivery)

    def _take_message_id(self, written: Mapping[str, Any]) -> None:
        stored = self._account.identifiers.stored
        self.traces.message_ids.update(stored(str(written[name])) for name in _MESSAGE_IDS if written.get(name))

    def _find_keys(self, connection: Connection) -> None:
        """Find contact keys and message ids: these come from the source, in any spelling."""
        traces, k, m = self.traces, schema.contacts.c, schema.messages.c
        contacts: list[ColumnElement[bool]] = [k.contact.in_(sorted(traces.users | traces.addresses))]
        messages: list[ColumnElement[bool]] = (
            [m.message_id.in_(sorted(traces.message_ids))] if traces.message_ids else []
        )
        if self._plain:
            contacts += [
                k.contact.contains(json.dumps(one, ensure_ascii=False), autoescape=True) for one in traces.users
            ]
            for column, found in ((k.contact, contacts), (m.message_id, messages)):
                found += [column.contains(phone[-4:]) for phone in self._wanted.phones]
                found += [func.lower(column).contains(email, autoescape=True) for email in self._wanted.emails]
        for table, column, found in ((schema.contacts, k.contact, contacts), (schema.messages, m.message_id, messages)):
            if not found:
                continue
            wanted = select(column).where((table.c.account == self._account.name) & or_(*found))
            keys = [key for (key,) in self._rows(connection, wanted)]
            if table is schema.contacts:
                traces.contacts = {key for key in keys if self._is_their_contact(key)}
            else:
                traces.message_ids = {key for key in keys if key in traces.message_ids or self._is_in(key)}

    def _is_their_contact(self, key: str) -> bool:
        if key in self.traces.users | self.traces.addresses:
            return True
        values = json.loads(key) if key.startswith("[") and key.endswith("]") else key
        return self._wanted.found_in({"id": values}) is not None

    def _is_in(self, message_id: str) -> bool:
        """Return whether a message id contains a phone or an email of the person."""
        if any(email in message_id.lower() for email in self._wanted.emails):
            return True
        digits = (re.escape(phone.removeprefix("+1").removeprefix("+")) for phone in self._wanted.phones)
        return any(re.search(rf"(?<!\d)1?{number}(?!\d)", message_id) for number in digits)

    def _tables(self) -> Iterator[tuple[Table, ColumnElement[bool]]]:
        """Return the rows that are deleted completely."""
        traces = self.traces
        consents = [one for one in traces.keys.values() if one is not None]
        for table, *columns in (
            (schema.consents, (schema.consents.c.identifier, consents)),
            (schema.consent_log, (schema.consent_log.c.identifier, consents)),
            (schema.contacts, (schema.contacts.c.contact, traces.contacts)),
            (
                schema.contact_phones,
                (schema.contact_phones.c.user_id, traces.users),
                (schema.contact_phones.c.phone, traces.addresses),
            ),
            (schema.messages, (schema.messages.c.message_id, traces.message_ids)),
            (schema.suppressions, (schema.suppressions.c.identifier, traces.keys)),
        ):
            yield table, and_(table.c.account == self._account.name, _named_by(*columns))

    def _count(self, connection: Connection) -> None:
        traces, c = self.traces, schema.consents.c
        traces.counts["regal_outcomes"] = len(traces.outcomes)
        for table, wanted in self._tables():
            traces.counts[table.name] = connection.execute(select(func.count()).where(wanted)).scalar_one()
            if table is schema.consents:
                owed = select(func.count()).where(wanted & c.owed_since.is_not(None))
                traces.owed = connection.execute(owed).scalar_one()
        traces.opt_outs = sum(map(len, self._opt_outs(connection).values()))

    def _opt_outs(self, connection: Connection) -> dict[str, dict[str, str]]:
        """Return the time of the newest opt-out for each suppression key and channel."""
        traces, c = self.traces, schema.consents.c
        keys = {identifier: key for key, identifier in traces.keys.items() if identifier is not None}
        found: dict[str, dict[str, str]] = {key: {} for key in traces.keys}
        wanted = (c.account == self._account.name) & c.identifier.in_(sorted(keys))
        columns = (
            c.identifier,
            c.channel,
            c.opt_out_at,
            c.subscribed,
            c.evidence_at,
            c.pending_subscribed,
            c.pending_at,
        )
        for identifier, channel, opt_out_at, subscribed, evidence_at, pending, pending_at in self._rows(
            connection, select(*columns).where(wanted)
        ):
            acknowledged = evidence_at if subscribed == 0 else None
            times = [at for at in (opt_out_at, acknowledged, pending_at if pending == 0 else None) if at is not None]
            if times:
                found[keys[identifier]][channel] = max(times)
        return found

    # -- and are no longer --------------------------------------------------------------------------------------------

    def _erase(self, connection: Connection, by: str | None) -> Counter[str]:
        traces, erased = self.traces, Counter[str]()
        if running := self.running(connection):
            told = ", ".join(
                f"{one.id} ({task_name(one.dag_id, one.task_id, one.map_index) or 'no task'})" for one in running
            )
            raise LedgerError(
                f"Deliveries that run may have rows of this person: {told}. Nothing of the person is sent from now on, "
                "but what is on record is still there: run the command again once they have ended."
            )
        opt_outs = self._opt_outs(connection)
        for table, wanted in self._tables():
            erased[table.name] = connection.execute(delete(table).where(wanted)).rowcount
        leave_hashes(connection, self._account, opt_outs, by=by)
        for delivery in sorted({delivery for delivery, _ in traces.outcomes}):
            for some in batches(sorted(position for one, position in traces.outcomes if one == delivery), _AT_ONCE):
                these = (_o.delivery == delivery) & _o.position.in_(some)
                connection.execute(update(schema.outcomes).where(these).values(**_EMPTIED))
        erased["regal_outcomes"], erased["payloads"] = len(traces.outcomes), traces.counts["payloads"]
        for delivery, chunk in sorted(traces.chunks):
            erased["regal_row_chunks"] += self._erase_rows(connection, (_c.delivery == delivery) & (_c.chunk == chunk))
        # A worker that seems dead may hold these rows; it can't write anymore.
        frozen = [one.id for one in self._held(connection) if one.id in traces.may_change]
        connection.execute(update(schema.deliveries).where(_d.id.in_(frozen)).values(holder=None))
        return erased

    def _erase_rows(self, connection: Connection, this: ColumnElement[bool]) -> int:
        """Replace the person's rows with rows that are skipped."""
        count = 0
        for (encoded,) in self._rows(connection, select(_c.rows).where(this)):  # none if it has finished since
            chunk = RowChunk()
            for _, position, row in decode_chunk(bytes(encoded)):
                is_theirs = self._wanted.found_in(row) is not None
                kept = {name: row[name] for name in _KEPT_MARKS if name in row}
                chunk.add(position, {**_ERASED, **kept} if is_theirs else row)
                count += is_theirs
            connection.execute(update(schema.row_chunks).where(this).values(rows=chunk.encoded()))
        return count

    def _read(self, statement: Any) -> list[Any]:
        return self._account.database.read(lambda connection: self._rows(connection, statement))

    def _rows(self, connection: Connection, statement: Any) -> list[Any]:
        return [tuple(row) for row in connection.execute(statement)]


def _named_by(*columns: tuple[ColumnElement[Any], Collection[str]]) -> ColumnElement[bool]:
    return or_(*(column.in_(sorted(given)) for column, given in columns))
