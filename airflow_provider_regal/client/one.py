"""Send one event at a time, synchronously, on one ``requests.Session``.

Every attempt, including retries, takes a slot of the pacer. ``exchange`` decides what an answer means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

import requests

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.exchange import (
    Answer,
    Attempt,
    Decision,
    Meaning,
    NoAnswer,
    decide,
)
from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.client.no_answer import NO_ANSWER, cause_of, describe_failure
from airflow_provider_regal.client.pace import Slots
from airflow_provider_regal.client.receipt import Receipt
from airflow_provider_regal.client.redact import fit_to_show
from airflow_provider_regal.client.session import keyed_session
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.errors import (
    CheckRegalError,
    FixConnectionError,
    RefusedEventError,
    RegalError,
    RetryLaterError,
)
from airflow_provider_regal.events import Payload

_log = logging.getLogger(__name__)

_LONGEST_CONNECT_S: Final = 10.0
_EXCERPT_BYTES: Final = 2_048


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was tried so far; ``doubtful`` if one of the attempts may have arrived."""

    payload: Payload
    guarantee: Guarantee
    tries: int
    doubtful: bool


class Sender:
    """Sends events to one target.

    :param target: the address and the key.
    :param pacer: decides when a request may go.
    :param patience_s: seconds after which retries end. They end at once if Regal asks for a longer wait.
    :param slot_patience_s: seconds for which an event waits for its turn while others use the rate.
    :param clock: clock and randomness.
    :param session: a session that sends the key; a new one by default.
    """

    def __init__(
        self,
        target: Target,
        *,
        pacer: Slots,
        patience_s: float,
        slot_patience_s: float = inf,
        clock: Clock | None = None,
        session: requests.Session | None = None,
    ) -> None:
        self._target = target
        self._pacer = pacer
        self._patience_s = patience_s
        self._slot_patience_s = slot_patience_s
        self._clock = clock or Clock()
        self.session = session or keyed_session(target)
        #: Seconds until the last answer; None if the last event got none.
        self.latency_s: float | None = None
        #: Whether the last event may have arrived without an acknowledgement; also while its request is under way.
        self.in_doubt = False

    def send(self, payload: Payload, guarantee: Guarantee, *, on_request: Callable[[], None] = lambda: None) -> Receipt:
        """Send one event; retry where that is safe under the guarantee.

        :param on_request: called before each request, when it has its turn.
        :raises FixConnectionError: Regal refuses the key.
        :raises RefusedEventError: Regal refuses this event for good.
        :raises RetryLaterError: not applied, and patience ran out.
        :raises CheckRegalError: it can't be known whether Regal received it.
        """
        body, self.latency_s, self.in_doubt = payload.encoded, None, False
        began = self._clock.monotonic()
        if not self._wait_for_slot(pauses_end=began + self._patience_s, ends=began + self._slot_patience_s):
            raise self._no_slot(payload)
        started = self._clock.monotonic()
        ends = started + self._patience_s
        tries, doubtful = 0, False
        while True:
            tries += 1
            on_request()
            self.in_doubt = True
            decision = decide(
                self._attempt(body),
                guarantee=guarantee,
                tries=tries,
                jitter=self._clock.jitter(),
                now=self._clock.now(),
            )
            now = self._clock.monotonic()
            # If one attempt may have arrived, the results of the others don't change that.
            doubtful = self.in_doubt = doubtful or decision.meaning is Meaning.UNKNOWN
            if decision.meaning is Meaning.ACKNOWLEDGED:
                self.in_doubt = False
                return Receipt.of(payload, http_status=decision.status, seconds=now - started, tries=tries)
            if decision.pauses:
                self._pacer.pause(now + decision.wait_s)
            sent = _Sent(payload, guarantee, tries, doubtful)
            if not decision.retry or now + decision.wait_s >= ends:
                raise self._error(decision, sent, now - started) from decision.cause
            _log.warning("Regal: %s; sending again in %.1f s (try %d)", decision.reason, decision.wait_s, tries + 1)
            self._clock.sleep(decision.wait_s)
            if not self._wait_for_slot(pauses_end=ends, ends=started + self._slot_patience_s):
                raise self._error(decision, sent, self._clock.monotonic() - started) from decision.cause

    def _wait_for_slot(self, *, pauses_end: float, ends: float) -> bool:
        """Wait until the pacer lets a request go; return False if that takes too long.

        :param pauses_end: a pause of all senders may not last longer.
        :param ends: the wait may not last longer, whatever its reason.
        """
        while (wait_s := self._pacer.take(now := self._clock.monotonic()) or self._pacer.go(now)) > 0:
            pause_s = self._pacer.pause_left(now)
            if (pause_s and now + pause_s > pauses_end) or now + max(wait_s, pause_s) > ends:
                return False
            self._clock.sleep(wait_s)
        return True

    def _no_slot(self, payload: Payload) -> RetryLaterError:
        pause_s = self._pacer.pause_left(self._clock.monotonic())
        why = (
            f"Regal asked this process to wait for longer than outage_patience_s ({self._patience_s:g} s)"
            if pause_s
            else f"Other senders used the account's rate limit for {self._slot_patience_s:g} s"
        )
        return RetryLaterError(
            f"{why}, so this {payload.call} event was not sent: run the task again.",
            tries=0,
            retry_after_s=pause_s or None,
        )

    def _attempt(self, body: bytes) -> Attempt:
        watched = _WatchedBody(body)
        timeout = (min(self._target.timeout_s, _LONGEST_CONNECT_S), self._target.timeout_s)
        began = self._clock.monotonic()
        try:
            response = self.session.post(
                self._target.events_url,
                data=watched,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
        except NO_ANSWER as error:
            return NoAnswer(not watched.started, describe_failure(error), cause_of(error))
        self.latency_s = self._clock.monotonic() - began
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, self._excerpt(response))

    def _excerpt(self, response: requests.Response) -> bytes:
        """Read the start of the body. The status is already known, so a broken body changes nothing."""
        excerpt = bytearray()
        try:
            # Byte by byte: if the connection breaks, a larger piece would be lost entirely.
            for byte in response.iter_content(1):
                excerpt += byte
                if len(excerpt) >= _EXCERPT_BYTES:
                    response.close()
                    break
        except NO_ANSWER as error:
            _log.debug("Regal's answer ended early: %s", type(error).__name__)
            response.close()
        return bytes(excerpt)

    def _error(self, decision: Decision, sent: _Sent, seconds: float) -> RegalError:
        said = fit_to_show(decision.said, sent=sent.payload.body, api_key=self._target.api_key)
        what = f"{decision.reason}, Regal says: {said}" if said else decision.reason
        call, status, tries = sent.payload.call, decision.status, sent.tries
        count = "once" if tries == 1 else f"{tries} times in {seconds:.0f} s"
        if decision.meaning is Meaning.UNAUTHORIZED:
            return FixConnectionError(
                f"Connection {self._target.conn_id!r}: Regal refused the API key ({what}). Check the field 'API key'; "
                "it is sent verbatim, so enter only the key, without 'Bearer'."
                + ("" if sent.doubtful else " The event was not applied."),
                status=status,
            )
        if decision.meaning is Meaning.REFUSED:
            return RefusedEventError(
                f"Regal refused this {call} event for good ({what}). Fix the event; sending it again will not help.",
                status=status,
                tries=tries,
            )
        if decision.meaning is Meaning.NOT_APPLIED and not sent.doubtful:
            return RetryLaterError(
                f"Regal could not take this {call} event now ({what}; tried {count}). It was not applied: "
                "run the task again.",
                status=status,
                tries=tries,
                retry_after_s=decision.retry_after_s,
            )
        advice = (
            "Look for it in Regal before you send it again; guarantee='at_least_once' repeats such events, and may "
            "reach a person twice."
            if sent.guarantee == "at_most_once"
            else "Sending it again is what guarantee='at_least_once' means: run the task again."
        )
        return CheckRegalError(
            f"It can't be known whether Regal received this {call} event ({what}; sent {count}). {advice}",
            status=status,
            tries=tries,
        )


class _WatchedBody:
    """A body that records whether it was read.

    Headers are sent first: if a request fails before the body is read, Regal can't have the event.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.started = False

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        self.started = True
        yield self._body
