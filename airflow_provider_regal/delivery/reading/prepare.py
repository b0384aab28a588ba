"""Turn a row of the snapshot into what is sent (map, validate, judge consent), or into the reason it can't be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.delivery.reading.keys import ContactKeys, hash_of_row
from airflow_provider_regal.delivery.reading.prepared import Claimed, Ready, Rejected
from airflow_provider_regal.delivery.settings import NAMED_CALLS, DeliverySettings
from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import Consent, Event, Payload, to_payload
from airflow_provider_regal.events.identifiers import read_email, read_phone, read_user_id
from airflow_provider_regal.events.models import EVENTS
from airflow_provider_regal.events.names import CHANNELS_OF, EMAILS, NAME, PHONES, TRAITS, USER_ID
from airflow_provider_regal.events.python_values import is_missing
from airflow_provider_regal.events.rows.fast_path import QuickRows, quick_rows
from airflow_provider_regal.events.rows.mapping import RowMapper
from airflow_provider_regal.events.rows.opt_outs import (
    Unreadable,
    has_decision,
    loses_a_decision,
    opt_outs_of,
    unreadable_decisions,
)
from airflow_provider_regal.ledger.people.suppressions import USER
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.sources.marks import (
    CALL_MARK,
    CLAIMS_MARK,
    EVENT_MARK,
    FORCE_MARK,
    LEDGER_KEY_MARK,
    LETTER_TIME_MARK,
    LOST_MARK,
    MARKS,
    ONLY_CONSENT_MARK,
    ORIGIN_MARK,
    OWED_MARK,
    PERSON_MARK,
    PHASE_MARK,
    REJECT_MARK,
    SKIP_MARK,
    WEIGHT_MARK,
    columns_of,
)

# Rows that don't come from a table may all have different columns.
_MOST_PLANS: Final = 1_000
NO_PHONE_ON_RECORD: Final = Fault(
    "opt_in", "is an opt-out, but the event has no phone it could belong to, and no phone of this contact is on record"
)


_OF_PERSON: Final[dict[str, Callable[[Any], str]]] = {
    "phone": read_phone,
    PHONES: read_phone,
    "email": read_email,
    EMAILS: read_email,
}


def _no_phones(user_id: str) -> Sequence[str]:
    return ()


class Preparer:
    """Prepares the rows of one delivery.

    ``keys`` finds contact keys if only changed contacts are sent. ``fingerprint`` covers the options that affect the
    result for a row. ``ignored_columns`` are not sent.

    :param phones_of: finds the phones on record for a user id, for an opt-out without a phone.
    """

    def __init__(
        self, settings: DeliverySettings, *, event_source: str, phones_of: Callable[[str], Sequence[str]] = _no_phones
    ) -> None:
        self.settings = settings
        self._phones_of = phones_of
        self._event_source = event_source
        self.mapper = RowMapper(settings.mapping, settings.reading)
        self._mappers: dict[str, RowMapper] = {}
        self._quick: dict[tuple[Any, ...], QuickRows | None] = {}
        self.keys = ContactKeys(self.mapper, settings.key) if settings.only_changed else None
        columns = settings.sync.columns if settings.sync is not None else None
        options = repr((settings.mapping, columns, settings.reading, settings.consent, event_source))
        self.fingerprint = hashlib.blake2b(options.encode(), digest_size=16).digest()
        self._contract = settings.contract
        self._is_resync = settings.sync is not None and settings.sync.full_resync
        ignored = [column for column, target in (settings.mapping.columns or {}).items() if target is None]
        self.ignored_columns = frozenset((*ignored, *(column.upper() for column in ignored)))

    def prepare(self, position: int, row: Mapping[str, Any], now: datetime, source_row: int = 0) -> Ready | Rejected:
        """Prepare one row.

        :param position: the row's number in the snapshot, from 0.
        :param now: the current time (aware).
        :param source_row: the row's number in the source, from 1.
        """
        if (usual := self._usual(position, row, now)) is not None:
            usual.source_row = source_row
            return usual
        call = row.get(EVENT_MARK) or row.get(CALL_MARK) or self.settings.mapping.call
        if SKIP_MARK in row and (outs := self.only_opt_outs(position, row, now, source_row)) is not None:
            outs.only_consent, outs.instead_of = True, Skip.NOT_INCLUDED
            return outs
        try:
            event = self._event(row)
            self._check_age(event, now)
            ready = self._ready(position, row, event, now, source_row=source_row)
            if not ready.only_consent and (faults := self._breaches(ready.payload)):
                raise InvalidEventError(call, faults)
        except InvalidEventError as error:
            rejected = self.reject(position, row, call, error.faults, source_row)
        else:
            return ready
        return self.opt_outs(rejected, row, now) or rejected

    def _breaches(self, payload: Payload) -> list[Fault]:
        """Return the row's violations of the contract."""
        return [] if self._contract is None else self._contract.faults_of(payload.body)

    def _usual(self, position: int, row: Mapping[str, Any], now: datetime) -> Ready | None:
        """Prepare a row on the fast path; return None if it needs the full one."""
        if (columns := (*row,)) not in self._quick:
            if len(self._quick) >= _MOST_PLANS:
                self._quick.clear()
            how, reading = self.settings.mapping, self.settings.reading
            self._quick[columns] = (
                quick_rows(self.mapper.plan(columns), how, reading, event_source=self._event_source)
                if MARKS.isdisjoint(columns)
                else None
            )
        quick = self._quick[columns]
        if quick is None:
            return None
        try:
            event = quick.read(row)
        except (ValueError, InvalidEventError):  # the full path reports what is wrong, if anything
            return None
        if self._is_too_old(event.payload.call, event.timestamp, now) or self._breaches(event.payload):
            return None
        return Ready(
            position,
            event.payload,
            self.settings.guarantee_of(event.payload.call),
            event.identifiers,
            has_time=event.timestamp is not None,
            user_id=event.user_id,
            message_id=event.message_id,
        )

    def reject(
        self, position: int, row: Mapping[str, Any], call: str, faults: tuple[Fault, ...], source_row: int = 0
    ) -> Rejected:
        """Return the row as rejected: it is invalid, and can never be sent."""
        columns, written = columns_of(row), self.written(row)
        user_id, identifiers = self._people_of(row)
        return Rejected(
            position,
            call,
            faults,
            columns,
            hash_of_row(columns, frozenset(), self.fingerprint),
            self._form_of(row),
            source_row,
            row.get(ORIGIN_MARK),
            row.get(WEIGHT_MARK, 1),
            row.get(LETTER_TIME_MARK),
            identifiers,
            user_id,
            self.settings.mapping.event if call == "track" else None,
            row.get(LOST_MARK, False) or loses_a_decision(written),
            self.settings.sync is not None or has_decision(written),
        )

    def _people_of(self, row: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
        """Identify the person of an invalid row, as far as it can be read."""
        columns = columns_of(row)
        if (person := row.get(PERSON_MARK)) is not None:
            return next((one.removeprefix(USER) for one in person if one.startswith(USER)), None), (*person,)
        if self.settings.sync is not None or EVENT_MARK in row:
            return people_in(columns)
        with suppress(InvalidEventError, ValueError):
            return people_in(self.mapper_of(row).written(columns))
        return None, ()

    def shared_by(self, row: Mapping[str, Any]) -> tuple[str, list[str]] | None:
        """Return a row's user id and its phones and emails; None without a user id, or without any of the others."""
        columns = columns_of(row)
        if EVENT_MARK in row:
            user_id, found = people_in(columns)
            identifiers = [*found[1:]]
            return None if user_id is None or not identifiers else (user_id, identifiers)
        of_user, addresses = self.mapper_of(row).plan((*columns,)).of_person
        if of_user is None or not addresses or is_missing(columns[of_user]):
            return None
        identifiers = []
        for column, what in addresses:
            if not is_missing(columns[column]):
                with suppress(ValueError):
                    identifiers.append(_OF_PERSON[what](columns[column]))
        with suppress(ValueError):
            return (read_user_id(columns[of_user]), identifiers) if identifiers else None
        return None

    def _form_of(self, row: Mapping[str, Any]) -> str:
        if self.settings.sync is not None:
            return "consent"
        if REJECT_MARK in row:
            return "unreadable"
        return "event" if EVENT_MARK in row else "row"

    def _ready(
        self,
        position: int,
        row: Mapping[str, Any],
        event: Event,
        now: datetime,
        *,
        source_row: int = 0,
    ) -> Ready:
        policy = self.settings.consent
        if CLAIMS_MARK in row:  # the creator of the row has already expanded its opt-outs to channels
            policy = replace(policy, opt_out_scope="channel")
        payload = to_payload(event, now=now, policy=policy, event_source=self._event_source)
        if payload.opt_outs_elsewhere:
            phones = () if event.user_id is None else self._phones_of(event.user_id)
            payload = payload.with_opt_outs({PHONES: phones})
            _check_left_out(event, payload, phones)
            if EVENT_MARK in row and payload.body.keys().isdisjoint((TRAITS, NAME)):
                raise InvalidEventError(event.call, [NO_PHONE_ON_RECORD])
        if (letter_time := row.get(LETTER_TIME_MARK)) is not None:
            payload = replace(payload, consents=_dated(payload.consents, datetime.fromisoformat(letter_time)))
        guarantee = self.settings.guarantee_of(event.call)
        return Ready(
            position,
            payload,
            guarantee,
            identifiers_of(event),
            source_row=source_row,
            place=row.get(ORIGIN_MARK),
            weight=row.get(WEIGHT_MARK, 1),
            has_time=event.timestamp is not None,
            user_id=event.user_id,
            message_id=event.message_id,
            phase=row.get(PHASE_MARK, 0),
            only_consent=row.get(ONLY_CONSENT_MARK, False),
            letter_time=letter_time,
            key=row.get(LEDGER_KEY_MARK),
            force=row.get(FORCE_MARK, False),
            claims=_given_claims(row, payload, guarantee, resync=self._is_resync),
        )

    def opt_outs(self, rejected: Rejected, row: Mapping[str, Any], now: datetime) -> Ready | None:
        """Return the opt-outs of an invalid row, which are sent even though the rest can't be."""
        ready = self.only_opt_outs(rejected.position, row, now, rejected.source_row)
        if ready is not None:
            ready.only_consent, ready.instead_of = True, rejected
        return ready

    def only_opt_outs(self, position: int, row: Mapping[str, Any], now: datetime, source_row: int = 0) -> Ready | None:
        """Return only the opt-outs of a row; None if there are none."""
        event = opt_outs_of(self.written(row), self.settings.reading)
        if event is None:
            return None
        marks = {name: row[name] for name in (LETTER_TIME_MARK, ORIGIN_MARK, WEIGHT_MARK) if name in row}
        ready = self._ready(position, marks, event, now, source_row=source_row)
        return ready if ready.payload.consents else None

    def written(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Map a row to a written event without validation; empty if it can't be mapped or its source rejects it."""
        if REJECT_MARK in row:
            return {}
        return columns_of(row) if EVENT_MARK in row else self.mapper_of(row).written(columns_of(row))

    def unreadable_in(self, row: Mapping[str, Any]) -> list[Unreadable]:
        """Return the row's decisions that can't be read as yes or no."""
        return unreadable_decisions(self.written(row), self.settings.reading)

    def _event(self, row: Mapping[str, Any]) -> Event:
        if REJECT_MARK in row:
            raise InvalidEventError(self.settings.mapping.call, [Fault(*fault) for fault in row[REJECT_MARK]])
        if EVENT_MARK in row:
            call = row[EVENT_MARK]
            if call in NAMED_CALLS and self.settings.mapping.call not in NAMED_CALLS:
                # It would be retried like a contact.
                raise InvalidEventError(call, [Fault("the event", f"is a {call}, in a delivery of contacts")])
            return EVENTS[call].read(columns_of(row), self.settings.reading)
        return self.mapper_of(row).event(columns_of(row))

    def mapper_of(self, row: Mapping[str, Any]) -> RowMapper:
        """Return the mapper of a row that is not an event; dead letters may have different calls."""
        how, call = self.settings.mapping, row.get(CALL_MARK)
        if call is None or call == how.call:
            return self.mapper
        if call not in self._mappers:
            self._mappers[call] = RowMapper(replace(how, call=call, event=None), self.settings.reading)
        return self._mappers[call]

    def _check_age(self, event: Event, now: datetime) -> None:
        if self._is_too_old(event.call, event.timestamp, now):
            oldest = self.settings.max_event_age
            reason = f"the event is older than max_event_age ({oldest}); it could start a live journey"
            raise InvalidEventError(event.call, [Fault("timestamp", reason)])

    def _is_too_old(self, call: str, timestamp: datetime | None, now: datetime) -> bool:
        oldest = self.settings.max_event_age
        return oldest is not None and timestamp is not None and call in NAMED_CALLS and now - timestamp > oldest


def _check_left_out(event: Event, payload: Payload, phones: Sequence[str]) -> None:
    """Check that an opt-out of an omitted phone or email still applies to another known one.

    :raises InvalidEventError: it does not, and would be lost.
    """
    for many, found in ((PHONES, phones), (EMAILS, ())):
        channels = CHANNELS_OF[many]
        lost = [fault for kind, fault in event.left_out if kind == many]
        if lost and not found and any(channel in channels for channel, _, _ in payload.opt_outs_elsewhere):
            raise InvalidEventError(event.call, lost)


def identifiers_of(event: Event) -> tuple[str, ...]:
    """Return all identifiers of the person an event is about."""
    user = () if event.user_id is None else (f"user:{event.user_id}",)
    return (*user, *(phone.number for phone in event.phones), *(email.address for email in event.emails))


def people_in(written: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Read user id, phones and emails from an event that may be invalid.

    :returns: the user id, and all identifiers in the form :func:`identifiers_of` returns.
    """
    traits = written.get(TRAITS)
    inner: Mapping[str, Any] = traits if isinstance(traits, Mapping) else {}
    read: list[str] = []
    for reader, given in (
        (_read_user, [written.get("user_id", written.get(USER_ID))]),
        (read_phone, [written.get("phone", inner.get("phone")), *_labeled(written.get(PHONES), "number")]),
        (read_email, [written.get("email", inner.get("email")), *_labeled(written.get(EMAILS), "address")]),
    ):
        for value in given:
            with suppress(ValueError, TypeError):
                if not is_missing(value):
                    read.append(reader(value))
    user_id = next((one.removeprefix(USER) for one in read if one.startswith(USER)), None)
    return user_id, (*dict.fromkeys(read),)


def _read_user(value: Any) -> str:
    return f"{USER}{read_user_id(value)}"


def _labeled(points: Any, key: str) -> Iterator[Any]:
    """Return the phones or emails of a list that may be invalid."""
    for point in points if isinstance(points, (list, tuple)) else ():
        if isinstance(point, Mapping):
            yield point.get(key)


def _dated(consents: tuple[Consent, ...], read_at: datetime) -> tuple[Consent, ...]:
    """Return a dead letter's opt-outs with their time; those without one get the time they were first read."""
    return tuple(one if one.subscribed else replace(one, at=one.at or read_at) for one in consents)


def _given_claims(
    row: Mapping[str, Any], payload: Payload, guarantee: Guarantee, *, resync: bool
) -> tuple[Claimed, ...]:
    consents = {(consent.identifier, consent.channel): consent for consent in payload.consents}
    return tuple(
        Claimed(
            Claim(
                OPT_IN,
                key,
                channel,
                subscribed,
                at,
                once=guarantee == "at_most_once" and subscribed,
                force=row.get(FORCE_MARK, False),
                row_hash=row_hash,
                stored=any(more[:1]),
                inferred=any(more[1:]),
                news=not resync,
                owed=row.get(OWED_MARK, False),
            ),
            consents.get((key, channel)),
        )
        for key, channel, subscribed, at, row_hash, *more in row.get(CLAIMS_MARK, ())
        if payload.call != "identify" or (key, channel) in consents  # it may have been withheld since
    )
