"""From the snapshot to rows that may be sent: what is settled, unchanged, repeated or wrong does not get further.

::

    snapshot ─▶ settled? ─▶ unchanged? ─▶ prepare ─▶ repeated? ─▶ newest consent? ─▶ types? ─▶ Ready, with its claims
                              (ledger)        └─▶ rejected           (index)        (ledger)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.books import Books
from airflow_provider_regal.delivery.claims import STALE
from airflow_provider_regal.delivery.keys import ContactKeys, hash_of_body, hash_of_row
from airflow_provider_regal.delivery.marks import columns_of
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.prepared import Claimed, LeftOut, Ready, Refused
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.delivery.type_drift import TypeDrift
from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import Consent
from airflow_provider_regal.journal.ledger_rules import OPT_IN, TRACK, Claim, to_ledger_time
from airflow_provider_regal.journal.progress import Skip
from airflow_provider_regal.journal.row_index import RowIndex
from airflow_provider_regal.journal.run_folder import RunFolder

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

# Looked up in the ledger at once.
_CHUNK: Final = 200
# So many rows are taken in before the loop looks at the network.
_AT_ONCE: Final = 32
_TO_COME: Final = "the timestamp lay in the future when the row was read"

Numbered = tuple[int, Mapping[str, Any]]


class Intake:
    """Takes the rows of a snapshot in.

    :param index: what rows have to know of each other.
    :param keys: skip contacts that did not change, by these keys; None to send all.
    """

    def __init__(
        self,
        folder: RunFolder,
        preparer: Preparer,
        books: Books,
        *,
        index: RowIndex,
        ledger: Ledger | None,
        keys: ContactKeys | None,
        drift: TypeDrift | None,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._preparer = preparer
        self._books = books
        self._index = index
        self._ledger = ledger
        self._keys = keys
        self._drift = drift
        self._clock = clock
        self._seed = preparer.fingerprint if ledger is None else ledger.keys.seed(preparer.fingerprint)

    def rows(self) -> Iterator[Ready | None]:
        """Give the rows to send, in order; None where it is time to look at the network."""
        progress = self._folder.progress
        rows = self._folder.rows(without=lambda position: progress.outcome(position) is not None)
        for count, (position, row, known) in enumerate(self._with_known(rows), 1):
            ready = self._take_in(position, row, known) if known is not None else None
            if ready is not None or count % _AT_ONCE == 0:
                yield ready

    def acknowledged_before(self) -> Iterator[Ready]:
        """Give the rows that were acknowledged, of which the ledger may not know: with what was sent of them.

        What was sent may be less than would be sent now, and other than under the options of now.
        """
        if self._ledger is None:
            return
        progress, marker = self._folder.progress, self._folder.marker
        same_options = marker is not None and marker.options == options_of(self._preparer, self._ledger)
        rows = self._folder.rows(without=lambda position: not progress.not_in_ledger(position))
        while chunk := [*islice(rows, _CHUNK)]:
            again = [ready for position, row in chunk if (ready := self._again(position, row)) is not None]
            for ready, whole in zip(again, self._keep_what_was_granted(again), strict=True):
                if not (whole and same_options):
                    ready.key = None  # the contact's hash would say that Regal has all of the row
                if not same_options:
                    ready.user_id = None  # nor is it sure with which phone it went
                yield ready

    def _again(self, position: int, row: Mapping[str, Any]) -> Ready | None:
        now = self._clock.now()
        ready = self._preparer.prepare(position, row, now)
        if not isinstance(ready, Ready):
            return None
        known = self._known(row)
        ready.key, ready.row_hash = known.key or ready.key, known.row_hash
        self._decide_on(ready, known, now)
        if self._drift is not None:
            self._drift.faults_of(ready.payload.body)
        return ready

    def _keep_what_was_granted(self, rows: Sequence[Ready]) -> list[bool]:
        """Drop claims of consents that an earlier try did not send, since the ledger or the rules of then denied them.

        :returns: of each row, whether it had none.
        """
        if self._ledger is None:
            return [True] * len(rows)
        asked = [claimed.claim for row in rows for claimed in row.claims if claimed.consent is not None]
        granted = dict(zip(asked, self._ledger.were_granted(asked), strict=True))
        # An opt-out may have been read before this delivery was given a ledger.
        self._ledger.bar((out.key, out.channel, out.at) for out, had in granted.items() if not (had or out.subscribed))
        whole = []
        for row in rows:
            kept = tuple(one for one in row.claims if one.consent is None or granted[one.claim])
            whole.append(len(kept) == len(row.claims))
            row.claims = kept
        return whole

    def _with_known(self, rows: Iterator[Numbered]) -> Iterator[tuple[int, Mapping[str, Any], _Known | None]]:
        """Give with each row what is known of it; None if it is the same as when it was last acknowledged."""
        if self._keys is None:
            nothing = _Known()
            yield from ((position, row, nothing) for position, row in rows)
            return
        while chunk := [*islice(rows, _CHUNK)]:
            yield from self._changed(chunk)

    def _changed(self, chunk: list[Numbered]) -> Iterator[tuple[int, Mapping[str, Any], _Known | None]]:
        told = [(position, row, self._known(row)) for position, row in chunk]
        keys = [known.key for _, _, known in told if known.key is not None]
        hashes = self._ledger.contact_hashes(keys) if self._ledger is not None else {}
        counted = self._index.counted(keys)
        for position, row, known in told:
            if known.key is not None:
                before, known.payload_hash = hashes.get(known.key, (None, None))
                known.rows, known.has_news = counted.get(known.key, (0, False))
                if before == known.row_hash and known.rows == 1 and not known.has_news:
                    self._books.skip(position, Skip.UNCHANGED)
                    yield position, row, None
                    continue
            yield position, row, known

    def _known(self, row: Mapping[str, Any]) -> _Known:
        columns = columns_of(row)
        known = _Known()
        try:
            known.key = self._keys.key_of(columns) if self._keys else None
        except InvalidEventError as error:
            known.faults = error.faults
        known.row_hash = hash_of_row(columns, self._preparer.ignored_columns, self._seed)
        return known

    def _take_in(self, position: int, row: Mapping[str, Any], known: _Known) -> Ready | None:
        now = self._clock.now()
        ready = self._preparer.prepare(position, row, now)
        if isinstance(ready, LeftOut):
            self._books.leave_out(ready)
            return None
        if self._folder.progress.is_reserved(position):
            if isinstance(ready, Ready) and not ready.claims:
                ready.claims = self._claims_of(ready, self._times_of(ready, now))
            if isinstance(ready, Ready):
                self._keep_what_was_granted([ready])
            self._books.died(ready, now)
            return None
        if isinstance(ready, Ready) and (faults := self._faults_of(ready, known)):
            refused = self._preparer.refuse(position, row, ready.payload.call, tuple(faults))
            ready = self._preparer.opt_outs(refused, row, now) or refused
        if isinstance(ready, Refused):
            self._books.reject(ready, now)
            return None
        if self._is_overtaken(ready):
            rest = self._preparer.only_opt_outs(position, row, now)
            if rest is None:
                self._books.skip_row(ready, Skip.OVERTAKEN, now)
                return None
            ready.send_instead(rest.payload)
        if ready.instead_of is None:
            ready.key, ready.row_hash = known.key or ready.key, known.row_hash
        if skip := self._decide_on(ready, known, now):
            self._books.skip_row(ready, skip, now)
            return None
        self._books.note(ready)
        return ready

    def _faults_of(self, ready: Ready, known: _Known) -> list[Fault]:
        if ready.instead_of is not None:
            return []
        faults = list(known.faults)
        if known.rows > 1:
            faults.append(Fault("the key", f"stands in {known.rows} rows; with only_changed a contact is one row"))
        return faults + (self._drift.faults_of(ready.payload.body) if self._drift else [])

    def _decide_on(self, ready: Ready, known: _Known, now: datetime) -> Skip | None:
        if ready.message_id is not None and self._index.first_of(ready.message_id) != ready.position:
            return Skip.REPEATED
        if ready.only_consent and ready.instead_of is None:  # a sync has looked at all consents
            return None if ready.claims else Skip.STALE
        times = self._times_of(ready, now)
        stale = {consent: self._why_not(consent) for consent, at in times.items() if at is None}
        if stale:
            ready.send_instead(ready.payload.without(stale))
        if ready.instead_of is not None:
            ready.claims = self._claims_of(ready, times)
            return None if ready.payload.consents else Skip.STALE
        if known.key is not None:
            ready.payload_hash = hash_of_body(ready.body, self._seed)
            if known.payload_hash == ready.payload_hash and not known.has_news:
                return Skip.UNCHANGED
            if ready.payload.withheld:  # time alone may change what is sent
                ready.row_hash = None
        ready.claims = self._claims_of(ready, times)
        return None

    def _is_overtaken(self, ready: Ready) -> bool:
        """Say whether a dead letter's contact was sent anew since it failed."""
        if ready.letter_time is None or self._ledger is None or ready.payload.call != "identify":
            return False
        key = ready.key or ready.identifiers[0].removeprefix("user:")
        acknowledged = self._ledger.contacts_acknowledged([key]).get(key, "")
        return acknowledged > to_ledger_time(datetime.fromisoformat(ready.letter_time))

    def _times_of(self, ready: Ready, now: datetime) -> dict[Consent, str | None]:
        return {consent: self._time_of(consent, now) for consent in ready.payload.consents}

    def _time_of(self, consent: Consent, now: datetime) -> str | None:
        """Say when a consent was given; None if it must not be sent.

        The index has every opt-in that was fit to be sent when the rows were read. One it does not have said a time to
        come: newer words may have been sent without their time then, and nobody could tell.
        """
        at = None if consent.at is None else to_ledger_time(consent.at)
        newest = self._index.newest(consent.identifier, consent.channel)
        if consent.subscribed:
            return at if newest == (at, True) else None
        if newest is None:
            return at or to_ledger_time(now)
        if at is None:  # it counts as given when it was read
            return newest.at
        return None if (at, True) < (newest.at, not newest.subscribed) else at

    def _why_not(self, consent: Consent) -> str:
        newest = self._index.newest(consent.identifier, consent.channel)
        at = "" if consent.at is None else to_ledger_time(consent.at)
        return STALE if newest is not None and at <= newest.at else _TO_COME

    def _claims_of(self, ready: Ready, times: Mapping[Consent, str | None]) -> tuple[Claimed, ...]:
        if self._ledger is None:
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
                    once=once and (consent.subscribed or ready.payload.call in NAMED_CALLS),
                    force=ready.force,
                ),
                consent,
            )
            for consent, at in times.items()
            if at is not None
        ]
        if ready.message_id is not None and ready.payload.call in NAMED_CALLS:
            claims.append(Claimed(Claim(TRACK, ready.message_id, once=once, force=ready.force)))
        return tuple(claims)


def options_of(preparer: Preparer, ledger: Ledger | None) -> str:
    """Name the options under which rows are compared, sent and marked; another try may have others."""
    return preparer.fingerprint.hex() + (" without a ledger" if ledger is None else "")


class _Known:
    """What is known of a row before it is prepared."""

    __slots__ = ("faults", "has_news", "key", "payload_hash", "row_hash", "rows")

    def __init__(self) -> None:
        self.key: str | None = None
        self.rows, self.has_news = 1, False
        self.row_hash: str | None = None
        self.payload_hash: str | None = None
        self.faults: tuple[Fault, ...] = ()
