"""A proxy on a socket: only it knows the addresses of the test's hosts, and it records requests."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping

from tests.client.raw_server import Request, Script, Talk, http


def tunneling(hosts: Mapping[str, int], *, credentials: str | None = None) -> Script:
    """Connects clients to servers on this machine; supports only CONNECT.

    :param hosts: the local port of each ``host:port`` that exists.
    :param credentials: ``user:password`` that it requires.
    """
    wanted = credentials and "Basic " + b64encode(credentials.encode()).decode()

    def script(talk: Talk) -> None:
        head = talk.read_head()
        if head is None:
            return
        request = Request(head, b"")
        talk.requests.append(request)
        method, where, _ = head.split(" ", 2)
        if wanted and request.headers.get("proxy-authorization") != wanted:
            talk.say(http("407 Proxy Authentication Required", b""))
        elif method != "CONNECT":
            talk.say(http("405 Method Not Allowed", b""))
        elif where not in hosts:
            talk.say(http("502 Bad Gateway", b""))
        else:
            with socket.create_connection(("127.0.0.1", hosts[where])) as server:
                talk.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _copy_both_ways(talk, server)

    return script


def _copy_both_ways(talk: Talk, server: socket.socket) -> None:
    """Copy until one side ends, in one thread: a TLS socket must not be read and written at once."""
    other = {talk.sock: server, server: talk.sock}
    with contextlib.suppress(OSError):
        while not talk.stopped.is_set():
            ready, _, _ = select.select(list(other), [], [], 0.05)
            for sock in ready:
                piece = sock.recv(65536)
                while isinstance(sock, ssl.SSLSocket) and sock.pending():
                    piece += sock.recv(65536)
                if not piece:
                    return
                if sock is talk.sock:
                    talk.received += piece
                other[sock].sendall(piece)
