"""The recorder collects the outcome of each row and commits it.

::

    engine ─▶ acknowledge | refuse | unknown | ... ─▶ Changes ─▶ one commit ─▶ ledger
       └────▶ reserve (asks the ledger, within the commit) ────────▲

Each commit is one transaction. If a commit fails, sending stops, and the commit is retried within ``patience_s``.

Five methods are for rows that no answer of Regal settles. Only ``skip`` and ``leave_out`` settle the row:

==============  ================================================  =====================================================
method          the row                                           what is recorded
==============  ================================================  =====================================================
``release``     is sent again later in this try                   open again; its claims are given back, or unknown if
                                                                  it may have arrived
``leave_open``  is left to a later try (stopped, key refused)     as ``release``; also counts its requests
``skip``        was prepared, and is not sent on purpose          skipped, with the reason; what it withholds, in a dry
                                                                  run. If its opt-outs were tried alone: what the row
                                                                  itself is (rejected or skipped)
``leave_out``   is skipped whatever it says: its person is        skipped, with the reason; nothing else of the row
                suppressed, or only its opt-outs were sent
``drop``        is a single event that was not applied; the       its claims are given back, and its line is removed:
                caller gets the error                             it has no snapshot, and nothing sends it again
==============  ================================================  =====================================================
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy.engine import Connection

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.exchange import Decision
from airflow_provider_regal.client.redact import fit_to_show
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.reading.grants import OLDER, Grant, grant
from airflow_provider_regal.delivery.reading.keys import hash_of_body
from airflow_provider_regal.delivery.reading.prepared import Ready, Refusal, Rejected
from airflow_provider_regal.delivery.reading.type_drift import TypeDrift
from airflow_provider_regal.delivery.sending.gate import LONGEST_PROBE_S
from airflow_provider_regal.delivery.sending.share import RateShare
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.errors import FixConnectionError, LedgerError, TakenOverError
from airflow_provider_regal.events import Consent
from airflow_provider_regal.events.names import IS_PRIMARY, MESSAGE_ID, NAME, PHONES, PROPERTIES, TRAITS, Channel
from airflow_provider_regal.events.payload import lost_by_promotion
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Changes, Commit, Held
from airflow_provider_regal.ledger.formats import duration
from airflow_provider_regal.ledger.outcomes import HAS_DECISION, OutcomeLine, encoded, line_of
from airflow_provider_regal.ledger.people import consent_log
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.schema import LONGEST_MESSAGE
from airflow_provider_regal.ledger.states import Outcome, RowState, Skip
from airflow_provider_regal.ledger.text import Moments, from_ledger_time, to_ledger_time

_log = logging.getLogger(__name__)
#: Nothing is sent if the last commit is older than this: another try may have taken over since.
FRESH_S: Final = 3.0
COMMIT_EVERY_S: Final = 1.0
_MOST_CHANGES: Final = 10_000
_AGAIN_S: Final = 0.5
# Why a row became unknown for reasons outside the row; these cause a warning but don't fail the task.
_DIED: Final = "worker died"
_INTERRUPTED: Final = "interrupted"
_OUTAGE: Final = "outage"
_VANISHED: Final = "no longer in the source of the sync"
_ACKNOWLEDGED: Final = int(RowState.ACKNOWLEDGED)
_NOTHING: Final[Mapping[str, Any]] = {}
_NUMBERED: Final = re.compile(r"\[\d+\]")  # phones[1]: one note for all positions


class Recorder:
    """Collects and commits the outcomes of a delivery's rows.

    ``notes`` counts what Regal will do that the sender may not expect.

    :param held: the delivery.
    :param target: for messages about the connection; its key is masked in Regal's messages.
    :param drift: collects the types that were sent for the first time; None if they are not recorded.
    :param patience_s: seconds for which a commit is retried.
    :param share: of the account's rate, agreed on in the commits.
    """

    def __init__(
        self,
        held: Held,
        account: Account,
        target: Target,
        *,
        drift: TypeDrift | None,
        patience_s: float,
        clock: Clock,
        share: RateShare | None = None,
    ) -> None:
        self._held = held
        self._account = account
        self._target = target
        self._drift = drift
        self._patience_s = patience_s
        self._share = share
        self._clock = clock
        self._moments = Moments(now=clock.now, monotonic=clock.monotonic)
        self._changes = Changes()
        self._committing = asyncio.Lock()
        self._last_commit = self._counted_until = clock.monotonic()
        self._failing = False
        self._lost = self._stopping = False
        self._outage_since: datetime | None = None
        self._enough = asyncio.Event()
        self.notes: Counter[str] = Counter()

    # -- commits ------------------------------------------------------------------------------------------------------

    def wait_s(self, now: float) -> float:
        """Return 0 if rows may be sent, else the seconds until it is worth asking again.

        :param now: monotonic seconds.
        """
        return 0.05 if self._lost or self._failing or now - self._last_commit > FRESH_S else 0.0

    async def commit(self, *, last: bool = False) -> None:
        """Write the collected changes.

        :param last: also give back the share of the account's rate.
        :raises LedgerError: the commit failed within the patience; the changes are kept for another attempt.
        :raises TakenOverError: another try has taken over the delivery.
        """
        async with self._committing:
            await self._commit((), last=last)

    @property
    def fresh_for_s(self) -> float:
        """For how long a row may be sent after its claims were granted."""
        return self._account.fresh_for_s

    @property
    def is_full(self) -> bool:
        """Whether there are enough changes for a commit."""
        return len(self._changes.outcomes) >= _MOST_CHANGES

    def commit_now(self) -> None:
        """Write the collected changes, while nothing else is running."""
        changes, self._changes = self._changes, Changes()
        if self._drift is not None:
            changes.types |= self._drift.take_new()
        self._held.commit(changes)
        self._note_promotions(changes)

    async def keep_committing(self) -> None:
        """Commit at least every second; more often while others share the rate, and when many changes are waiting."""
        while not self._stopping:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._share.every_s if self._share else COMMIT_EVERY_S)
            self._enough.clear()
            await self.commit()

    def stop_committing(self) -> None:
        """Make :meth:`keep_committing` end soon: a commit must not be canceled halfway."""
        self._stopping = True
        self._enough.set()

    async def reserve(self, rows: Sequence[Ready]) -> list[Grant]:
        """In one commit, ask the ledger which rows may be sent, and reserve those that must not be sent twice."""
        async with self._committing:
            grants = await self._commit(rows)
        now, moment = self._clock.monotonic(), self._clock.now()
        for one in grants:
            one.row.claimed_at = now
            self.apply(one, moment)
        return grants

    def apply(self, grant: Grant, now: datetime) -> None:
        """Reduce the row to what was granted; settle it if it may not be sent."""
        grant.apply()
        if grant.skip is not None:
            self._note_withheld(grant.row)
            if grant.skip is Skip.OLDER and not grant.row.payload.withheld:  # the event itself represents the opt-in
                self._held.counts.withheld[OLDER] += 1
            self.skip(grant.row, grant.skip, now)

    def reserve_now(self, row: Ready, *, hold_s: int) -> list[Grant]:
        """Reserve one row, while nothing else is running; it counts as unknown until its outcome is committed.

        :param hold_s: seconds that its requests may take in total.
        """
        self._held.hold_s = hold_s
        changes, self._changes = self._changes, Changes()
        line = self._line(row, Outcome.UNKNOWN, "the worker died while it was being sent", _DIED, self._clock.now())
        changes.outcomes.append(line)
        counts = self._held.counts
        counts.read += 1
        counts.add(Outcome.UNKNOWN, 1)
        prepared = self._held.prepare_commit(changes)
        counts.read -= 1
        counts.add(Outcome.UNKNOWN, -1)
        grants, _ = self._write(prepared, [row])
        for one in grants:
            one.apply()
            if not one.go:
                self._held.hold_s = 0
                self._note_withheld(row)
                self.drop(row)
                if one.skip is not None:
                    counts.read += 1
                    self.skip(row, one.skip, self._clock.now())
                self.commit_now()
        return grants

    def drop(self, row: Ready) -> None:
        """Record that a single event was not applied and won't be sent again by us."""
        self._changes.released += _claims(row)
        self._changes.removed.append(row.source_row)

    async def _commit(self, rows: Sequence[Ready], *, last: bool = False) -> list[Grant]:
        gives_up_at = self._clock.monotonic() + self._patience_s
        while True:
            began = self._clock.monotonic()
            changes, self._changes = self._changes, Changes()
            if self._drift is not None:
                changes.types |= self._drift.take_new()
            seconds, self._counted_until = began - self._counted_until, began
            prepared = self._held.prepare_commit(changes, candidates=[row.position for row in rows], seconds=seconds)
            agree = self._agreement(last=last)
            try:
                grants, states = await asyncio.to_thread(self._write, prepared, rows, agree)
            except BaseException as error:
                prepared.undo()
                self._changes.put_back(changes)
                if not isinstance(error, LedgerError):
                    self._lost = self._lost or isinstance(error, TakenOverError)
                    raise
                if not self._failing:
                    _log.warning("%s Nothing is sent until it can be written again", error)
                self._failing = True
                if self._clock.monotonic() >= gives_up_at:
                    raise
                await asyncio.sleep(_AGAIN_S)
                continue
            if self._failing:
                _log.info("The ledger can be written again")
            self._failing = False
            if self._share is not None:
                self._share.committed()
            self._last_commit = began
            for position, state in states.items():
                self._held.states[position] = state
                self._held.states.changed.discard(position)
            return grants

    def _agreement(self, *, last: bool) -> Callable[[Connection], None] | None:
        """Return the callback that agrees on the share within the next commit; None if it is not due."""
        if self._share is None:
            return None
        counts = self._held.counts
        if last:
            return self._share.leave
        return self._share.renew if self._share.ask(counts.read - counts.settled + counts.owed_rows) else None

    def _write(
        self, prepared: Commit, rows: Sequence[Ready], agree: Callable[[Connection], None] | None = None
    ) -> tuple[list[Grant], Mapping[int, int]]:
        grants: list[Grant] = []

        def within(connection: Connection) -> dict[int, int]:
            reserved = reserve(connection) if rows else {}
            if agree is not None:  # last, since it may lock rows that other deliveries wait for
                agree(connection)
            return reserved

        def reserve(connection: Connection) -> dict[int, int]:
            grants.clear()  # remove those of an attempt that was rolled back
            verdicts = iter(self._account.claim(connection, [one.claim for row in rows for one in row.claims]))
            grants.extend(grant(row, [next(verdicts) for _ in row.claims]) for row in rows)
            if given_back := [claim for one in grants for claim in one.given_back]:
                self._account.settle(connection, released=given_back)
            return {
                one.row.position: RowState.RESERVED for one in grants if one.go and one.row.guarantee == "at_most_once"
            }

        states = prepared.write(within)
        self._note_promotions(prepared.changes)
        return grants, states

    def _note_promotions(self, committed: Changes) -> None:
        """Record phones that became primary without the opt-ins that another phone of the contact on record has."""
        with suppress(LedgerError):  # only informational; what was committed stays committed
            for channels in self._account.lost_by_promotion(committed.primaries):
                self.notes[lost_by_promotion("the phone", channels, "another phone of the contact on record")] += 1

    # -- what became of rows ------------------------------------------------------------------------------------------

    def _note(self, row: Ready) -> None:
        """Record what a row leaves out; only the try that settles the row does this."""
        if row.payload.withheld:
            self._note_withheld(row)
        self.note_notes(row)
        if row.payload.call in NAMED_CALLS and not row.has_time:
            self._held.counts.without_time += 1

    def note_notes(self, row: Ready) -> None:
        """Count what Regal will do with a row that its sender may not expect."""
        if row.payload.notes:
            self.notes.update(_NUMBERED.sub("", note) for note in row.payload.notes)

    def _note_withheld(self, row: Ready) -> None:
        new = row.payload.withheld[row.withheld_noted :]
        row.withheld_noted += len(new)
        if not new:
            return
        for one in new:
            self._held.counts.withheld[one.reason] += 1
            at = None if one.consent.at is None else to_ledger_time(one.consent.at)
            self._log(row, one.consent, consent_log.WITHHELD, one.reason, at=at)

    def start(self, row: Ready, now: float) -> None:
        """Record that a request for the row starts.

        :param now: monotonic seconds.
        """
        row.tries += 1
        row.first_at = row.first_at or self._moments.at(now)

    def acknowledge(self, row: Ready) -> None:
        """Record that Regal acknowledged the row."""
        self._count_requests(row)
        changes, body = self._changes, row.payload.body
        if row.claims:
            changes.acknowledged += _claims(row)
            self._log_consents(row, consent_log.ACKNOWLEDGED)
        if row.waits:
            return
        self._note(row)
        if row.instead_of is not None:
            self._settle_instead(row, row.instead_of, self._clock.now())
            return
        if row.refusal is not None:
            self._keep_refused(row, row.refusal, "acknowledged", self._clock.now())
            return
        if row.key is not None:
            changes.contacts.append((row.key, row.row_hash, row.payload_hash))
        if row.user_id is not None and (phones := body.get(TRAITS, _NOTHING).get(PHONES)):
            notes = row.payload.notes
            told = bool(notes) and any(note.startswith("phones[") for note in notes)  # known from the event alone
            for phone, info in phones.items():
                changes.phones.append((row.user_id, phone))
                if info.get(IS_PRIMARY) and not told:
                    changes.primaries.append((row.user_id, phone))
        moment = self._moments.at(self._clock.monotonic())
        user_id, phone, email = self._people(row)
        dropped: tuple[str | None, ...] = (None, None, None)
        if row.payload.left_out:
            dropped = (
                "dropped",
                row.payload.left_out[0].field,
                "; ".join(map(str, row.payload.left_out))[:LONGEST_MESSAGE],
            )
        changes.outcomes.append(  # positional and without NamedTuple's checks, for speed: this is the usual outcome
            _line(
                (
                    row.source_row, row.place, row.payload.call, body.get(NAME), user_id, phone, email, "acknowledged",
                    *dropped, row.tries, row.first_at or moment, moment, None, None, None, None,
                )
            )
        )  # fmt: skip
        self._held.counts.acknowledged += row.weight
        self._held.states[row.position] = _ACKNOWLEDGED
        if len(changes.outcomes) >= _MOST_CHANGES:
            self._enough.set()

    def skip(self, row: Ready, why: Skip, now: datetime) -> None:
        """Record that a prepared row is not sent; a row whose opt-outs were tried alone keeps its own outcome."""
        if row.waits:
            return
        if why is Skip.DRY_RUN:
            self._note(row)
        if row.instead_of is not None:
            self._settle_instead(row, row.instead_of, now)
            return
        self._held.counts.skip(why, row.weight)
        self._held.states[row.position] = RowState.of(why)

    def _settle_instead(self, row: Ready, what: Rejected | Skip, now: datetime) -> None:
        """Settle a row of which only the opt-outs were to be sent."""
        if isinstance(what, Rejected):
            self.reject(what, now)
        else:
            self._changes.removed.append(row.source_row)  # of a single event: the line it had while it was sent
            self.leave_out(row.position, what, row.weight)

    def leave_out(self, position: int, why: Skip, weight: int = 1) -> None:
        """Record that the row at a position of the snapshot is not sent, whatever it says."""
        self._held.counts.skip(why, weight)
        self._held.states[position] = RowState.of(why)

    def reject(self, row: Rejected, now: datetime) -> None:
        """Record that the row is invalid: we never send it."""
        message = "; ".join(map(str, row.faults))
        more: dict[str, Any] = {"first_at": row.letter_time} if row.letter_time else {}
        more |= {"field": row.faults[0].field, "consents": HAS_DECISION if row.decides else None, "attempts": 0}
        self._changes.outcomes.append(self._line_as_read(row, Outcome.REJECTED, "invalid", message, now, **more))
        self._held.counts.opt_outs_rejected += row.loses_a_decision
        self._settle(row, Outcome.REJECTED)

    def try_alone(self, row: Ready, decision: Decision) -> bool:
        """Try the opt-outs of a refused row alone, since the rest of the row may be what is wrong.

        :returns: False if there are none, or if they were refused.
        """
        alone = row.payload.opt_outs
        if row.refusal is not None or alone is None or alone.body == row.payload.body:
            return False
        row.refusal = Refusal(row.payload, decision.reason, self._message(row, decision))
        going = tuple(one for one in row.claims if one.consent in alone.consents)
        self.release(row)  # what is sent alone is claimed again
        row.claims = tuple(one for one in row.claims if one not in going)
        self._log_consents(row, consent_log.REFUSED, decision.reason)
        row.claims = going
        row.send_instead(alone)
        return True

    def _keep_refused(self, row: Ready, refusal: Refusal, then: str, now: datetime) -> None:
        """Record a refused row once the result of trying its opt-outs alone is known."""
        row.claims, row.refusal = (), None
        row.send_instead(refusal.payload)
        self._keep(row, Outcome.REJECTED, f"{refusal.message}; its opt-out, sent alone: {then}", refusal.reason, now)

    def refuse(self, row: Ready, decision: Decision, now: datetime) -> None:
        """Record that Regal refused the row for good."""
        self._count_requests(row)
        self._changes.released += _claims(row)
        self._log_consents(row, consent_log.REFUSED, decision.reason)
        self._held.counts.opt_outs_rejected += row.opts_out
        if row.refusal is not None:
            self._keep_refused(row, row.refusal, decision.reason, now)
            return
        self._keep(row, Outcome.REJECTED, self._message(row, decision), decision.reason, now)

    def unknown(self, row: Ready, decision: Decision, now: datetime, *, in_outage: bool) -> None:
        """Record that it can't be known whether Regal received the row."""
        self._count_requests(row)
        if row.refusal is not None:
            self._opt_out_unknown(row, row.refusal, decision.reason, now)
            return
        reason = f"{_OUTAGE}: {decision.reason}" if in_outage else decision.reason
        self._held.counts.unknown_of_outage += in_outage * row.weight
        self._lost_sight_of(row, self._message(row, decision), reason, now)

    def _opt_out_unknown(self, row: Ready, refusal: Refusal, reason: str, now: datetime) -> None:
        """Record that a row was refused, and that it can't be known whether Regal received its opt-outs."""
        self._held.counts.opt_outs_unknown += row.opts_out
        self._changes.unknown += _claims(row)
        self._log_consents(row, consent_log.UNKNOWN, reason)
        self._keep_refused(row, refusal, f"unknown, {reason}", now)

    def count_429(self) -> None:
        """Count an answer 429."""
        self._held.counts.answers_429 += 1

    def note_outage(self, since: datetime, reason: str) -> None:
        """Log an outage; the next commit records it.

        :param since: when the first failed request was made.
        :param reason: of the last failure.
        """
        counts = self._held.counts
        if self._outage_since is None:
            self._outage_since = since
            ends = since + timedelta(seconds=self._patience_s)
            _log.warning(
                "Regal has accepted nothing since %s UTC (the last request: %s). One row at a time probes whether it "
                "is back, at least every %.0f s. At %s UTC (outage_patience=%g s) the task stops with all unsent rows "
                "saved, and its retry resumes",
                f"{since:%H:%M:%S}", reason, LONGEST_PROBE_S, f"{ends:%H:%M:%S}", self._patience_s,
            )  # fmt: skip
        counts.outage_since = counts.outage_since or to_ledger_time(since)
        counts.outage_reason = reason

    def outage_ended(self) -> None:
        """Record and log that Regal answers again."""
        counts = self._held.counts
        if self._outage_since is not None:
            lasted_s = (self._clock.now() - self._outage_since).total_seconds()
            _log.info("Regal answers again after %s. Sending resumes", duration(lasted_s))
            self._outage_since = None
        if counts.outage_since is not None:
            counts.outage_since = counts.outage_reason = None

    def blame_outage(self, row: Ready, decision: Decision, now: datetime) -> None:
        """Record that an outage, detected only later, made a row unknown."""
        self._held.counts.unknown_of_outage += row.weight
        line = self._line(row, Outcome.UNKNOWN, self._message(row, decision), f"{_OUTAGE}: {decision.reason}", now)
        self._changes.outcomes.append(line)

    def interrupted(self, row: Ready, now: datetime) -> None:
        """Record that we cut the request off before it was answered."""
        if row.guarantee == "at_least_once":
            row.doubtful = True
            self.leave_open(row)
            return
        self._count_requests(row)
        if row.refusal is not None:
            self._opt_out_unknown(row, row.refusal, _INTERRUPTED, now)
            return
        self._held.counts.unknown_of_outage += row.weight
        self._lost_sight_of(row, "stopped while it was being sent", _INTERRUPTED, now)

    def died(self, row: Ready | Rejected, now: datetime) -> None:
        """Record that an earlier try died between reserving the row and committing an answer."""
        message = "the worker died while it was being sent; look for it in Regal"
        sent_at = now if self._held.before_at is None else from_ledger_time(self._held.before_at)
        self._held.counts.unknown_of_outage += row.weight
        if isinstance(row, Ready):
            row.tries = max(row.tries, 1)
            self._lost_sight_of(row, message, _DIED, sent_at)
            return
        # Its mapping has changed since; or the person was forgotten, and nothing is left of the row.
        more: dict[str, Any] = {} if row.row else {"payload": None}
        self._changes.outcomes.append(self._line_as_read(row, Outcome.UNKNOWN, _DIED, message, sent_at, **more))
        self._settle(row, Outcome.UNKNOWN)

    def release(self, row: Ready) -> None:
        """Release the row's reservation and claims: it is claimed again before it is sent again."""
        if row.guarantee == "at_most_once":
            self._held.states[row.position] = RowState.OPEN
        if row.doubtful:
            self._changes.unknown += _claims(row)
        else:  # Regal certainly does not have it
            self._changes.released += _claims(row)

    def leave_open(self, row: Ready) -> None:
        """Leave the row unsettled, for a later try to send."""
        self._count_requests(row)
        self.release(row)

    def unauthorized(self, decision: Decision) -> FixConnectionError:
        """Make the error of a refused key."""
        return FixConnectionError(
            f"Connection {self._target.conn_id!r}: Regal refused the API key ({decision.reason}). Check the field "
            "'API key'; it is sent verbatim, so enter only the key, without 'Bearer'. Remaining rows are saved: fix "
            "the connection and clear the task.",
            status=decision.status,
        )

    def _settle(self, row: Ready | Rejected, outcome: Outcome) -> None:
        self._held.counts.add(outcome, row.weight)
        self._held.states[row.position] = RowState.of(outcome)
        if len(self._changes.outcomes) >= _MOST_CHANGES:
            self._enough.set()

    def _lost_sight_of(self, row: Ready, message: str, reason: str, now: datetime) -> None:
        self._changes.unknown += _claims(row)
        self._log_consents(row, consent_log.UNKNOWN, reason)
        self._held.counts.opt_outs_unknown += row.opts_out
        self._keep(row, Outcome.UNKNOWN, message, reason, now)

    def _keep(self, row: Ready, outcome: Outcome, message: str, reason: str, now: datetime) -> None:
        self._note(row)
        self._changes.outcomes.append(self._line(row, outcome, message, reason, now))
        self._settle(row, outcome)

    def _line(self, row: Ready, outcome: Outcome, message: str, reason: str, now: datetime) -> OutcomeLine:
        user_id, phone, email = self._people(row)
        moment = to_ledger_time(now)
        first = row.letter_time or row.first_at or moment
        claims = [claimed.claim for claimed in row.claims if claimed.consent is None and claimed.claim.call == OPT_IN]
        body = json.loads(row.body)
        more = {
            "claims": [
                [c.key, c.channel, c.subscribed, c.at, c.row_hash, *([True] if c.stored else [])] for c in claims
            ],
            "contact": row.key,
        }
        return line_of(
            position=row.source_row,
            place=row.place,
            call=row.payload.call,
            event=row.payload.body.get(NAME),
            user_id=user_id,
            phone=phone,
            email=email,
            status=outcome.value,
            reason=reason,
            field=None,
            message=message,
            attempts=row.tries,
            first_at=first,
            last_at=moment,
            payload_hash=hash_of_body(row.body),
            form="body",
            payload=encoded(body if row.message_id is None else {MESSAGE_ID: row.message_id, **body}),
            consents=json.dumps(more) if claims or row.key is not None else None,
        )

    def _line_as_read(
        self, row: Rejected, outcome: Outcome, reason: str, message: str, at: datetime, **more: Any
    ) -> OutcomeLine:
        """Make the line of a row that is kept as its source wrote it."""
        user_id, phone, email = self._people(row)
        moment = to_ledger_time(at)
        given = {"field": None, "attempts": 1, "first_at": moment, "payload": encoded(row.row), **more}
        return line_of(
            position=row.source_row,
            place=row.place,
            call=row.call,
            event=row.event,
            user_id=user_id,
            phone=phone,
            email=email,
            status=outcome.value,
            reason=reason,
            message=message,
            last_at=moment,
            payload_hash=row.row_hash,
            form=row.form,
            **given,
        )

    def _people(self, row: Ready | Rejected) -> tuple[str | None, str | None, str | None]:
        """Return a row's user id, phone and email in the form the ledger stores."""
        stored = self._account.identifiers.stored
        phone = email = None
        for identifier in row.identifiers:
            if identifier[0] == "+":
                phone = phone or stored(identifier)
            elif "@" in identifier and not identifier.startswith("user:"):
                email = email or stored(identifier)
        return None if row.user_id is None else stored(row.user_id), phone, email

    def _count_requests(self, row: Ready) -> None:
        self._held.counts.requests += row.tries
        self._held.counts.repeats += max(row.tries - 1, 0)

    def _message(self, row: Ready, decision: Decision) -> str:
        said = fit_to_show(decision.said, sent=row.payload.body, api_key=self._target.api_key)
        return f"{decision.reason}, Regal says: {said}" if said else decision.reason

    def _log_consents(self, row: Ready, status: str, reason: str | None = None) -> None:
        """Store the evidence of what was sent: each decision's time, IP address, wording and source."""
        for claim, consent in ((one.claim, one.consent) for one in row.claims):
            if claim.call != OPT_IN or claim.stored:
                continue
            channel = cast(Channel, claim.channel)
            told = consent or Consent(claim.key, channel, bool(claim.subscribed), None, "", *_evidence_in(row))
            at = None if claim.inferred else claim.at  # it has no time of its own
            self._log(row, told, status, reason or (_VANISHED if claim.inferred else None), at=at)

    def _log(self, row: Ready, consent: Consent, status: str, reason: str | None, *, at: str | None) -> None:
        who = consent.identifier or (f"user:{row.user_id}" if row.user_id else "")
        if not who:
            return
        acknowledged_at = to_ledger_time(self._clock.now()) if status == consent_log.ACKNOWLEDGED else None
        self._changes.log.append(
            LoggedConsent(
                who, consent.channel, consent.subscribed, at, consent.ip, consent.text, consent.source,
                row.source_row, row.place, status, reason, acknowledged_at,
            )
        )  # fmt: skip


def _evidence_in(row: Ready) -> list[Any]:
    """Return ip, wording and source from the properties of an event that represents an opt-in."""
    properties = row.payload.body.get(PROPERTIES, _NOTHING)
    return [properties.get(name) for name in ("ip", "text", "source")]


def _line(values: tuple[Any, ...]) -> OutcomeLine:
    return tuple.__new__(OutcomeLine, values)


def _claims(row: Ready) -> list[Claim]:
    return [claimed.claim for claimed in row.claims]
