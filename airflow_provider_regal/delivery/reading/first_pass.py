"""The first pass reads and examines every row before the first is sent.

::

    source ─▶ skipped by its source? ─▶ unchanged, forgotten? ─▶ consent in it? ─▶ snapshot ─▶ what has to be sent
                   counted                  counted    │  (ledger)       (ledger)
                                            (ledger)   ├─▶ newest per phone or email and channel ─▶ index
                                                       ├─▶ opt-outs ─▶ ledger, as barriers, whatever becomes of them
                                                       └─▶ message id: its first row ─▶ index

Unchanged rows and rows of forgotten people never enter the snapshot.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, TypeVar

from airflow_provider_regal.delivery.reading.grants import OLDER
from airflow_provider_regal.delivery.reading.keys import ContactKeys, hashes_of_rows
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.prepared import Ready, Rejected
from airflow_provider_regal.delivery.reading.row_index import RowIndex
from airflow_provider_regal.delivery.reading.shared import SharedIdentifiers
from airflow_provider_regal.delivery.reading.slips import look_for_slips
from airflow_provider_regal.delivery.reading.suppressing import person_of, says_news
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import InvalidEventError, RegalError
from airflow_provider_regal.events.names import EMAILS, LOOSE_OPT_INS, MESSAGE_ID, PHONES, SEGMENT_OPT_IN, TRAITS
from airflow_provider_regal.events.rows.columns import ColumnsSeen, reserved_names
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Counts
from airflow_provider_regal.ledger.people.consent_log import WITHHELD, LoggedConsent
from airflow_provider_regal.ledger.people.suppressions import Suppressions
from airflow_provider_regal.ledger.rows import RowChunk, decode_row, encode_row
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.states import RowState, Skip
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.marks import (
    CALL_MARK,
    CLAIMS_MARK,
    EVENT_MARK,
    OWED_MARK,
    REJECT_MARK,
    ROW_MARK,
    SKIP_MARK,
    WEIGHT_MARK,
    columns_of,
)
from airflow_provider_regal.sources.rows import as_row

T = TypeVar("T")
Row = Mapping[str, Any]
_BATCH: Final = 1_000
_CHUNKS_AT_ONCE: Final = 4
# Rows that are not sent, and rows of a sync, which has already examined them.
_LOOKED_AT: Final = frozenset({REJECT_MARK, CLAIMS_MARK})
# Rows without a person, or with opt-outs only.
_NOT_A_PERSON: Final = frozenset({REJECT_MARK, SKIP_MARK, OWED_MARK})
# Rows whose columns are not the source's.
_NOT_THE_SOURCES: Final = frozenset({EVENT_MARK, REJECT_MARK, SKIP_MARK, CALL_MARK})
_MESSAGE_ID: Final = frozenset({"message_id", MESSAGE_ID})
_OPT_INS: Final = frozenset({SEGMENT_OPT_IN, "opt_in"})
_NO_OPT_IN: Final = {"subscribed": False}
_CONSENT_TRAITS: Final = _OPT_INS | {PHONES, EMAILS, *LOOSE_OPT_INS}


class FirstPass:
    """Reads the rows of a delivery.

    :param counts: counts the rows that are read and skipped.
    :param read_at: the time assumed for opt-outs without one.
    :param keep: stores chunks of the snapshot.
    :param withheld: stores lines of the consent log, for opt-ins of a sync that are not sent.
    :param commits: whether opt-outs are committed as barriers; False in a dry run.
    """

    def __init__(
        self,
        preparer: Preparer,
        index: RowIndex,
        account: Account,
        counts: Counts,
        *,
        read_at: datetime,
        keep: Callable[[Sequence[RowChunk]], None],
        withheld: Callable[[LoggedConsent], None] = lambda line: None,
        commits: bool = True,
    ) -> None:
        self._preparer = preparer
        self._index = index
        self._account = account
        self._counts = counts
        self._read_at = read_at
        self._keep = keep
        self._withheld = withheld
        self._commits = commits
        self._keys = preparer.keys
        self._keys_seen = _KeysSeen()
        self._opt_outs: list[tuple[str, str, str | None]] = []
        self._contacts: list[str | None] = []  # the contact of each opt-out
        self._chunks: list[RowChunk] = []
        self._position = 0
        self._last_row = 0
        rejects = preparer.settings.on_shared == "reject" and preparer.settings.sync is None
        self._shared = SharedIdentifiers(account) if rejects else None  # otherwise admission does it, cheaper
        self.columns_seen = ColumnsSeen(lower_upper=preparer.mapper.how.lower_upper)

    def read(self, given: Iterable[Any]) -> None:
        """Read all rows into the snapshot, except those that need not be sent."""
        try:
            self._read(given)
        except BaseException:
            with suppress(RegalError):
                self._bar()  # record the opt-outs read so far, even if reading failed
            raise
        self._write()
        self.finish()

    def _read(self, given: Iterable[Any]) -> None:
        rows = self._numbered(given)
        changed = self._changed(rows) if self._keys is not None else rows
        for source_row, row in self._without_forgotten(changed):
            weight = row.get(WEIGHT_MARK, 1)
            self._counts.read += weight
            if (why := row.get(SKIP_MARK)) is not None and EVENT_MARK not in row:
                self._counts.skip(why if why in _SKIPS else Skip.NOT_INCLUDED, weight)
                if why == Skip.OLDER and row.get(ROW_MARK, _NO_OPT_IN)["subscribed"]:  # from a sync
                    self._counts.withheld[OLDER] += weight
                    self._withheld(_withheld(row[ROW_MARK], source_row))
                continue
            self._note_who(source_row, row)
            self._look(self._position, row)
            self._add(source_row, row)

    def slip(self, settings: DeliverySettings) -> str | None:
        """Return the error if an option names a column that no row has. A sync checks this itself."""
        how = settings.mapping
        options = {"mapping": how.columns or {}, "types": how.types or {}}
        return look_for_slips(
            self.columns_seen, options, reserved=reserved_names(how), limited=settings.limit is not None
        )

    def add_owed(self, opt_outs: Iterable[Row]) -> int:
        """Append the opt-outs that Regal lacks to the source's rows, once the index is complete.

        :returns: how many.
        """
        count = 0
        for count, row in enumerate(opt_outs, 1):
            self._add(self._last_row + count, row)
        self._write()
        return count

    def _numbered(self, given: Iterable[Any]) -> Iterator[tuple[int, Row]]:
        for self._last_row, row in enumerate(map(as_row, given), 1):
            if _NOT_THE_SOURCES.isdisjoint(row):
                self.columns_seen.add((*columns_of(row),))
            yield self._last_row, row

    def look_again(self, rows: Iterable[tuple[int, int, Row]]) -> None:
        """Index the rows of a snapshot that an earlier try has read."""
        for position, source_row, row in rows:
            self._note_who(source_row, row)
            self._look(position, row)
        self.finish()

    def finish(self) -> None:
        """Complete the index."""
        self._bar()
        self._index.finish()
        if self._shared is not None:
            self._index.shared = self._shared.finish()

    def _note_who(self, source_row: int, row: Row) -> None:
        if self._shared is None or not _NOT_A_PERSON.isdisjoint(row):
            return
        if (found := self._preparer.shared_by(row)) is not None:
            self._shared.add(source_row, *found)

    def ambiguous(self, rows: Callable[[], Iterable[tuple[int, int, Row]]]) -> dict[int, int]:
        """Find the rows of the snapshot that share their key with another row.

        :param rows: reads the snapshot.
        """
        repeated = self._keys_seen.repeated()
        if self._keys is None or not repeated:
            return {}
        found = {}
        for position, _, row in rows():
            with suppress(InvalidEventError):
                if _hash_of(self._keys.key_of(columns_of(row))) in repeated:
                    found[position] = int(RowState.AMBIGUOUS)
        return found

    def _changed(self, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        """Return the rows that changed since Regal acknowledged them; count the others."""
        keys = self._keys
        if keys is None:
            return
        seed = self._account.identifiers.seed(self._preparer.fingerprint)
        ignored = self._preparer.ignored_columns
        for chunk in in_chunks(rows, _BATCH):
            columns = [columns_of(row) for _, row in chunk]
            told = columns
            if ignored:
                told = [{name: value for name, value in row.items() if name not in ignored} for row in columns]
            key_of_each = [_key(keys, row) for row in columns]
            known = self._account.contact_hashes([key for key in key_of_each if key is not None])
            unchanged = 0
            for one, key, row_hash in zip(chunk, key_of_each, hashes_of_rows(told, seed), strict=True):
                if key is None or SKIP_MARK in one[1]:
                    yield one
                    continue
                self._keys_seen.add(key)
                if known.get(key, _NOTHING)[0] == row_hash:
                    unchanged += 1
                else:
                    yield one
            self._counts.read += unchanged
            if unchanged:
                self._counts.skip(Skip.UNCHANGED, unchanged)

    def _without_forgotten(self, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        """Return the rows, except those of forgotten people without a new opt-out, which are counted."""
        suppressions = Suppressions(self._account)
        if not suppressions.any_forgotten():
            yield from rows
            return
        for chunk in in_chunks(rows, _BATCH):
            seen = [self._preparer.prepare(0, decode_row(encode_row(row)), self._read_at) for _, row in chunk]
            holds = suppressions.find([person_of(one) for one in seen])
            for (source_row, row), one, hold in zip(chunk, seen, holds, strict=True):
                if hold is None or says_news(one, hold):
                    yield source_row, row
                else:
                    self._counts.read += one.weight
                    self._counts.skip(Skip.SUPPRESSED, one.weight)

    def _add(self, source_row: int, row: Row) -> None:
        if not self._chunks or self._chunks[-1].is_full:
            if len(self._chunks) >= _CHUNKS_AT_ONCE:
                self._write()
            self._chunks.append(RowChunk())
        self._chunks[-1].add(source_row, row)
        self._position += 1

    def _write(self) -> None:
        if self._chunks:
            self._keep(self._chunks)
            self._chunks = []

    def _look(self, position: int, row: Row) -> None:
        if not _LOOKED_AT.isdisjoint(row):
            for identifier, channel, subscribed, at, *_ in row.get(CLAIMS_MARK, ()):
                self._index.add_consent(identifier, channel, at, subscribed=subscribed)
            return
        columns = columns_of(row)
        if EVENT_MARK in row:
            worth_it = _event_may_carry_consent(columns) or bool(columns.keys() & _MESSAGE_ID)
        else:
            plan = self._preparer.mapper_of(row).plan(tuple(columns))
            worth_it = plan.may_carry_consent or plan.has_message_id
        if worth_it:
            # Encode and decode, so that both passes see the same values.
            row = decode_row(encode_row(row))
            seen = self._preparer.prepare(position, row, self._read_at)
            if isinstance(seen, Ready):
                self._take(position, seen, _key(self._keys, columns) if self._keys else None)
            if isinstance(seen, Rejected) or isinstance(seen.instead_of, Rejected):
                self._take_unreadable(row)

    def _take(self, position: int, seen: Ready, key: str | None) -> None:
        if seen.message_id is not None:
            self._index.add_message(seen.message_id, position)
        for consent in seen.payload.consents:
            at = None if consent.at is None else to_ledger_time(consent.at)
            if consent.subscribed:
                if not self._is_repeated(seen):  # otherwise it is not sent and must not displace an opt-out
                    self._index.add_consent(consent.identifier, consent.channel, at or "", subscribed=True)
            else:
                self._opt_outs.append((consent.identifier, consent.channel, at))
                self._contacts.append(key)
        if len(self._opt_outs) >= _BATCH:
            self._bar()

    def _is_repeated(self, seen: Ready) -> bool:
        if seen.message_id is None:
            return False
        self._index.finish()
        return self._index.first_of(seen.message_id) != seen.position

    def _take_unreadable(self, row: Row) -> None:
        for one in self._preparer.unreadable_in(row):
            self._index.add_unreadable(one.identifier, one.channel, to_ledger_time(one.at or self._read_at))

    def _bar(self) -> None:
        if not self._opt_outs:
            return
        read_at = to_ledger_time(self._read_at)
        dated = [(identifier, channel, at or read_at) for identifier, channel, at in self._opt_outs]
        if self._commits:
            self._account.bar(dated)
        for identifier, channel, at in dated:
            self._index.add_consent(identifier, channel, at, subscribed=False)
        if self._keys is not None:
            # An opt-out without a time may be new although its row is unchanged, if Regal has received an opt-in since.
            ends_a_yes = self._account.end_a_yes([Claim(OPT_IN, *out[:2], False, out[2]) for out in dated])
            for key, ends in zip(self._contacts, ends_a_yes, strict=True):
                if ends and key is not None:
                    self._index.add_news(key)
        self._opt_outs.clear()
        self._contacts.clear()


def in_chunks(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split the rows of a source into lists. If it fails, the last list has what it returned before."""
    chunk: list[T] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) >= size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


