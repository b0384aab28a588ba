"""Admission selects the rows to send from the snapshot; settled, unchanged, repeated and invalid rows are left out.

::

    snapshot ─▶ settled? ─▶ prepare ─▶ suppressed? ─▶ repeated? ─▶ newest consent? ─▶ unchanged? ─▶ types? ─▶ Ready
                              └─▶ rejected (ledger)                   (index)           (ledger)     (ledger)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.reading.grants import OLDER
from airflow_provider_regal.delivery.reading.keys import ContactKeys, hash_of_body, hash_of_row
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.prepared import Claimed, Ready, Rejected
from airflow_provider_regal.delivery.reading.row_index import RowIndex
from airflow_provider_regal.delivery.reading.shared import SharedIdentifiers
from airflow_provider_regal.delivery.reading.suppressing import hold_back, may_be_held, person_of
from airflow_provider_regal.delivery.reading.type_drift import TypeDrift
from airflow_provider_regal.delivery.sending.recorder import Recorder
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import Consent
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Held
from airflow_provider_regal.ledger.people.suppressions import Hold, OptInAt, Suppressions
from airflow_provider_regal.ledger.rules import OPT_IN, TRACK, Claim
from airflow_provider_regal.ledger.states import RowState, Skip
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.marks import EVENT_MARK, OWED_MARK, SKIP_MARK, columns_of

# Rows per lookup in the ledger.
_CHUNK: Final = 200
# How many rows are prepared, and their people looked up, before control returns to the event loop.
_AT_ONCE: Final = 32
_TO_COME: Final = "the timestamp lay in the future when the row was read"
_UNREADABLE: Final = "another row has a decision of this person that can't be read: it may be a later no"
_AMBIGUOUS: Final = Fault("the key", "is in more than one row; with only_changed a contact is one row")

Numbered = tuple[int, int, Mapping[str, Any]]


class Admission:
    """Admits the rows of a snapshot.

    :param index: what rows have to know about each other.
    :param keys: the contact keys, to skip unchanged contacts; None to send all.
    :param suppress_named_events: skip named events to people who opted out of all channels on record.
    :param of_plan: skip opt-outs that Regal has: a plan sends them before it is approved.
    """

    def __init__(
        self,
        held: Held,
        preparer: Preparer,
        recorder: Recorder,
        *,
        index: RowIndex,
        account: Account,
        keys: ContactKeys | None,
        drift: TypeDrift,
        clock: Clock,
        suppress_named_events: bool = False,
        of_plan: bool = False,
    ) -> None:
        self._held = held
        self._preparer = preparer
        self._recorder = recorder
        self._index = index
        self._account = account
        self._keys = keys
        self._drift = drift
        self._clock = clock
        self._suppressions = Suppressions(account, monotonic=clock.monotonic)
        self._suppress_named_events = suppress_named_events
        self._of_plan = of_plan
        self._seed = account.identifiers.seed(preparer.fingerprint)
        reports = preparer.settings.on_shared == "report" and preparer.settings.sync is None
        self._shared = SharedIdentifiers(account) if reports else None

    def rows(self) -> Iterator[Ready | None]:
        """Return the rows to send, in order; None whenever the caller should return to the event loop."""
        rows = self._with_known(self._held.rows_to_send())
        while some := [*islice(rows, _AT_ONCE)]:
            now = self._clock.now()
            prepared = [self._prepare(numbered, now) for numbered, _ in some]
            holds = self._holds(prepared, now)
            for (numbered, known), row, hold in zip(some, prepared, holds, strict=True):
                ready = self._admit(numbered, known, row, hold, now)
                if ready is not None:
                    yield ready
            yield None

    def _prepare(self, numbered: Numbered, now: datetime) -> Ready | Rejected:
        position, source_row, row = numbered
        if _was_erased(row):
            return self._preparer.reject(position, row, self._held.record.call, (), source_row)
        return self._preparer.prepare(position, row, now, source_row)

    def _holds(self, rows: Sequence[Ready | Rejected], now: datetime) -> list[Hold | None]:
        """Return the suppression, if any, of each row."""
        holds = self._suppressions.find([person_of(row) for row in rows])
        if self._suppress_named_events:
            events = [number for number, row in enumerate(rows) if holds[number] is None and may_be_held(row)]
            people = [rows[number].identifiers for number in events]
            opt_ins = [self._opt_ins_of(rows[number], now) for number in events]
            for number, opted_out in zip(events, self._suppressions.opted_out(people, opt_ins), strict=True):
                holds[number] = Hold(False, {}) if opted_out else None
        return holds

    def _opt_ins_of(self, row: Ready | Rejected, now: datetime) -> list[OptInAt]:
        """Return the opt-ins of an event that no other row of the source causes to be withheld."""
        consents = row.payload.consents if isinstance(row, Ready) else ()
        return [
            (one.identifier, one.channel, at)
            for one in consents
            if one.subscribed and (at := self._time_of(one, now)) is not None
        ]

    def _with_known(self, rows: Iterator[Numbered]) -> Iterator[tuple[Numbered, _Known]]:
        """Return each row with what is on record for its contact."""
        if self._keys is None:
            nothing = _Known()
            yield from ((numbered, nothing) for numbered in rows)
            return
        while chunk := [*islice(rows, _CHUNK)]:
            told = [(numbered, self._known(numbered[2])) for numbered in chunk]
            keys = [known.key for _, known in told if known.key is not None]
            hashes = self._account.contact_hashes(keys)
            for numbered, known in told:
                if known.key is not None:
                    known.payload_before = hashes.get(known.key, (None, None))[1]
                    known.has_news = self._index.has_news(known.key)
                yield numbered, known

    def _known(self, row: Mapping[str, Any]) -> _Known:
        columns = columns_of(row)
        known = _Known()
        if OWED_MARK in row:  # not a row of the source
            return known
        try:
            known.key = self._keys.key_of(columns) if self._keys else None
        except InvalidEventError as error:
            known.faults = error.faults
        known.row_hash = hash_of_row(columns, self._preparer.ignored_columns, self._seed)
        return known

    def _admit(
        self, numbered: Numbered, known: _Known, ready: Ready | Rejected, hold: Hold | None, now: datetime
    ) -> Ready | None:
        position, source_row, row = numbered
        state = self._held.states[position]
        if state == RowState.RESERVED:
            self._died(ready, now)
            return None
        if _was_erased(row) or (hold is not None and hold_back(ready, hold)):
            self._recorder.leave_out(position, Skip.SUPPRESSED, ready.weight)
            return None
        if isinstance(ready, Ready) and (
            faults := self._faults_of(ready, known, source_row, ambiguous=state == RowState.AMBIGUOUS)
        ):
            rejected = self._preparer.reject(position, row, ready.payload.call, tuple(faults), source_row)
            ready = self._preparer.opt_outs(rejected, row, now) or rejected
        if isinstance(ready, Rejected):
            self._recorder.reject(ready, now)
            return None
        if self._is_overtaken(ready):
            rest = self._preparer.only_opt_outs(position, row, now, source_row)
            if rest is None:
                self._recorder.skip(ready, Skip.OLDER, now)
                return None
            ready.send_instead(rest.payload)
        if ready.instead_of is None:
            ready.key, ready.row_hash = known.key or ready.key, known.row_hash
        if skip := self._decide_on(ready, known, now):
            self._recorder.skip(ready, skip, now)
            return None
        if self._shared is not None and ready.user_id is not None:
            self._shared.add(source_row, ready.user_id, ready.identifiers)
        return ready

    def shared(self) -> dict[int, str]:
        """Return the admitted rows that share a phone or email with another user id."""
        return {} if self._shared is None else self._shared.finish()

    def _died(self, row: Ready | Rejected, now: datetime) -> None:
        """Settle a row that an earlier try reserved and did not finish."""
        if isinstance(row, Ready):
            if self._is_repeated(row):  # then nothing but its opt-outs was sent
                row.send_only_opt_outs(Skip.DUPLICATE)
            if not row.claims:
                row.claims = self._claims_of(row, self._times_of(row, now))
            opt_ins = [one for one in row.claims if one.consent is not None]
            granted = self._account.were_granted([one.claim for one in opt_ins])
            denied = {one for one, was in zip(opt_ins, granted, strict=True) if not was}
            row.claims = tuple(one for one in row.claims if one not in denied)
        self._recorder.died(row, now)

    def _faults_of(self, ready: Ready, known: _Known, source_row: int, *, ambiguous: bool) -> list[Fault]:
        if ready.instead_of is not None:
            return []
        faults = [*known.faults, *([_AMBIGUOUS] if ambiguous else [])]
        if (others := self._index.shared.get(source_row)) is not None and self._preparer.settings.on_shared == "reject":
            faults.append(Fault("the phone or email", f"{others}; Regal would merge them into one contact"))
        return faults + self._drift.faults_of(ready.payload.body)

    def _decide_on(self, ready: Ready, known: _Known, now: datetime) -> Skip | None:
        if self._is_repeated(ready) and not ready.send_only_opt_outs(Skip.DUPLICATE):
            return Skip.DUPLICATE
        if ready.only_consent and ready.instead_of is None:  # a sync has examined all consents
            return None if ready.claims else Skip.OLDER
        times = self._times_of(ready, now) if ready.payload.consents else {}
        if older := {consent: self._why_not(consent) for consent, at in times.items() if at is None}:
            ready.send_instead(ready.payload.without(older))
        if ready.instead_of is not None:
            ready.claims = self._claims_of(ready, times)
            if ready.payload.consents:
                return None
            return ready.instead_of if isinstance(ready.instead_of, Skip) else Skip.OLDER
        if known.key is not None:
            ready.payload_hash = hash_of_body(ready.body, self._seed)
            if known.payload_before == ready.payload_hash and not known.has_news:
                return Skip.UNCHANGED
            # The result may change with time alone, as may the meaning of an opt-out without a time.
            if ready.payload.withheld or any(one.at is None for one in ready.payload.consents):
                ready.row_hash = None
        ready.claims = self._claims_of(ready, times)
        return None

    def _is_repeated(self, ready: Ready) -> bool:
        """Return whether an earlier row of the source has the same message id."""
        return ready.message_id is not None and self._index.first_of(ready.message_id) != ready.position

    def _is_overtaken(self, ready: Ready) -> bool:
        """Return whether a dead letter's contact was sent again since it failed."""
        if ready.letter_time is None or ready.payload.call != "identify":
            return False
        key = ready.key or ready.identifiers[0].removeprefix("user:")
        acknowledged = self._account.contacts_acknowledged([key]).get(key, "")
        return acknowledged > ready.letter_time

    def _times_of(self, ready: Ready, now: datetime) -> dict[Consent, str | None]:
        return {consent: self._time_of(consent, now) for consent in ready.payload.consents}

    def _time_of(self, consent: Consent, now: datetime) -> str | None:
        """Return when a consent was given; None if it must not be sent.

        The index has every opt-in that could be sent when the rows were read. An opt-in it lacks had a time in the
        future then. Newer decisions may have been sent without their time since, so it can't be known which is newer.
        """
        at = None if consent.at is None else to_ledger_time(consent.at)
        newest = self._index.newest(consent.identifier, consent.channel)
        if consent.subscribed:
            if self._index.is_unreadable(consent.identifier, consent.channel, at or ""):
                return None
            return at if newest == (at, True) else None
        if newest is None:
            return at or to_ledger_time(now)
        if at is None:  # it counts as given when it was read
            return newest.at
        return None if (at, True) < (newest.at, not newest.subscribed) else at

    def _why_not(self, consent: Consent) -> str:
        newest = self._index.newest(consent.identifier, consent.channel)
        at = "" if consent.at is None else to_ledger_time(consent.at)
        if consent.subscribed and self._index.is_unreadable(consent.identifier, consent.channel, at):
            return _UNREADABLE
        return OLDER if newest is not None and at <= newest.at else _TO_COME

    def _claims_of(self, ready: Ready, times: Mapping[Consent, str | None]) -> tuple[Claimed, ...]:
        if not times and ready.message_id is None:  # the common case
            return ()
        once = ready.guarantee == "at_most_once"
        claims = [
            Claimed(
                Claim(
                    OPT_IN,
                    consent.identifier,
                    consent.channel,
                    consent.subscribed,
                    at,
                    once=once and consent.subscribed,
                    force=ready.force,
                    news=self._of_plan and not consent.subscribed,
                ),
                consent,
            )
            for consent, at in times.items()
            if at is not None
        ]
        if ready.message_id is not None and ready.payload.call in NAMED_CALLS:
            claims.append(Claimed(Claim(TRACK, ready.message_id, once=once, force=ready.force)))
        return tuple(claims)


def _was_erased(row: Mapping[str, Any]) -> bool:
    """Return whether a row was removed from the snapshot because its person was forgotten."""
    return SKIP_MARK in row and row[SKIP_MARK] == Skip.SUPPRESSED and EVENT_MARK not in row


class _Known:
    """What is on record for a row before it is prepared."""

    __slots__ = ("faults", "has_news", "key", "payload_before", "row_hash")

    def __init__(self) -> None:
        self.key: str | None = None
        self.has_news = False
        self.row_hash: str | None = None
        self.payload_before: str | None = None
        self.faults: tuple[Fault, ...] = ()
