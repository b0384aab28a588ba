"""A proxy between a ledger and its server that can be closed, like a server restart or a network failure."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

CUT = b"COMMIT"


class Door:
    """Forwards TCP connections to a server on this machine.

    :param port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.port = 0
        self.cut_at_commits: list[int] = []  #: numbers of the COMMITs that lose their answer, from 1
        self.commits = 0
        self.open()

    def open(self) -> None:
        """Listen, on the same port as before."""
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener, self.port = listener, listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections and drop existing ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _drop(*pair)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            with self._lock:
                self._pairs.add((client, server))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        cut = False
        with suppress(OSError, ValueError):
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for one in readable:
                    data = one.recv(65_536)
                    if not data or (cut and one is server):  # the server has committed, but the client never learns it
                        return _drop(client, server)
                    if one is client and CUT in data:
                        self.commits += 1
                        cut = self.commits in self.cut_at_commits
                    (server if one is client else client).sendall(data)
        return _drop(client, server)


def _drop(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
