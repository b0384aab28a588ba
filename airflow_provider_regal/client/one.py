"""One event at a time, synchronously, on one ``requests.Session``.

Every attempt takes a slot of the pacer, repeats included. What an answer means is decided in ``exchange``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import requests
from requests.auth import AuthBase

from airflow_provider_regal import __version__
from airflow_provider_regal.client.exchange import (
    Answer,
    Attempt,
    Decision,
    Guarantee,
    Meaning,
    NoAnswer,
    decide,
)
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.receipt import Receipt
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.errors import (
    CheckBeforeResendError,
    FixConnectionError,
    RefusedEventError,
    RegalError,
    RetryLaterError,
)
from airflow_provider_regal.events import Payload
from airflow_provider_regal.events.privacy import scrub

_log = logging.getLogger(__name__)

_LONGEST_CONNECT_S: Final = 10.0
_EXCERPT_BYTES: Final = 2_048
_LONGEST_BODY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, so that tests can bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    jitter: Callable[[], float] = random.random


class Sender:
    """Sends events to one target.

    :param target: where, and with which key.
    :param pacer: says when a request may go.
    :param patience_s: seconds after which repeating ends; also ends it at once if Regal asks for a longer wait.
    :param clock: time and chance.
    """

    def __init__(
        self, target: Target, *, pacer: Pacer, patience_s: float, clock: Clock | None = None
    ) -> None:
        self._target = target
        self._pacer = pacer
        self._patience_s = patience_s
        self._clock = clock or Clock()
        self.session = _session(target)

    def send(self, payload: Payload, guarantee: Guarantee) -> Receipt:
        """Send one event, repeating it where that is safe under the guarantee.

        :raises FixConnectionError: Regal refuses the key.
        :raises RefusedEventError: Regal refuses this event for good.
        :raises RetryLaterError: not applied, and patience ran out.
        :raises CheckBeforeResendError: nobody can know whether Regal has it.
        """
        body = payload.encoded
        started = self._clock.monotonic()
        tries = 0
        while True:
            self._wait_for_slot()
            tries += 1
            decision = decide(
                self._attempt(body),
                guarantee=guarantee,
                tries=tries,
                jitter=self._clock.jitter(),
                now=self._clock.now(),
            )
            seconds = self._clock.monotonic() - started
            if decision.meaning is Meaning.ACKNOWLEDGED:
                return Receipt.of(payload, http_status=decision.status, seconds=seconds, tries=tries)
            if not decision.retry or seconds + decision.wait_s > self._patience_s:
                raise self._error(decision, payload, tries, seconds)
            _log.warning("Regal: %s; sending again in %.1f s (try %d)", decision.reason, decision.wait_s, tries + 1)
            if decision.pauses:
                self._pacer.pause(self._clock.monotonic() + decision.wait_s)
            self._clock.sleep(decision.wait_s)

    def _wait_for_slot(self) -> None:
        while (wait_s := self._pacer.take(self._clock.monotonic())) > 0:
            self._clock.sleep(wait_s)

    def _attempt(self, body: bytes) -> Attempt:
        watched = _WatchedBody(body)
        timeout = (min(self._target.timeout_s, _LONGEST_CONNECT_S), self._target.timeout_s)
        try:
            response = self.session.post(
                self._target.events_url,
                data=watched,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException as error:
            return NoAnswer(before_body=not watched.started, reason=describe_failure(error))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, self._excerpt(response))

    def _excerpt(self, response: requests.Response) -> bytes:
        """Read the start of the body. The status has decided already: a broken body changes nothing."""
        ends = self._clock.monotonic() + min(self._target.timeout_s, _LONGEST_BODY_S)
        excerpt = bytearray()
        try:
            # Byte by byte, because a larger piece would wait for a server that drips.
            for byte in response.iter_content(1):
                excerpt += byte
                if len(excerpt) >= _EXCERPT_BYTES or self._clock.monotonic() > ends:
                    response.close()
                    break
        except requests.RequestException as error:
            _log.debug("Regal's answer ended early: %s", type(error).__name__)
            response.close()
        return bytes(excerpt)

    def _error(self, decision: Decision, payload: Payload, tries: int, seconds: float) -> RegalError:
        said = scrub(decision.said, payload.body)
        what = f"{decision.reason}, Regal says: {said}" if said else decision.reason
        count = "once" if tries == 1 else f"{tries} times in {seconds:.0f} s"
        call, status = payload.call, decision.status
        if decision.meaning is Meaning.UNAUTHORIZED:
            return FixConnectionError(
                f"Connection {self._target.conn_id!r}: Regal refused the API key ({what}). Check the field 'API key'; it "
                "is sent as it stands, without 'Bearer'. The event was not applied.",
                status=status,
            )
        if decision.meaning is Meaning.REFUSED:
            return RefusedEventError(
                f"Regal refused this {call} event for good ({what}). Mend the event; sending it again will not help.",
                status=status,
                tries=tries,
            )
        if decision.meaning is Meaning.NOT_APPLIED:
            return RetryLaterError(
                f"Regal could not take this {call} event now ({what}; tried {count}). It was surely not applied: "
                "run the task again.",
                status=status,
                tries=tries,
                retry_after_s=decision.retry_after_s,
            )
        return CheckBeforeResendError(
            f"Nobody can know whether Regal has this {call} event ({what}; sent {count}). Look for it in Regal before "
            "you send it again; guarantee='at_least_once' repeats such events, and may reach a person twice.",
            status=status,
            tries=tries,
        )


class _WatchedBody:
    """A body that knows whether it was asked for.

    Headers go out before it: a failure with the body untouched means that Regal cannot have the event.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.started = False

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        self.started = True
        yield self._body


class _RawKey(AuthBase):
    """Puts the key into ``Authorization`` as it is; an auth object also keeps a .netrc file from replacing it."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._api_key
        return request


def _session(target: Target) -> requests.Session:
    session = plain_session(target.origin)
    session.auth = _RawKey(target.api_key)
    return session


def plain_session(origin: str) -> requests.Session:
    """Make a session that carries no key; proxies of the environment are not asked for a loopback host."""
    session = requests.Session()
    session.headers["User-Agent"] = f"airflow-provider-regal/{__version__}"
    session.trust_env = origin.startswith("https:")
    return session


def describe_failure(error: requests.RequestException) -> str:
    """Name a failure without the library's words, which hold addresses and object ids."""
    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS connection failed (certificate or protocol)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy of the environment could not be reached"
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the timeout"
    if isinstance(error, requests.ReadTimeout):
        return "no answer within the timeout"
    text = str(error)
    if "resolve" in text or "Name or service" in text:
        return "the host name could not be resolved"
    if "refused" in text:
        return "the connection was refused: nothing listens there"
    return "the connection was lost"
