"""Send one event asynchronously, once, on a shared aiohttp session; the engine runs many of these concurrently.

``exchange`` decides what an answer means.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from airflow_provider_regal import __version__
from airflow_provider_regal.client.deadlines import Deadlines
from airflow_provider_regal.client.environment import NO_HTTP, NO_PROXY_CONNECTION, NO_TLS, network_for
from airflow_provider_regal.client.exchange import Answer, Attempt, NoAnswer
from airflow_provider_regal.client.heads import write_heads_safely
from airflow_provider_regal.client.target import Target

_LONGEST_CONNECT_S: Final = 10.0
#: A full second frees up within a second; a longer wait means a pause, or a share that was lost.
_LONGEST_WAIT_S: Final = 3.0
_EXCERPT_BYTES: Final = 2_048
HEADERS: Final = {
    "Accept-Encoding": "identity",  # otherwise Regal's message may be gzipped
    "User-Agent": f"airflow-provider-regal/{__version__}",
}
#: Receives an attempt and its duration in seconds.
Watch = Callable[[Attempt, float], None]


class ManySender:
    """Sends to one target over many connections.

    :param target: the address and the key.
    :param max_connections: open connections at most.
    :param watch: receives each attempt and its duration in seconds, with the body of every answer.
    :param wait_s: called when a request has its connection, before the first byte (opening a connection may take
        seconds). Returns the seconds until the request may go, or infinity if nothing may be sent anymore.
    :raises FixConnectionError: an environment variable names a bundle or a proxy that can't be used.
    """

    def __init__(
        self,
        target: Target,
        *,
        max_connections: int,
        wait_s: Callable[[], float] = lambda: 0.0,
        watch: Watch | None = None,
    ) -> None:
        # aiohttp's trust_env would read the environment differently, and let a .netrc file replace the key.
        network = network_for(target.origin)
        write_heads_safely()
        self._url = target.events_url
        self._watch = watch
        # One limit for the whole exchange: connecting, headers and body.
        self._deadlines = Deadlines(target.timeout_s)
        self._proxy = network.proxy.url if network.proxy else None
        self._proxy_headers = network.proxy.headers if network.proxy else None
        # Not a header of the session: aiohttp sends those to a proxy as well.
        self._authorization = {"Authorization": target.api_key}
        self._session = aiohttp.ClientSession(
            headers=HEADERS,
            connector=_Connections(wait_s, limit=max_connections, ttl_dns_cache=60, ssl=network.ssl_context() or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_LONGEST_CONNECT_S),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
        )

    async def __aenter__(self) -> ManySender:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        await self._session.close()

    async def attempt(self, body: bytes) -> Attempt:
        """Post one event. Returns an answer or the lack of one; never raises a network exception."""
        if self._watch is None:
            return await self._attempt(body)
        began = time.monotonic()
        attempt = await self._attempt(body)
        self._watch(attempt, time.monotonic() - began)
        return attempt

    async def _attempt(self, body: bytes) -> Attempt:
        watched = _WatchedBody(body)
        try:
            with self._deadlines:
                return await self._exchange(watched)
        except _HeldBackError:
            return NoAnswer(before_body=True, reason="nothing may be sent now", held_back=True)
        except asyncio.CancelledError:
            if watched.started:
                raise
            return NoAnswer(before_body=True, reason="stopped before it was sent")
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            return NoAnswer(before_body=not watched.started, reason=self._what_failed(error, watched.started))

    async def _exchange(self, body: _WatchedBody) -> Answer:
        response = await self._session.post(
            self._url,
            data=body,
            headers=self._authorization,
            allow_redirects=False,
            proxy=self._proxy,
            proxy_headers=self._proxy_headers,
        )
        try:
            if 200 <= response.status < 300 and self._watch is None:  # then its body is not needed
                if not response.content.is_eof():  # but the connection can't be reused until the body is complete
                    await _start_of(response)
                return Answer(response.status, {})
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, await _start_of(response))
        finally:
            if not response.closed:
                response.release()

    def _what_failed(self, error: BaseException, started: bool) -> str:
        """Describe a failure without the library's text, in the same words as ``no_answer``."""
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
            return NO_TLS
        if isinstance(error, (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError)):
            return NO_PROXY_CONNECTION
        if isinstance(error, aiohttp.ClientResponseError):
            return NO_HTTP
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            # Behind a proxy this is the proxy's name: only the proxy resolves the target's.
            return NO_PROXY_CONNECTION if self._proxy else "the host name could not be resolved"
        if isinstance(error, TimeoutError):
            return "no answer within the timeout" if started else "no connection within the timeout"
        if isinstance(error, aiohttp.ClientConnectorError):
            return "the connection was refused: nothing listens there"
        return "the connection was lost"


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    """Read the start of a body. The status is already known, so a read error is not a failure."""
    excerpt, content = b"", response.content
    try:
        while len(excerpt) < _EXCERPT_BYTES and not content.at_eof():
            excerpt += await content.read(_EXCERPT_BYTES - len(excerpt))
    except (aiohttp.ClientError, TimeoutError, OSError, asyncio.CancelledError):
        response.close()
    return excerpt


class _HeldBackError(Exception):
    """A request has a connection but may not go."""


class _Connections(aiohttp.TCPConnector):
    """A pool that hands out each connection, new or reused, only when its request may go.

    :param wait_s: see :class:`ManySender`.
    """

    def __init__(self, wait_s: Callable[[], float], **options: Any) -> None:
        super().__init__(**options)
        self._wait_s = wait_s

    async def connect(self, *request: Any, **options: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*request, **options)
        try:
            waited_s = 0.0
            while wait_s := self._wait_s():
                waited_s += wait_s
                if waited_s > _LONGEST_WAIT_S:
                    raise _HeldBackError
                await asyncio.sleep(wait_s)
            if waited_s and (connection.protocol is None or not connection.protocol.is_connected()):
                raise _HeldBackError  # closed in the meantime: anything written to it would be in doubt
        except BaseException:
            connection.release()  # nothing was written to it
            raise
        return connection


class _WatchedBody(aiohttp.BytesPayload):
    """A body that records whether it was read: if a request fails before that, Regal can't have the event."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self.started = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.started = True
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        # aiohttp 3.12 and later call this instead.
        self.started = True
        await super().write_with_length(writer, content_length)
