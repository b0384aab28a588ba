"""A fast server that accepts and counts events, so that the server is never the bottleneck.

``python -m benchmarks.sink --port-file FILE [--tls CERTIFICATE KEY]`` serves ``POST /events`` with uvloop and
httptools. It answers 200 to a POST of a JSON object with the right key, 400 to anything else. In addition:

- ``POST /reset?latency_ms=100&jump_ms=300`` deletes all records and sets the latency of answers: constant, or
  alternating between the two every second.
- ``GET /stats`` returns counts, CPU and the longest stall; ``GET /arrivals`` the arrival times of events in seconds, as
  an array of doubles; ``GET /senders`` the number of each event's sender, from user ids such as ``s<number>-5``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import ssl
import time
from array import array
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

KEY = "a-key-for-benchmarks"
_OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"message":"ok"}'
_BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_HEARTBEAT_S = 0.005
_SENDER = re.compile(rb'"userId":"s([0-9]+)-')


class Counts:
    """What has arrived so far."""

    def __init__(self) -> None:
        self.reset(0.0, 0.0)

    def reset(self, latency_s: float, jump_s: float) -> None:
        """Delete all records, and answer with another latency from now on."""
        self.latency_s, self.jump_s = latency_s, jump_s or latency_s
        self.began = time.monotonic()
        self.bad = 0
        self.arrivals = array("d")
        self.senders = array("h")
        self.bodies: set[int] = set()
        self.stall_s = 0.0

    def answer_in(self, now: float) -> float:
        """Return how long to wait before answering."""
        return self.latency_s if int(now - self.began) % 2 == 0 else self.jump_s

    def as_dict(self) -> dict[str, float]:
        """Return counts, the CPU seconds of this server, and its longest stall."""
        spent = {"cpu_s": round(time.process_time(), 4), "stall_ms": round(1_000 * self.stall_s, 1)}
        return {"ok": len(self.arrivals), "bad": self.bad, "different": len(self.bodies), **spent}

    async def watch(self) -> None:
        """Detect stalls of this process: what arrived in the meantime then appears to arrive at once."""
        parent = os.getppid()
        while os.getppid() == parent:  # if the parent is killed, nothing else would end this process
            due = time.monotonic() + _HEARTBEAT_S
            await asyncio.sleep(_HEARTBEAT_S)
            self.stall_s = max(self.stall_s, time.monotonic() - due)
        raise SystemExit(1)


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: Counts, loop: asyncio.AbstractEventLoop) -> None:
        self._counts, self._loop = counts, loop
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = transport
        self._write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Parse received data."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        """Start a request."""
        self._body, self._url, self._authorized = b"", b"", False

    def on_url(self, url: bytes) -> None:
        """Store the path."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Check the key."""
        if name.lower() == b"authorization":
            self._authorized = value == KEY.encode()

    def on_body(self, body: bytes) -> None:
        """Store a part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        counts = self._counts
        if self._url != b"/events":
            self._write(self._administer())
            return
        body = self._body
        if not (self._authorized and self._parser.get_method() == b"POST" and body[:1] == b"{" and body[-1:] == b"}"):
            counts.bad += 1
            self._write(_BAD)
            return
        now = time.monotonic()
        counts.arrivals.append(now)
        counts.bodies.add(hash(body))
        counts.senders.append(int(found[1]) if (found := _SENDER.search(body)) else -1)
        if counts.latency_s:
            self._loop.call_later(counts.answer_in(now), self._answer_late)
        else:
            self._write(_OK)

    def _answer_late(self) -> None:
        if not self._transport.is_closing():  # wrk disconnects when its time is up
            self._write(_OK)

    def _administer(self) -> bytes:
        target = urlsplit(self._url.decode())
        if target.path == "/reset":
            given = {name: float(values[0]) / 1_000 for name, values in parse_qs(target.query).items()}
            self._counts.reset(given.get("latency_ms", 0.0), given.get("jump_ms", 0.0))
        content = json.dumps(self._counts.as_dict()).encode()
        if target.path == "/arrivals":
            content = self._counts.arrivals.tobytes()
        elif target.path == "/senders":
            content = self._counts.senders.tobytes()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


async def serve(port_file: Path, tls: ssl.SSLContext | None) -> None:
    """Serve forever; write the port to a file once it is open."""
    loop, counts = asyncio.get_running_loop(), Counts()
    server = await loop.create_server(lambda: Connection(counts, loop), "127.0.0.1", 0, ssl=tls, backlog=2_048)
    new = port_file.with_suffix(".new")
    new.write_text(str(server.sockets[0].getsockname()[1]))
    new.replace(port_file)
    await asyncio.gather(counts.watch(), server.serve_forever())


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--tls", type=Path, nargs=2)
    given = parser.parse_args()
    tls = None
    if given.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*given.tls)
    uvloop.run(serve(given.port_file, tls))


if __name__ == "__main__":
    main()
