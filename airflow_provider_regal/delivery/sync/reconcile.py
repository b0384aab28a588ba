"""A sync of opt-ins, up to what has to be sent: the source is read, compared with the ledger, and checked.

::

    source ─▶ unchanged? ─▶ read ─▶ newest per phone or email ─▶ compare ─▶ guards ─▶ barriers ─▶ opt-outs ─▶ opt-ins
               (hash)        └─▶ rejected      and channel       (ledger)                (ledger)

It gives rows for a delivery, which does the rest: every consent is one row of the source in its counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import groupby, islice
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.keys import hashes_of_rows
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.sync.events import as_contact, as_opt_out, as_track
from airflow_provider_regal.delivery.sync.rows import ConsentRows, Said, user_key
from airflow_provider_regal.delivery.sync.store import SyncStore, Wanted
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.marks import (
    LOST_MARK,
    MARKS,
    REJECT_MARK,
    ROW_MARK,
    SKIP_MARK,
    WEIGHT_MARK,
    Marked,
    as_row,
    columns_of,
)

_CHUNK: Final = 500
# A handful of flips is no broken join, whatever their share.
_FLIPS_ALWAYS_ALLOWED: Final = 10
_CONSENTS_IN_EVENT: Final = 50

OPT_OUTS_FIRST: Final = 0
THEN_OPT_INS: Final = 1


class Reconciliation:
    """Finds out what a sync has to send.

    :param plan: gets the counts.
    :param dry_run: commit nothing.
    """

    def __init__(
        self,
        *,
        settings: DeliverySettings,
        sync: SyncSettings,
        preparer: Preparer,
        account: Account,
        plan: dict[str, int],
        clock: Clock,
        dry_run: bool = False,
    ) -> None:
        self._store = SyncStore()
        self._settings = settings
        self._sync = sync
        self._account = account
        self._plan = plan
        self._clock = clock
        self._dry_run = dry_run
        self._seed = account.identifiers.seed(preparer.fingerprint)
        self._reader = ConsentRows(
            sync.columns,
            lower_upper=settings.mapping.lower_upper,
            reading=settings.reading,
            policy=settings.consent,
            phone_needed=sync.as_event is None,
            phones_of=account.plain_phones_of,
        )
        self._now = to_ledger_time(clock.now())

    def rows(self, given: Iterable[Any]) -> Iterator[Marked]:
        """Return what is to be sent, opt-outs first, with all that is not.

        :raises FixSourceError: what the source says cannot be meant; nothing is committed, nothing sent.
        """
        known = not self._sync.full_resync
        first = not self._account.has_consents()
        if first and self._sync.initial is None:
            raise FixSourceError(
                "No consent is on record yet. Choose what the first run does: initial='send' sends all of the "
                "source, initial='baseline' only records it, for a Regal account that has it already."
            )
        file = self._account.database.file
        if file is None:
            self._store.know(self._account.consents())
        else:
            self._store.know_file(file, self._account.name)
        self._read(given, skip_unchanged=known)
        self._store.compare(once=self._sync.as_event is not None, source=self._account.source)
        self._count()
        self._check_the_source()
        if not self._dry_run:
            self._account.bar(self._store.opt_outs())
            self._account.record_said_again(map(claim_of, self._store.said_again()))
        baseline = first and self._sync.initial == "baseline"
        if baseline:  # nothing of it is sent
            self._plan.update(opt_outs=0, opt_ins=0)
        yield from self._not_sent(baseline=baseline)
        if not baseline:
            yield from self._events()
        elif not self._dry_run:
            self._account.baseline(claim_of(wanted) for wanted in self._all_wanted())

    def close(self) -> None:
        """Close the working file."""
        self._store.close()

    def _read(self, given: Iterable[Any], *, skip_unchanged: bool) -> None:
        """Read the source; of rows that did not change only the hash."""
        rows, store, unchanged = map(_columns, given), self._store, 0
        while chunk := [*islice(rows, _CHUNK)]:
            hashes = hashes_of_rows(chunk, self._seed)
            same = store.unchanged(hashes) if skip_unchanged else [0] * len(chunk)
            unchanged += sum(same)
            if not all(same):
                for columns, row_hash, consents in zip(chunk, hashes, same, strict=True):
                    if not consents:
                        self._read_one(columns, row_hash)
        self._add("unchanged", unchanged)

    def _read_one(self, columns: Mapping[str, Any], row_hash: str) -> None:
        # Through the form of the snapshot, so that rows mean what they mean in every other delivery.
        line = encode_row(columns)
        now = self._clock.now()
        told = self._reader.read(decode_row(line), now)
        if not told:
            self._add("silent", 1)
        for said in told:
            if isinstance(said, Said):
                self._store.want(
                    self._account.identifiers.stored(said.identifier), _wanted(said, f"{row_hash}{len(told)}", now)
                )
                self._bar_the_user(said, now)
                continue
            self._add("rejected", 1)
            faults = [(fault.field, fault.reason) for fault in said.faults]
            self._store.reject(line, json.dumps(faults), loses_a_decision=said.loses_a_decision)
            if said.about is not None:
                identifier, channel = said.about
                key = self._account.identifiers.stored(identifier)
                self._store.mention(key, channel)
                if said.unreadable_at is not None:
                    self._store.doubt(key, channel, to_ledger_time(said.unreadable_at))
            if said.barrier is not None:
                self._bar_the_user(said.barrier, now)

    def _bar_the_user(self, said: Said, now: datetime) -> None:
        """Let an opt-out bar events, too, that name the person but not the phone."""
        if self._sync.as_event is not None and not said.subscribed and said.user_id is not None:
            out = replace(said, identifier=user_key(said.user_id))
            self._store.bar(self._account.identifiers.stored(out.identifier), _wanted(out, None, now))

    def _add(self, what: str, count: int) -> None:
        self._plan[what] = self._plan.get(what, 0) + count

    def _count(self) -> None:
        """Complete the plan, in the order in which it is shown."""
        store, read, still = self._store, dict(self._plan), self._store.still
        self._plan.clear()
        self._plan.update(
            new=store.count("new"),
            changed=store.count("changed"),
            unchanged=still + store.count("unchanged"),
            superseded=store.superseded + read.get("unchanged", 0) - still,
            stale=store.count("stale"),
            in_doubt=store.count("in_doubt"),
            silent=read.get("silent", 0),
            rejected=read.get("rejected", 0),
            opt_outs=sum(1 for _ in store.to_send(subscribed=False, unchanged=self._sync.full_resync)),
            opt_ins=sum(1 for _ in store.to_send(subscribed=True, unchanged=self._sync.full_resync)),
            removed=0 if self._settings.limit is not None else store.removed(subscribed=True),
        )

    @property
    def _consents_read(self) -> int:
        kinds = ("new", "changed", "unchanged", "superseded", "stale", "in_doubt", "silent", "rejected")
        return sum(self._plan[kind] for kind in kinds)

    def _check_the_source(self) -> None:
        """Refuse what cannot be meant, before anything is committed."""
        if self._consents_read < self._settings.min_rows:
            raise FixSourceError(
                f"The source has {self._consents_read:,} consents, fewer than min_rows={self._settings.min_rows}; "
                "nothing was sent."
            )
        if self._opts_out_removed and not self._account.identifiers.plain:
            raise FixSourceError(
                "on_removed='opt_out' needs the identifiers of the people to opt out, but with [regal] ledger_key the "
                "ledger holds only hashes. Remove one of the two."
            )
        flips = self._store.flips + (self._plan["removed"] if self._opts_out_removed else 0)
        known, ratio = self._store.known_to_us + self._plan["unchanged"], self._sync.max_change_ratio
        if ratio is not None and flips > max(_FLIPS_ALWAYS_ALLOWED, ratio * known):
            raise FixSourceError(
                f"{flips:,} of {known:,} known consents would flip, more than max_change_ratio={ratio:g} allows; "
                "nothing was sent. A broken join looks like this. If it is meant, raise max_change_ratio for one run."
            )

    @property
    def _opts_out_removed(self) -> bool:
        return self._sync.on_removed == "opt_out" and self._settings.limit is None

    def _not_sent(self, *, baseline: bool) -> Iterator[Marked]:
        """Return what is not sent, so that every consent of the source has an outcome."""
        for line, faults, loses_a_decision in self._store.unfit():
            marks = {LOST_MARK: True} if loses_a_decision else {}
            yield Marked({REJECT_MARK: json.loads(faults), ROW_MARK: decode_row(line), **marks})
        for wanted in self._store.stale():
            yield Marked({SKIP_MARK: Skip.OLDER.value, ROW_MARK: wanted._asdict()})
        plan = self._plan
        skipped = {
            Skip.UNCHANGED.value: 0 if self._sync.full_resync and not baseline else plan["unchanged"],
            Skip.DUPLICATE.value: plan["in_doubt"],
            Skip.OLDER.value: plan["superseded"],
            Skip.SILENT.value: plan["silent"],
            Skip.BASELINE.value: plan["new"] + plan["changed"] if baseline else 0,
        }
        for why, count in skipped.items():
            if count:
                yield Marked({SKIP_MARK: why, WEIGHT_MARK: count})

    def _events(self) -> Iterator[Marked]:
        """Return what is sent: one event for all that a phase has to say to a contact."""
        resync, as_event = self._sync.full_resync, self._sync.as_event
        yield from _by_contact(self._store.to_send(subscribed=False, unchanged=resync), OPT_OUTS_FIRST)
        if self._opts_out_removed:
            for identifier, channel in self._store.gone():
                yield as_opt_out(identifier, channel, self._now, OPT_OUTS_FIRST)
        opt_ins = self._store.to_send(subscribed=True, unchanged=resync)
        if as_event is None:
            yield from _by_contact(opt_ins, THEN_OPT_INS)
            return
        while chunk := [*islice(opt_ins, _CHUNK)]:
            phones = self._account.phones_of(wanted.user_id for wanted in chunk if wanted.user_id is not None)
            for wanted in chunk:
                yield as_track(wanted, as_event, phones=phones.get(wanted.user_id or "", ()), phase=THEN_OPT_INS)

    def _all_wanted(self) -> Iterator[Wanted]:
        for subscribed in (False, True):
            yield from self._store.to_send(subscribed=subscribed, unchanged=True)


def _wanted(said: Said, row_hash: str | None, now: datetime) -> Wanted:
    """:param now: when an opt-out without a time counts as given."""
    at = to_ledger_time(now if said.at is None else said.at)
    return Wanted(
        said.identifier,
        said.channel,
        int(said.subscribed),
        at,
        int(said.at is None),
        said.user_id,
        said.ip,
        said.text,
        said.source,
        row_hash,
    )


def _columns(row: Any) -> Mapping[str, Any]:
    if type(row) is dict and row.keys().isdisjoint(MARKS):  # which is usual, and quicker
        return row
    return columns_of(as_row(row))


def _by_contact(wanted: Iterator[Wanted], phase: int) -> Iterator[Marked]:
    for _, told in groupby(wanted, lambda one: (one.user_id, one.user_id or one.identifier)):
        while some := [*islice(told, _CONSENTS_IN_EVENT)]:
            yield as_contact(some, phase)


def claim_of(wanted: Wanted) -> Claim:
    """Return what the ledger remembers of it."""
    return Claim(
        OPT_IN, wanted.identifier, wanted.channel, bool(wanted.subscribed), wanted.at, row_hash=wanted.row_hash
    )
