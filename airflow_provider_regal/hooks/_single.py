"""Send one event at a time through the hook, with the same ledger and consent rules as all other paths.

::

    payload ─▶ suppressed? ─▶ bar opt-outs ─▶ claim, reserve (commit) ─▶ client.one ─▶ outcome (commit)
                                                                                           └─▶ receipt | a typed error
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.exchange import Decision, Meaning
from airflow_provider_regal.client.receipt import Receipt
from airflow_provider_regal.delivery.reading.prepare import NO_PHONE_ON_RECORD, identifiers_of
from airflow_provider_regal.delivery.reading.prepared import Claimed, Ready
from airflow_provider_regal.delivery.reading.suppressing import hold_back, may_be_held
from airflow_provider_regal.delivery.reading.type_drift import TypeDrift
from airflow_provider_regal.delivery.sending.recorder import Recorder
from airflow_provider_regal.delivery.sending.share import SlotPacer
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.errors import (
    InvalidEventError,
    RefusedEventError,
    RegalError,
    RetryLaterError,
)
from airflow_provider_regal.events.names import NAME, PHONES, TRAITS
from airflow_provider_regal.hooks._ledger import open_account
from airflow_provider_regal.hooks._metrics import EventMetrics
from airflow_provider_regal.ledger.deliveries import FINISHED, Deliveries, Place, Try
from airflow_provider_regal.ledger.people.suppressions import Hold, Suppressions
from airflow_provider_regal.ledger.rules import OPT_IN, TRACK, Claim
from airflow_provider_regal.ledger.shares import Shares
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.ledger.text import to_ledger_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    import requests

    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.client.guarantee import Guarantee
    from airflow_provider_regal.client.pace import Pacer
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.events import Consent, Event, Payload

_ASK_AGAIN_S: Final = 1.0
# A busy rate is not an outage: even an event without patience waits for its turn.
_LEAST_SLOT_PATIENCE_S: Final = 60.0


class SingleEvents:
    """The events that a hook sends one by one. They form one delivery in the ledger.

    :param session: sends them.
    :param pacer: of this process.
    :param patience_s: seconds to wait for another delivery that is sending the same consent.
    """

    def __init__(
        self,
        target: Target,
        *,
        session: requests.Session,
        pacer: Pacer,
        context: Context | None,
        ledger_conn_id: str | None,
        patience_s: float,
    ) -> None:
        from airflow_provider_regal.client.one import Sender

        self._number = 0
        self._why = ""  # why the last event was rejected or is unknown
        self._patience_s = patience_s
        slot_patience_s = max(patience_s, _LEAST_SLOT_PATIENCE_S)
        # What is claimed once may wait for its turn twice, and be sent twice: when it is sent, and sent again.
        self._hold_s = int(2 * (slot_patience_s + target.timeout_s)) + 1
        place = _place_of(context)
        account = self._account = open_account(target, ledger_conn_id, source=str(place) if place.task_id else "")
        account.register(target.api_key)
        self._metrics = EventMetrics(account.name)
        self._clock = Clock(now=account.now)
        self._suppressions = Suppressions(account)
        slots = SlotPacer(Shares(account, rate_limit=target.rate_limit), pacer, clock=Clock())
        self._sender = Sender(
            target, session=session, pacer=slots, patience_s=patience_s, slot_patience_s=slot_patience_s
        )
        deliveries = Deliveries(account)
        held = self._held = deliveries.begin(
            place,
            _try_of(context),
            call="events",
            source="",
            options="",
            hold_s=int(target.timeout_s) + 1,
            replaces=deliveries.latest(place),
            conn_id=target.conn_id,
            logs_tries=False,
        )
        held.note_state(FINISHED)  # it never has rows left
        drift = self._drift = TypeDrift(account.types())
        self._recorder = Recorder(held, account, target, drift=drift, patience_s=patience_s, clock=self._clock)

    def take_notes(self) -> list[str]:
        """Return what Regal will do that the sender may not expect, according to the ledger."""
        notes = list(self._recorder.notes)
        self._recorder.notes.clear()
        return notes

    def send(
        self, event: Event, payload: Payload, guarantee: Guarantee, *, suppress_named_events: bool = False
    ) -> Receipt:
        """Send one event.

        :param suppress_named_events: skip a named event to a person who opted out of all channels on record.
        :raises RegalError: see :meth:`airflow_provider_regal.client.one.Sender.send`.
        """
        counts = self._held.counts
        before = replace(counts, skips=counts.skips.copy(), withheld=counts.withheld.copy())
        self._why, self._sender.latency_s = "", None
        try:
            return self._send(event, payload, guarantee, suppress_named_events=suppress_named_events)
        finally:
            self._metrics.tell(event.call, before, counts, reason=self._why, latency_s=self._sender.latency_s)

    def _send(self, event: Event, payload: Payload, guarantee: Guarantee, *, suppress_named_events: bool) -> Receipt:
        row = self._ready(event, payload, guarantee)
        if self._is_held_back(row, suppress_named_events=suppress_named_events):
            self._held.counts.read += 1
            self._recorder.leave_out(row.position, Skip.SUPPRESSED)
            self._recorder.commit_now()
            return _skipped(row)
        if faults := self._drift.faults_of(row.payload.body):
            raise InvalidEventError(event.call, faults)
        self._claim(row)
        if (skip := self._reserve(row)) is not None:
            return skip
        try:
            receipt = self._send_payload(row, guarantee)
        except RefusedEventError as error:
            self._held.counts.read += 1
            decision = _decision(Meaning.REFUSED, error.status)
            self._why = decision.reason
            if self._recorder.try_alone(row, decision):
                self._send_alone(row, guarantee)
            else:
                self._recorder.refuse(row, decision, self._clock.now())
            raise
        except BaseException as error:  # one of ours, or such as a timeout of the task
            if self._sender.in_doubt:
                self._lose_sight_of(row, error)
            else:
                self._recorder.drop(row)
            raise
        else:
            self._held.counts.read += 1
            self._recorder.acknowledge(row)
            return replace(receipt, opt_ins_withheld=tuple(map(str, row.payload.withheld)))
        finally:
            self._held.hold_s = 0
            self._recorder.commit_now()

    def _send_payload(self, row: Ready, guarantee: Guarantee) -> Receipt:
        def on_request() -> None:
            self._recorder.start(row, self._clock.monotonic())

        return self._sender.send(row.payload, guarantee, on_request=on_request)

    def _send_alone(self, row: Ready, guarantee: Guarantee) -> None:
        """Send the opt-outs of a refused event, and record their outcome; the event stays refused."""
        try:
            self._send_payload(row, guarantee)
        except RefusedEventError as error:
            self._recorder.refuse(row, _decision(Meaning.REFUSED, error.status), self._clock.now())
        except RegalError as error:  # including what was not applied: unknown is safe here, as it stays owed
            decision = _decision(Meaning.UNKNOWN, getattr(error, "status", None))
            self._recorder.unknown(row, decision, self._clock.now(), in_outage=False)
        else:
            self._recorder.acknowledge(row)

    def _lose_sight_of(self, row: Ready, error: BaseException) -> None:
        if isinstance(error, RegalError):
            decision = _decision(Meaning.UNKNOWN, getattr(error, "status", None))
        else:
            decision = Decision(Meaning.UNKNOWN, "interrupted")
        self._held.counts.read += 1
        self._why = decision.reason
        self._recorder.unknown(row, decision, self._clock.now(), in_outage=False)

    def _ready(self, event: Event, payload: Payload, guarantee: Guarantee) -> Ready:
        self._number += 1
        if payload.opt_outs_elsewhere:
            phones = () if event.user_id is None else self._account.plain_phones_of(event.user_id)
            payload = payload.with_opt_outs({PHONES: phones})
            if payload.body.keys().isdisjoint((TRAITS, NAME)):
                raise InvalidEventError(event.call, [NO_PHONE_ON_RECORD])
        return Ready(
            0,
            payload,
            guarantee,
            identifiers_of(event),
            source_row=self._number,
            has_time=event.timestamp is not None,
            user_id=event.user_id,
            message_id=event.message_id,
        )

    def _is_held_back(self, row: Ready, *, suppress_named_events: bool) -> bool:
        """Reduce an event about a person who must not be contacted to its opt-outs; return whether none are left."""
        people = [row.identifiers]
        (hold,) = self._suppressions.find(people)
        if hold is None and suppress_named_events and may_be_held(row):
            dated = self._dated(row)
            self._bar(dated)  # its own opt-outs count
            opt_ins = [(one.identifier, one.channel, at) for one, at in dated if one.subscribed]
            hold = Hold(False, {}) if self._suppressions.opted_out(people, [opt_ins])[0] else None
        return hold is not None and hold_back(row, hold)

    def _dated(self, row: Ready) -> list[tuple[Consent, str]]:
        now = to_ledger_time(self._clock.now())
        return [(one, now if one.at is None else to_ledger_time(one.at)) for one in row.payload.consents]

    def _bar(self, dated: Iterable[tuple[Consent, str]]) -> None:
        self._account.bar((one.identifier, one.channel, at) for one, at in dated if not one.subscribed)

    def _claim(self, row: Ready) -> None:
        """Set what the ledger has to grant; its opt-outs block older opt-ins from now on."""
        payload, once = row.payload, row.guarantee == "at_most_once"
        dated = self._dated(row)
        self._bar(dated)
        claims = [
            Claimed(
                Claim(
                    OPT_IN,
                    one.identifier,
                    one.channel,
                    one.subscribed,
                    at,
                    once=once and one.subscribed,
                ),
                one,
            )
            for one, at in dated
        ]
        if row.message_id is not None and payload.call in NAMED_CALLS:
            claims.append(Claimed(Claim(TRACK, row.message_id, once=once)))
        row.claims = tuple(claims)

    def _reserve(self, row: Ready) -> Receipt | None:
        """Reserve the event; return a receipt if it is not sent.

        :raises RetryLaterError: another delivery is sending the same consent.
        """
        ends = self._clock.monotonic() + self._patience_s
        while True:
            (granted,) = self._recorder.reserve_now(row, hold_s=self._hold_s)
            if granted.go:
                return None
            if not granted.busy:
                return _skipped(row)
            if self._clock.monotonic() >= ends:
                raise RetryLaterError(
                    f"Another delivery is sending a decision of the same person, so this {row.payload.call} event was "
                    "not sent. Run it again.",
                    tries=0,
                )
            time.sleep(_ASK_AGAIN_S)


def _skipped(row: Ready) -> Receipt:
    return replace(Receipt.of(row.payload, http_status=None, seconds=0.0, tries=0), status="skipped")


def _decision(meaning: Meaning, status: int | None) -> Decision:
    return Decision(meaning, "no answer" if status is None else f"HTTP {status}", status=status)


def _place_of(context: Context | None) -> Place:
    if context is None or "ti" not in context:
        return Place.outside_a_task("hook")
    ti: Any = context["ti"]
    map_index = getattr(ti, "map_index", -1)
    # A task may create several hooks, each with its own events.
    own = Place.outside_a_task().run_id
    return Place(ti.dag_id, ti.run_id, ti.task_id, -1 if map_index is None else map_index, f"hook {own}")


def _try_of(context: Context | None) -> Try:
    return Try() if context is None or "ti" not in context else Try(number=int(context["ti"].try_number))