_NOTHING: Final = (None, None)
_SKIPS: Final = frozenset(skip.value for skip in Skip)  # a source may use its own reason, which it logs


def _withheld(wanted: Row, source_row: int) -> LoggedConsent:
    return LoggedConsent(
        wanted["identifier"],
        wanted["channel"],
        bool(wanted["subscribed"]),
        wanted["at"],
        wanted["ip"],
        wanted["text"],
        wanted["source"],
        source_row,
        wanted.get("place"),
        WITHHELD,
        OLDER,
    )


def _key(keys: ContactKeys, columns: Row) -> str | None:
    try:
        return keys.key_of(columns)
    except InvalidEventError:  # reported when this row is prepared
        return None


class _KeysSeen:
    """Finds keys that several rows share, by their hashes: eight bytes a row."""

    def __init__(self) -> None:
        self._parts: list[array[int]] = [array("q") for _ in range(1 << 8)]

    def add(self, key: str) -> None:
        """Add the key of a row."""
        hashed = hash(key)  # stable within one process, which is enough here
        self._parts[hashed & 0xFF].append(hashed)

    def repeated(self) -> set[int]:
        """Return the hashes of the keys that more than one row has."""
        found: set[int] = set()
        for part in self._parts:
            if len(set(part)) < len(part):
                in_order = sorted(part)
                found.update(one for one, other in pairwise(in_order) if one == other)
        return found


_hash_of: Final = hash


def _event_may_carry_consent(written: Row) -> bool:
    traits = written.get(TRAITS)
    if any(written.get(name) for name in (*_OPT_INS, "unplaced")) or not LOOSE_OPT_INS.keys().isdisjoint(written):
        return True
    if isinstance(traits, Mapping) and traits.keys() & _CONSENT_TRAITS:
        return True
    for points in (written.get("phones"), written.get("emails")):
        if points and not isinstance(points, (list, tuple)):
            return True
        if points and any(not isinstance(point, Mapping) or point.get("opt_ins") for point in points):
            return True
    return False
