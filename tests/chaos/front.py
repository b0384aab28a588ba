"""The network in front of the local Regal: forwards requests, causes trouble on command, and records every exchange.

Its records are independent of the package and the sandbox: when each request arrived, by one monotonic clock, and
whether its answer was delivered completely.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_RETRY_AFTER = re.compile(rb"^retry-after: *(\d+)\r?$", re.IGNORECASE | re.MULTILINE)
_TICK_S = 0.01
_PRIORITY = 9
#: These begin and end with dropped connections, because they affect new connections.
OF_NEW_CONNECTIONS = ("refused", "silent", "certificate", "dns")


@dataclass
class Exchange:
    """One request.

    :param at: monotonic seconds at which it had arrived.
    :param body: None if it did not arrive completely.
    :param forwarded: whether Regal received it.
    :param status: of Regal's answer.
    :param retry_after_s: the wait that the answer asks for.
    :param told_at: when the answer was delivered completely; None if it was not.
    :param read: the client has certainly read it: another request came on the same connection.
    """

    at: float
    body: Any = None
    forwarded: bool = False
    status: int | None = None
    retry_after_s: int | None = None
    told_at: float | None = None
    read: bool = False


@dataclass
class Stalls:
    """When the front stalled, as on a busy machine: requests that arrived separately then appear at once."""

    at: list[tuple[float, float]] = field(default_factory=list)

    def worst_ms(self, begin: float, end: float) -> float:
        """Return the longest stall within a period, in milliseconds."""
        return max((late for at, late in self.at if begin - 0.1 <= at <= end + 0.1), default=0.0) * 1_000


class Front:
    """Listens on its own port.

    :param upstream: the port of the sandbox.
    :param context: makes the TLS context to listen with; None for plain HTTP.
    """

    def __init__(self, upstream: int, *, context: Callable[[], ssl.SSLContext] | None, seed: int) -> None:
        self._upstream = upstream
        self._context = context
        self._chance = random.Random(f"front {seed}")
        self._kind, self._share = "", 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="front", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self.exchanges: list[Exchange] = []
        self.stalls = Stalls()
        #: When all connections were dropped: an answer from just before may be lost.
        self.drops: list[float] = []
        self.port = 0

    def __enter__(self) -> Front:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def trouble(self, kind: str, share: float = 1.0) -> None:
        """Start a trouble, for a share of the requests; the previous one ends."""
        self._do(self._change(kind, share))

    def calm(self) -> None:
        """End the trouble. Requests that already hang stay hanging."""
        self._do(self._change("", 0.0))

    # -- in the thread

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def _serve(self) -> None:
        with suppress(PermissionError):  # this thread's clock is the server's clock
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        self._loop.run_forever()

    async def _listen(self) -> None:
        if self._server is None:
            listening = socket.create_server(("127.0.0.1", self.port), backlog=256)
            self.port = listening.getsockname()[1]
            silent = self._kind == "silent"  # then there is no TLS handshake either
            context = None if silent or self._context is None else self._context()
            talk = self._say_nothing if silent else self._accept
            self._server = await asyncio.start_server(talk, sock=listening, ssl=context, limit=1 << 20)
            if self._ticking is None:
                self._ticking = asyncio.create_task(self._tick())
                self._tasks.add(self._ticking)

    async def _close(self) -> None:
        await self._refuse()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drops.append(time.monotonic())
        for writer in [*self._writers]:
            writer.transport.abort()

    async def _change(self, kind: str, share: float) -> None:
        before, self._kind, self._share = self._kind, kind, share
        if kind in OF_NEW_CONNECTIONS or before in OF_NEW_CONNECTIONS:
            await self._refuse()
        if kind != "refused":
            await self._listen()

    async def _tick(self) -> None:
        due = time.monotonic() + _TICK_S
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now - due > _TICK_S:
                self.stalls.at.append((now, now - due))
            due = now + _TICK_S

    def _hit(self, *kinds: str) -> bool:
        return self._kind in kinds and self._chance.random() < self._share

    async def _say_nothing(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if b"POST " in await reader.read(4_096):  # a plain HTTP request to a TLS port
            self.exchanges.append(Exchange(time.monotonic()))
        await _hang(reader)
        self._writers.discard(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            back, upstream = await asyncio.open_connection("127.0.0.1", self._upstream, limit=1 << 20)
            exchange: Exchange | None = None
            while (exchange := await self._one(reader, writer, back, upstream, exchange)) is not None:
                pass
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()
            if upstream is not None:
                upstream.close()

    async def _one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        before: Exchange | None,
    ) -> Exchange | None:
        """Forward one request, or don't; return it if the connection can still be used."""
        head = await reader.readuntil(_END)
        if before is not None:
            before.read = True
        exchange = Exchange(time.monotonic())
        self.exchanges.append(exchange)
        if self._hit("torn"):
            _reset(writer)
            return None
        content = await reader.readexactly(_length(head))
        exchange.body = json.loads(content)
        if self._hit("half_open"):
            await _hang(reader)
            return None
        upstream.write(head + content)
        exchange.forwarded = True
        answer = await back.readuntil(_END)
        answer += await back.readexactly(_length(answer))
        exchange.status = int(answer[9:12])
        asked = _RETRY_AFTER.search(answer)
        exchange.retry_after_s = None if asked is None else int(asked[1])
        if self._hit("swallowed"):
            await _hang(reader)
            return None
        if self._hit("reset"):
            _reset(writer)
            return None
        if self._hit("half_answer"):
            writer.write(answer[: len(answer) // 2])
            await _hang(reader)
            return None
        if reader.at_eof():  # the client has disconnected
            return None
        writer.write(answer)
        await writer.drain()
        exchange.told_at = time.monotonic()
        return exchange


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return 0 if found is None else int(found[1])


async def _hang(reader: asyncio.StreamReader) -> None:
    """Wait until the client disconnects."""
    with suppress(OSError):
        while await reader.read(65_536):
            pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
