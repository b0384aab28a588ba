"""Determine what a sync of opt-ins has to send: read the source, compare it with the ledger, and check the result.

::

    source ─▶ unchanged? ─▶ read ─▶ newest per phone or email ─▶ compare ─▶ barriers ─▶ guards ─▶ opt-outs ─▶ opt-ins
               (hash)        └─▶ rejected      and channel       (ledger)   (ledger)      └─▶ opt-outs alone

Returns rows for a delivery, which sends them; every consent counts as one row of the source. A guard stops opt-ins and
what ``on_removed`` infers, but never an opt-out that the source states.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import chain, groupby, islice
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.guards import why_stopped
from airflow_provider_regal.delivery.reading.first_pass import in_chunks
from airflow_provider_regal.delivery.reading.keys import hashes_of_rows
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.slips import look_for_slips
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.sync.columns import LONG_FORM
from airflow_provider_regal.delivery.sync.events import as_contact, as_opt_out, as_track
from airflow_provider_regal.delivery.sync.rows import ConsentRows, Said, Unfit, user_key
from airflow_provider_regal.delivery.sync.store import SyncStore, Wanted
from airflow_provider_regal.errors import FixSourceError, RegalError
from airflow_provider_regal.events import ConsentPolicy
from airflow_provider_regal.events.names import EMAIL_CHANNELS
from airflow_provider_regal.events.options import WIDE_FORM
from airflow_provider_regal.events.rows.columns import ColumnsSeen
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Counts
from airflow_provider_regal.ledger.people.consent_log import RECORDED, LoggedConsent
from airflow_provider_regal.ledger.people.suppressions import Hold, Suppressions
from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.marks import (
    LOST_MARK,
    ORIGIN_MARK,
    PERSON_MARK,
    REJECT_MARK,
    ROW_MARK,
    SKIP_MARK,
    WEIGHT_MARK,
    Marked,
    columns_of,
)
from airflow_provider_regal.sources.rows import as_row

_log = logging.getLogger(__name__)
_CHUNK: Final = 500
# Erasing people removes some.
_LEAST_OF_BEFORE: Final = 0.5
_FLIPS_LOGGED: Final = 50
_FLIPS_LISTED: Final = 10_000
_TO_NO: Final = "the yes on record becomes a no; it is sent, since no guard holds an opt-out back"
_TO_YES: Final = "the no on record would become a yes; it is not sent"
_VANISHED: Final = "the yes on record is no longer in the source; no opt-out is sent"
# A few flips don't indicate a broken join, whatever their share.
_FLIPS_ALWAYS_ALLOWED: Final = 10
_CONSENTS_IN_EVENT: Final = 50
_BASELINE: Final = "initial='baseline': Regal had it before"
_KNOWN_TO_REGAL: Final = "Regal's own data says so"

OPT_OUTS_FIRST: Final = 0
THEN_OPT_INS: Final = 1


class Reconciliation:
    """Determines what a sync has to send.

    :param counts: receives the plan, and the reason if a guard stopped all but the opt-outs.
    :param runs: consent counts of the last finished runs of the task.
    :param dry_run: commit nothing.
    """

    def __init__(
        self,
        *,
        settings: DeliverySettings,
        sync: SyncSettings,
        preparer: Preparer,
        account: Account,
        counts: Counts,
        runs: Sequence[int] = (),
        clock: Clock,
        dry_run: bool = False,
    ) -> None:
        self._store = SyncStore()
        self._settings = settings
        self._sync = sync
        self._account = account
        self._counts = counts
        self._plan = counts.plan
        self._runs = runs
        self._clock = clock
        self._dry_run = dry_run
        self._seed = account.identifiers.seed(preparer.fingerprint)
        self._reader = ConsentRows(
            sync.columns,
            lower_upper=settings.mapping.lower_upper,
            reading=settings.reading,
            values=settings.mapping.values,
            policy=ConsentPolicy(require_ip=False) if sync.known_to_regal else settings.consent,
            phone_needed=sync.as_event is None,
            phones_of=account.plain_phones_of,
        )
        self._suppressions = Suppressions(account, monotonic=clock.monotonic)
        self._now = to_ledger_time(clock.now())
        self._older = 0
        self._too_many_flips = self._only_records = False
        self._seen = ColumnsSeen(lower_upper=settings.mapping.lower_upper)

    def rows(self, given: Iterable[Any]) -> Iterator[Marked]:
        """Return all rows: what is sent, opt-outs first, and what is not.

        :raises FixSourceError: the source failed a check, in a dry run; or there is nothing to compare it with.
        """
        self._check_the_ledger()
        first = not self._sync.known_to_regal and not self._account.has_consents()
        if first and self._sync.initial is None:
            raise FixSourceError(
                "No consent is on record yet. Choose what the first run does: initial='send' sends all of the "
                "source, initial='baseline' only records it, for a Regal account that has it already."
            )
        baseline = first and self._sync.initial == "baseline"
        self._only_records = baseline or self._sync.known_to_regal
        self._compare(given)
        guard = self._why_stopped()
        if guard is not None and self._dry_run:
            raise FixSourceError(f"{guard} Nothing was sent.")
        if self._sync.known_to_regal:
            self._record_known(guard)
        elif not self._dry_run:
            self._bar()
        if guard is not None:
            self._counts.guard = guard
            yield from self._only_opt_outs()
            return
        if not self._dry_run:
            self._account.record_said_again(map(claim_of, self._store.said_again()))
        sends = not self._only_records
        if not sends:
            self._plan.update(recorded=self._plan["sent"], sent=0, opt_outs=0, opt_ins=0)
        yield from self._not_sent(sends=sends)
        if sends:
            yield from self._events()
        elif baseline and not self._dry_run:
            self._account.baseline(_recorded(wanted, _BASELINE) for wanted in self._all_wanted())

    def _check_the_ledger(self) -> None:
        """Check that the ledger does not know far less than after an earlier run of the task.

        :raises FixSourceError: it was lost, or is a different one.
        """
        before = 0 if self._settings.restart or self._sync.known_to_regal else self._sync.known_before
        if before and (now := self._account.count_consents()) < before * _LEAST_OF_BEFORE:
            raise FixSourceError(
                f"The ledger has {now:,} consents of account {self._account.name!r} on record, but had {before:,} "
                "after an earlier run of this task: it was lost, or AIRFLOW_HOME, ledger_conn_id, the connection id or "
                "account changed. Opt-outs that it knew would be undone, so nothing was sent. Restore the ledger or "
                "the setting. To start over with the whole source, run the task once with restart=True and "
                "initial='send', or initial='baseline' to only record it."
            )

    def _compare(self, given: Iterable[Any]) -> None:
        """Read the source and compare it with the ledger."""
        file = self._account.database.file
        if file is None:
            self._store.know(self._account.consents())
        else:
            self._store.know_file(file, self._account.name)
        try:
            self._read(given, skip_unchanged=not self._sync.full_resync)
            self._store.compare(once=self._sync.as_event is not None, source=self._account.source)
        except BaseException:
            with suppress(RegalError):
                self._bar()  # record the opt-outs read so far, even if reading failed
            raise
        self._count()

    def _only_opt_outs(self) -> Iterator[Marked]:
        """Return what is sent if a guard stops the rest, and list the rows that caused it."""
        if self._too_many_flips:
            yield from self._flips()
        yield from _by_contact(self._store.to_send(subscribed=False, unchanged=False), OPT_OUTS_FIRST)

    def close(self) -> None:
        """Close the working database."""
        self._store.close()

    def _bar(self) -> None:
        """Commit the opt-outs that were read: from now on, no older opt-in is sent."""
        if not self._dry_run:
            self._account.bar(self._store.opt_outs())

    def _record_known(self, guard: str | None) -> None:
        """Record what Regal has, then bar what is older. In this order, so that none of it is ever owed.

        :param guard: why only the opt-outs are recorded.
        :raises FixSourceError: with that reason.
        """
        if not self._dry_run:
            opt_outs = self._store.to_send(subscribed=False, unchanged=False)
            opt_ins = self._store.to_send(subscribed=True, unchanged=False)
            news = opt_outs if guard else chain(opt_outs, opt_ins)
            self._account.record_known(
                chain(
                    (_recorded(wanted, _KNOWN_TO_REGAL) for wanted in news),
                    ((claim_of(wanted), None) for wanted in self._store.unchanged_consents()),
                )
            )
            self._bar()
        if guard is not None:
            raise FixSourceError(f"{guard} Only opt-outs were recorded.")

    def _read(self, given: Iterable[Any], *, skip_unchanged: bool) -> None:
        """Read the source; for unchanged rows, only the hash."""
        store, unchanged, before = self._store, 0, 0
        for rows in in_chunks(map(as_row, given), _CHUNK):
            chunk = [*map(self._columns, rows)]
            hashes = hashes_of_rows(chunk, self._seed)
            same = store.unchanged(hashes) if skip_unchanged else [0] * len(chunk)
            unchanged += sum(same)
            if not all(same):
                numbered = enumerate(zip(rows, chunk, hashes, same, strict=True), before + 1)
                fresh = [(*one[:3], number) for number, one in numbered if not one[3]]
                holds = self._holds([columns for _, columns, *_ in fresh])
                for (row, columns, row_hash, source_row), hold in zip(fresh, holds, strict=True):
                    self._read_one(row, columns, row_hash, source_row, hold)
            before += len(chunk)
        self._add("unchanged", unchanged)

    def _columns(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        columns = columns_of(row)
        if REJECT_MARK not in row:
            self._seen.add((*columns,))
        return columns

    def _holds(self, rows: Sequence[Mapping[str, Any]]) -> list[Hold | None]:
        """Find suppressed people. What is only recorded is held back for forgotten people alone."""
        if not self._suppressions.is_any():
            return [None] * len(rows)
        holds = self._suppressions.find([self._reader.people_in(columns) for columns in rows])
        if self._only_records:
            holds = [hold if hold is not None and hold.is_forgotten else None for hold in holds]
        return holds

    def _read_one(
        self, row: Any, columns: Mapping[str, Any], row_hash: str, source_row: int, hold: Hold | None
    ) -> None:
        marks = row if isinstance(row, Marked) else {}
        place = marks.get(ORIGIN_MARK) or f"row {source_row:,}"
        # Encode and decode, so that values mean the same as in any other delivery.
        line = encode_row(columns)
        if REJECT_MARK in marks:
            self._add("unreadable", 1)
            person = self._reader.people_in(columns)
            self._store.reject(line, place, json.dumps(marks[REJECT_MARK]), person, loses_a_decision=False)
            return
        now = self._clock.now()
        told = self._reader.read(decode_row(line), now)
        if not told:
            self._add("no_decision", 1)
        for said in told:
            if hold is not None and _is_held_back(said, hold):
                self._add("suppressed", 1)
                if (about := (said.identifier, said.channel) if isinstance(said, Said) else said.about) is not None:
                    self._store.mention(self._account.identifiers.stored(about[0]), about[1])
                continue
            if isinstance(said, Said):
                self._store.want(
                    self._account.identifiers.stored(said.identifier),
                    _wanted(said, f"{row_hash}{len(told)}", now, source_row, place),
                )
                self._bar_the_user(said, now)
                continue
            self._add("no_evidence" if said.no_evidence else "unreadable", 1)
            faults = [(fault.field, fault.reason) for fault in said.faults]
            person = self._reader.people_in(columns)
            self._store.reject(line, place, json.dumps(faults), person, loses_a_decision=said.loses_a_decision)
            if said.about is not None:
                identifier, channel = said.about
                key = self._account.identifiers.stored(identifier)
                self._store.mention(key, channel)
                if said.unreadable_at is not None:
                    self._store.doubt(key, channel, to_ledger_time(said.unreadable_at))
            if said.barrier is not None:
                self._bar_the_user(said.barrier, now)

    def _bar_the_user(self, said: Said, now: datetime) -> None:
        """If events represent opt-ins, make an opt-out also bar events that have the user id but no phone."""
        if self._sync.as_event is not None and not said.subscribed and said.user_id is not None:
            out = replace(said, identifier=user_key(said.user_id))
            self._store.bar(self._account.identifiers.stored(out.identifier), _wanted(out, None, now))

    def _add(self, what: str, count: int) -> None:
        self._plan[what] = self._plan.get(what, 0) + count

    def _count(self) -> None:
        """Complete the plan, in display order; its first five counts add up to the consents of the source."""
        store, read, resync = self._store, dict(self._plan), self._sync.full_resync
        opt_outs = sum(1 for _ in store.to_send(subscribed=False, unchanged=resync))
        opt_ins = sum(1 for _ in store.to_send(subscribed=True, unchanged=resync))
        as_it_is = store.still + store.count("unchanged")
        if resync:
            as_it_is = store.still
        self._older = store.superseded + read.get("unchanged", 0) - store.still
        self._plan.clear()
        self._plan.update(
            sent=opt_outs + opt_ins,
            unchanged=as_it_is + store.count("in_doubt"),
            older=self._older + store.count("stale"),
            no_evidence=read.get("no_evidence", 0),
            unreadable=read.get("unreadable", 0),
            opt_outs=opt_outs,
            opt_ins=opt_ins,
            suppressed=read.get("suppressed", 0),
            removed=0 if self._settings.limit is not None else store.removed(subscribed=True),
            recorded=0,
            no_decision=read.get("no_decision", 0),
        )

    @property
    def _consents_read(self) -> int:
        words = ("sent", "unchanged", "older", "no_evidence", "unreadable", "suppressed", "no_decision")
        return sum(self._plan[word] for word in words)

    def _why_stopped(self) -> str | None:
        """Return why only opt-outs are sent; None if the source passes all checks."""
        guard = why_stopped(self._consents_read, self._settings, self._runs, what="consent")
        if guard is not None:
            return guard
        slip = look_for_slips(
            self._seen,
            {"mapping": self._sync.columns},
            reserved=(*LONG_FORM, *WIDE_FORM),
            limited=self._settings.limit is not None,
        )
        if slip is not None:
            return slip
        if self._opts_out_removed and not self._account.identifiers.plain:
            return (
                "on_removed='opt_out' needs the identifiers of the people to opt out, but with [regal] ledger_key the "
                "ledger holds only hashes. Remove one of the two."
            )
        to_no, to_yes = (self._store.count_flips(subscribed=subscribed) for subscribed in (False, True))
        removed = self._plan["removed"] if self._opts_out_removed else 0
        flips, ratio = to_no + to_yes + removed, self._sync.max_change_ratio
        if ratio is None or flips <= _FLIPS_ALWAYS_ALLOWED:
            return None
        known = self._account.count_consents()
        if flips <= ratio * known:
            return None
        told = ((to_no, "to no"), (to_yes, "to yes"), (removed, "no longer in the source"))
        where = f" List them with: airflow regal outcomes {self._account.delivery}." if self._account.delivery else ""
        self._too_many_flips = True
        self._log_flips()
        return (
            f"{flips:,} of {known:,} known consents would flip, more than max_change_ratio={ratio:g} allows "
            f"({', '.join(f'{number:,} {how}' for number, how in told if number)}). A broken join looks like this."
            f"{where} If it is meant, raise max_change_ratio for one run."
        )

    def _log_flips(self) -> None:
        """Log the row numbers of consents that would flip; only the ledger shows the people."""
        for subscribed, how in ((False, "from yes to no; these are sent"), (True, "from no to yes; not sent")):
            rows = [one.source_row for one in islice(self._store.flips(subscribed=subscribed), _FLIPS_LOGGED + 1)]
            if rows:
                more = ", ..." if len(rows) > _FLIPS_LOGGED else ""
                _log.error("Flips %s: rows %s%s of the source", how, ", ".join(map(str, rows[:_FLIPS_LOGGED])), more)
        if self._opts_out_removed and self._plan["removed"]:
            _log.error("Flips since they are no longer in the source; not sent: %s", f"{self._plan['removed']:,}")

    def _flips(self) -> Iterator[Marked]:
        """Return a limited number of consents that would flip, to be listed as rejected."""
        yes_to_no = (_flip(one, _TO_NO, 0) for one in self._store.flips(subscribed=False))
        no_to_yes = (_flip(one, _TO_YES, 1) for one in self._store.flips(subscribed=True))
        gone = self._store.gone() if self._opts_out_removed else iter(())
        vanished = (_vanished(identifier, channel) for identifier, channel in gone)
        yield from islice(chain(yes_to_no, no_to_yes, vanished), _FLIPS_LISTED)

    @property
    def _opts_out_removed(self) -> bool:
        return self._sync.on_removed == "opt_out" and self._settings.limit is None

    def _not_sent(self, *, sends: bool) -> Iterator[Marked]:
        """Return what is not sent, so that every consent of the source has an outcome."""
        for line, place, faults, loses_a_decision, person in self._store.unfit():
            marks = {ORIGIN_MARK: place, **({LOST_MARK: True} if loses_a_decision else {}), PERSON_MARK: person}
            yield Marked({REJECT_MARK: json.loads(faults), ROW_MARK: decode_row(line), **marks})
        for wanted in self._store.stale():
            yield Marked({SKIP_MARK: Skip.OLDER.value, ROW_MARK: wanted._asdict()})
        skipped = {
            Skip.UNCHANGED.value: self._plan["unchanged"],
            Skip.OLDER.value: self._older,
            Skip.SUPPRESSED.value: self._plan["suppressed"],
            Skip.RECORDED.value: self._plan["recorded"],
            Skip.NO_DECISION.value: self._plan["no_decision"],
        }
        for why, count in skipped.items():
            if count:
                yield Marked({SKIP_MARK: why, WEIGHT_MARK: count})

    def _events(self) -> Iterator[Marked]:
        """Return what is sent: one event per contact and phase."""
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
                yield as_track(
                    wanted,
                    as_event,
                    phones=phones.get(wanted.user_id or "", ()),
                    phase=THEN_OPT_INS,
                )

    def _all_wanted(self) -> Iterator[Wanted]:
        for subscribed in (False, True):
            yield from self._store.to_send(subscribed=subscribed, unchanged=True)


def _is_held_back(said: Said | Unfit, hold: Hold) -> bool:
    """Return whether to leave out a consent of a suppressed or forgotten person; if suppressed, opt-outs are sent."""
    if isinstance(said, Unfit):
        return hold.is_forgotten or not said.loses_a_decision
    at = None if said.at is None else to_ledger_time(said.at)
    return said.subscribed or (hold.is_forgotten and not hold.is_news(said.identifier, said.channel, at))


def _flip(wanted: Wanted, why: str, weight: int) -> Marked:
    name = "email" if wanted.channel in EMAIL_CHANNELS else "phone"
    row = {
        "user_id": wanted.user_id, name: wanted.identifier, "channel": wanted.channel,
        "subscribed": bool(wanted.subscribed), "timestamp": wanted.at,
    }  # fmt: skip
    return Marked(
        {REJECT_MARK: [["max_change_ratio", why]], ROW_MARK: row, ORIGIN_MARK: wanted.place, WEIGHT_MARK: weight}
    )


def _vanished(identifier: str, channel: str) -> Marked:
    row = {"email" if channel in EMAIL_CHANNELS else "phone": identifier, "channel": channel}
    return Marked({REJECT_MARK: [["max_change_ratio", _VANISHED]], ROW_MARK: row, ORIGIN_MARK: "not in the source"})


def _wanted(said: Said, row_hash: str | None, now: datetime, source_row: int = 0, place: str | None = None) -> Wanted:
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
        source_row,
        place,
    )


def _by_contact(wanted: Iterator[Wanted], phase: int) -> Iterator[Marked]:
    for _, told in groupby(wanted, lambda one: (one.user_id, one.user_id or one.identifier)):
        while some := [*islice(told, _CONSENTS_IN_EVENT)]:
            yield as_contact(some, phase)


def _recorded(wanted: Wanted, why: str) -> tuple[Claim, LoggedConsent]:
    """Return a consent that is recorded without being sent, and its line of the consent log."""
    given_at = None if wanted.timeless else wanted.at
    evidence = (given_at, wanted.ip, wanted.text, wanted.source, wanted.source_row, wanted.place)
    return claim_of(wanted), LoggedConsent(
        wanted.identifier, wanted.channel, bool(wanted.subscribed), *evidence, RECORDED, why
    )


def claim_of(wanted: Wanted) -> Claim:
    """Return the claim for the ledger."""
    return Claim(
        OPT_IN, wanted.identifier, wanted.channel, bool(wanted.subscribed), wanted.at, row_hash=wanted.row_hash
    )
