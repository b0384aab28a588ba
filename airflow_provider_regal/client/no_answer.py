"""Describe why Regal did not answer: a short, fixed text for each kind of network error.

The libraries' own messages contain addresses, object ids and text of the server.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException
from typing import Final

import requests
from urllib3.exceptions import HTTPError, NewConnectionError

from airflow_provider_regal.client.environment import NO_HTTP, NO_PROXY_CONNECTION, NO_TLS

# HTTPError is urllib3's, the layer below; requests lets some of its errors through.
NO_ANSWER: Final = (requests.RequestException, HTTPError)


def describe_failure(error: Exception) -> str:
    """Describe a failure."""
    inside = list(_inside(error))
    # Also inside a ProxyError: TLS to the proxy itself.
    if any(isinstance(cause, (requests.exceptions.SSLError, ssl.SSLError)) for cause in inside):
        return NO_TLS
    if isinstance(error, requests.exceptions.ProxyError):
        return NO_PROXY_CONNECTION
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the timeout"
    for kind, words in (
        (socket.gaierror, "the host name could not be resolved"),
        (ConnectionRefusedError, "the connection was refused: nothing listens there"),
        (NewConnectionError, "no connection could be made"),
        ((requests.ReadTimeout, TimeoutError), "no answer within the timeout"),
        (ConnectionError, "the connection was lost"),
        ((HTTPException, requests.exceptions.InvalidHeader), NO_HTTP),
    ):
        if any(isinstance(cause, kind) for cause in inside):
            return words
    return "the connection was lost"


def cause_of(error: Exception) -> OSError | None:
    """Find the error of the operating system or the TLS library; unlike the layers above, it never quotes a server."""
    for cause in _inside(error):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            return cause.with_traceback(None)
    return None


def _inside(error: BaseException) -> Iterator[BaseException]:
    """Return an error and the errors it wraps, without its context, which may be an error of the caller."""
    yield error
    for inner in (error.__cause__, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            yield from _inside(inner)
