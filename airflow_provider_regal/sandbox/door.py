"""The door: a connection waits here until the complete head of its first request has arrived, for a limited time.

aiohttp waits for the first head without a limit. Here, a client that opens connections and sends nothing, or half a
head, occupies a place for ``request_timeout_s`` at most, and the number of places is limited.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from aiohttp import web

_END: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 64 * 1024  # aiohttp reports errors in longer ones
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Door:
    """Creates the protocol of each connection.

    :param server: takes over a connection once its first head has arrived.
    :param most: maximum number of open connections; more are answered 503.
    :param patience_s: how long a first head may take.
    """

    def __init__(self, server: web.Server, *, most: int, patience_s: float) -> None:
        self.server = server
        self.patience_s = patience_s
        self.waiting: set[_Visitor] = set()
        self._most = most

    def __call__(self) -> asyncio.Protocol:
        """Receive a connection."""
        return _Visitor(self)

    @property
    def is_full(self) -> bool:
        """Whether the maximum number of connections is reached."""
        return len(self.waiting) + len(self.server.connections) >= self._most

    def close(self) -> None:
        """Close all waiting connections."""
        for visitor in [*self.waiting]:
            visitor.leave()


class _Visitor(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self._door = door
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.Transport", transport)
        if self._door.is_full:
            connection.write(_FULL)
            connection.close()
            return
        self._transport = connection
        self._door.waiting.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._door.patience_s, self.leave)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        seen = max(len(self._head) - len(_END), 0)
        self._head += data
        if self._head.find(_END, seen) >= 0 or len(self._head) > _LONGEST_HEAD:
            transport, inside = self._transport, self._door.server()
            self._forget()
            transport.set_protocol(inside)
            inside.connection_made(transport)
            inside.data_received(bytes(self._head))

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()

    def leave(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
        self._forget()

    def _forget(self) -> None:
        self._door.waiting.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
