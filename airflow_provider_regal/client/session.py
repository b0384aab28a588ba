"""The ``requests`` session: it follows no redirects, and its timeout covers the whole answer.

In ``requests``, the timeout restarts with every piece that arrives: a server that sends one byte now and then blocks it
forever. Here the socket's timeout covers the whole answer, headers and body.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from http.client import HTTPResponse
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from airflow_provider_regal import __version__
from airflow_provider_regal.client.environment import Network, network_for
from airflow_provider_regal.client.target import Target


def keyed_session(target: Target) -> requests.Session:
    """Make a session that sends the target's key, verbatim, with every request."""
    session = plain_session(target.origin)
    session.auth = _RawKey(target.api_key)
    return session


def plain_session(origin: str) -> requests.Session:
    """Make a session without a key that uses the certificates and the proxy of :mod:`.environment`.

    :raises FixConnectionError: an environment variable names a bundle or a proxy that can't be used.
    """
    network = network_for(origin)
    session = _Session()
    session.headers["User-Agent"] = f"airflow-provider-regal/{__version__}"
    session.trust_env = False  # it would read the environment and .netrc again, differently
    session.auth = _RawKey(None)
    if network.proxy is not None:
        parts = urlsplit(origin)
        session.proxies = {f"{parts.scheme}://{parts.hostname}": network.proxy.url}
    adapter = _Adapter(network)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


class _RawKey(AuthBase):
    """Puts the key into ``Authorization`` verbatim. Any auth object also prevents .netrc from replacing it."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_key is not None:
            request.headers["Authorization"] = self._api_key
        return request


class _Session(requests.Session):
    """Follows no redirect: its target must receive neither the event nor the key.

    ``allow_redirects=False`` alone still reads the whole body of a redirect and parses its target.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket until a deadline: its timeout, counted from the start of the answer."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        timeout_s = sock.gettimeout()
        self._ends = None if timeout_s is None else time.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._ends is not None:
            left_s = self._ends - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimelyResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock))


class _HttpConnection(HTTPConnection):
    response_class = _TimelyResponse


class _HttpsConnection(HTTPSConnection):
    response_class = _TimelyResponse


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


_POOLS: Final = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(HTTPAdapter):
    """Creates connections that limit the time of an answer and trust the same certificates as deliveries.

    This also works through a proxy. Setting ``session.verify`` still works; while it is True, ``requests`` would trust
    certifi.
    """

    def __init__(self, network: Network) -> None:
        self._proxy = network.proxy
        self._trusted: ssl.SSLContext | None = network.ssl_context()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        kwargs.setdefault("proxy_ssl_context", self._trusted)
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        if self._proxy is not None and proxy == self._proxy.url:
            return self._proxy.headers
        return super().proxy_headers(proxy)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if verify is True and self._trusted is not None:
            pool["ssl_context"] = self._trusted
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        if verify is True and self._trusted is not None:
            conn.ca_certs = None  # certifi's, which urllib3 would load into our context
