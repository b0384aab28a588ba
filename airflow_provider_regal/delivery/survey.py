"""A look at every row before the first is sent: what one row has to know of the others goes into the index.

::

    row ─▶ consent in it? ─▶ newest per phone or email and channel ─▶ index
       │                 └─▶ opt-outs ─▶ ledger, as barriers: whatever becomes of their own sends
       ├─▶ message id ──────▶ its first row ─────────────────────────▶ index
       └─▶ key of a contact ▶ how many rows have it ─────────────────▶ index
                             └ has Regal a yes that its no ends? ────▶ index
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.keys import ContactKeys
from airflow_provider_regal.delivery.marks import CLAIMS_MARK, EVENT_MARK, REJECT_MARK, SKIP_MARK, columns_of
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.prepared import Ready
from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events.names import EMAILS, MESSAGE_ID, OPT_IN, PHONES, TRAITS
from airflow_provider_regal.journal.ledger_rules import OPT_IN as CONSENT
from airflow_provider_regal.journal.ledger_rules import Claim, to_ledger_time
from airflow_provider_regal.journal.row_index import RowIndex
from airflow_provider_regal.journal.rows import decode_row, encode_row

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

_BATCH: Final = 1_000
# Rows that are not sent, and those of a sync, which has looked at them.
_LOOKED_AT: Final = frozenset({SKIP_MARK, REJECT_MARK, CLAIMS_MARK})
_MESSAGE_ID: Final = frozenset({"message_id", MESSAGE_ID})
_OPT_INS: Final = frozenset({OPT_IN, "opt_in"})
_CONSENT_TRAITS: Final = _OPT_INS | {PHONES, EMAILS}


class Survey:
    """Makes the index of a delivery.

    :param keys: where a contact's key stands; None if keys do not matter.
    :param ledger: gets the opt-outs, as barriers.
    """

    def __init__(
        self, preparer: Preparer, index: RowIndex, *, keys: ContactKeys | None, ledger: Ledger | None, clock: Clock
    ) -> None:
        self._preparer = preparer
        self._index = index
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._opt_outs: list[tuple[str, str, str | None]] = []
        self._contacts: list[str | None] = []  # whose opt-outs these are

    def watch(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Give the rows on, having looked at each; the index counts once all have passed."""
        for position, row in enumerate(rows):
            self._look(position, row)
            yield row
        self._bar()
        self._index.finish()

    def _look(self, position: int, row: Mapping[str, Any]) -> None:
        if not _LOOKED_AT.isdisjoint(row):
            return
        columns, key = columns_of(row), None
        if self._keys is not None:
            with suppress(InvalidEventError):  # it is said of this row when its turn comes
                key = self._keys.key_of(columns)
                self._index.add_key(key)
        if EVENT_MARK in row:
            worth_it = _event_may_carry_consent(columns) or bool(columns.keys() & _MESSAGE_ID)
        else:
            plan = self._preparer.mapper_of(row).plan(tuple(columns))
            worth_it = plan.may_carry_consent or plan.has_message_id
        if worth_it:
            now = self._clock.now()
            # Through the form of the snapshot, so that both looks see the same.
            self._take(position, self._preparer.prepare(position, decode_row(encode_row(row)), now), now, key)

    def _take(self, position: int, seen: object, now: datetime, key: str | None) -> None:
        if not isinstance(seen, Ready):
            return
        if seen.message_id is not None:
            self._index.add_message(seen.message_id, position)
        for consent in seen.payload.consents:
            at = None if consent.at is None else to_ledger_time(consent.at)
            if consent.subscribed:
                self._index.add_consent(consent.identifier, consent.channel, at or "", subscribed=True)
            elif self._ledger is None:
                at = at or to_ledger_time(now)
                self._index.add_consent(consent.identifier, consent.channel, at, subscribed=False)
            else:
                self._opt_outs.append((consent.identifier, consent.channel, at))
                self._contacts.append(key)
        if len(self._opt_outs) >= _BATCH:
            self._bar()

    def _bar(self) -> None:
        if self._ledger is None or not self._opt_outs:
            return
        times = self._ledger.bar(self._opt_outs)
        dated = [(identifier, channel, at) for (identifier, channel, _), at in zip(self._opt_outs, times, strict=True)]
        for identifier, channel, at in dated:
            self._index.add_consent(identifier, channel, at, subscribed=False)
        if self._keys is not None:
            # One without a time may be new, though its row is as it was: Regal has heard a yes since.
            ends_a_yes = self._ledger.end_a_yes([Claim(CONSENT, *out[:2], False, out[2]) for out in dated])
            for key, ends in zip(self._contacts, ends_a_yes, strict=True):
                if ends and key is not None:
                    self._index.add_news(key)
        self._opt_outs.clear()
        self._contacts.clear()


def _event_may_carry_consent(written: Mapping[str, Any]) -> bool:
    traits = written.get(TRAITS)
    if any(written.get(name) for name in _OPT_INS) or (isinstance(traits, Mapping) and traits.keys() & _CONSENT_TRAITS):
        return True
    for points in (written.get("phones"), written.get("emails")):
        if isinstance(points, Mapping) and points:
            return True
        if points and any(not isinstance(point, Mapping) or point.get("opt_ins") for point in points):
            return True
    return False
