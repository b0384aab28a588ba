"""A bucket on the loopback: moto's server, and a door before it that delays, refuses or is shut."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextlib import suppress
from datetime import datetime

logging.getLogger("werkzeug").setLevel(logging.ERROR)
BUCKET = "journal"
CONN_ID = "bucket"
_KEPT = 2_000
_SLOW_DOWN = (
    b"""<?xml version="1.0"?><Error><Code>%s</Code><Message>Please reduce your request rate.</Message></Error>"""
)


def connection_to(url):
    """Write an Airflow connection to an endpoint, as an environment variable holds it."""
    extra = {"endpoint_url": url, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra})


class Door:
    """Passes requests on to an S3 server, each on a connection of its own.

    :ivar delay_s: before each is passed on.
    :ivar refuses: what it says to writing requests instead: ``AccessDenied`` or ``SlowDown``; None to pass them on.
    :ivar shut: connections are closed at once.
    """

    def __init__(self, host, port):
        self._to = (host, port)
        self.open()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def open(self):
        """Pass everything on, and count from zero."""
        self.delay_s, self.refuses, self.shut = 0.0, None, False
        self.requests, self.refused = [], 0

    async def _listen(self):
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not self.shut:
                head = await reader.readuntil(b"\r\n\r\n")
                if self.shut:
                    break
                await self._pass_on(head, reader, writer)
        writer.close()

    async def _pass_on(self, head, reader, writer):
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        at = time.time()
        if "100-continue" in fields.get("expect", ""):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(fields, reader)
        self.requests.append((at, method, target, body[:_KEPT]))
        await asyncio.sleep(self.delay_s)
        if self.refuses and method not in ("GET", "HEAD"):
            self.refused += 1
            said = _SLOW_DOWN % self.refuses.encode()
            status = b"503 Slow Down" if self.refuses == "SlowDown" else b"403 Forbidden"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(said), said))
            await writer.drain()
            return
        kept = [
            line
            for line in lines[1:]
            if line and not line.lower().startswith(("connection:", "expect:", "transfer-enc"))
        ]
        if "content-length" not in fields and body:
            kept.append(f"Content-Length: {len(body)}")
        up_reader, up_writer = await asyncio.open_connection(*self._to)
        up_writer.write("\r\n".join([lines[0], *kept, "Connection: close", "", ""]).encode("latin-1") + body)
        answer = await up_reader.read()
        up_writer.close()
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def _body(self, fields, reader):
        if "chunked" not in fields.get("transfer-encoding", ""):
            return await reader.readexactly(int(fields.get("content-length", 0)))
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size + 2)
            body = body[:-2]
        await reader.readline()
        return body

    def close(self):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _end(self):
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


def writes_of(door):
    return [target for _, method, target, _ in door.requests if method == "PUT"]


def claims_of(door):
    """:returns: when tries asked for a folder."""
    return [at for at, method, _, body in door.requests if method == "PUT" and b'"kind": "claim"' in body]


def time_of(event):
    """:returns: when a request came, by Regal's clock: seconds since 1970."""
    return datetime.fromisoformat("".join(event["received_at"].rsplit(" ", 1))).timestamp()
