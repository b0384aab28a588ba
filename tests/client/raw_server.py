"""A server that does exactly what a test scripts, byte by byte, including what no proper HTTP server would do."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DRIP_S = 0.02
OK_BODY = b'{"message":"ok"}'


def http(status: str = "200 OK", body: bytes = OK_BODY, *headers: str) -> bytes:
    """Format an answer for the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Request:
    """One request as it came in."""

    head: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass
class Talk:
    """The server's side of one connection."""

    sock: socket.socket
    stopped: threading.Event
    received: bytearray = field(default_factory=bytearray)
    requests: list[Request] = field(default_factory=list)
    _unread: bytes = b""

    def _more(self) -> bool:
        try:
            piece = self.sock.recv(65536)
        except OSError:
            return False
        self.received += piece
        self._unread += piece
        return bool(piece)

    def read_head(self) -> str | None:
        """Read the headers of the next request; None if the client has disconnected."""
        while b"\r\n\r\n" not in self._unread:
            if not self._more():
                return None
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def read(self) -> Request | None:
        """Read the next request; None if the client has disconnected."""
        head = self.read_head()
        if head is None:
            return None
        request = Request(head, b"")
        length = int(request.headers.get("content-length", 0))
        while len(self._unread) < length:
            if not self._more():
                return None
        request.body, self._unread = self._unread[:length], self._unread[length:]
        self.requests.append(request)
        return request

    def say(self, data: bytes) -> bool:
        """Send; return False if the client has disconnected."""
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True

    def drip(self, data: bytes) -> None:
        """Send the data repeatedly and slowly, until the client disconnects."""
        while not self.stopped.wait(DRIP_S) and self.say(data):
            pass

    def wait_until_the_client_goes(self) -> None:
        while self._more():
            pass

    def reset(self) -> None:
        """Close the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Talk], None]


def answering(*answers: bytes) -> Script:
    """Answer the requests of a connection one after the other, the last answer for all that follow."""

    def script(talk: Talk) -> None:
        for answer in answers:
            if talk.read() is None or not talk.say(answer):
                return
        while talk.read() is not None and talk.say(answers[-1]):
            pass

    return script


def echoing(status: str) -> Script:
    """Repeat the body of each request in an error answer."""

    def script(talk: Talk) -> None:
        while (request := talk.read()) is not None:
            talk.say(http(status, request.body))

    return script


class RawServer:
    """Runs one script per connection, the last one for all that follow.

    :param tls: speak TLS with this context.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self._tls = tls
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.talks: list[Talk] = []
        self.threads: list[threading.Thread] = []

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """All requests read completely, oldest connection first."""
        return [request for talk in self.talks for request in talk.requests]

    def __enter__(self) -> RawServer:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for talk in self.talks:
            with contextlib.suppress(OSError):
                talk.sock.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self.threads):
            thread.join(5)
            assert not thread.is_alive(), "a script of the raw server hangs"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            talk = Talk(sock, self._stopped)
            script = self._scripts[min(len(self.talks), len(self._scripts) - 1)]
            self.talks.append(talk)
            thread = threading.Thread(target=self._run, args=(script, talk), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, script: Script, talk: Talk) -> None:
        with contextlib.suppress(OSError):
            if self._tls:
                talk.sock = self._tls.wrap_socket(talk.sock, server_side=True)
            script(talk)
        with contextlib.suppress(OSError):
            talk.sock.close()

    def wait_for_scripts(self) -> None:
        """Wait until every script started so far has ended, and its connection is closed."""
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()


def unused_port() -> int:
    """Return an unused port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a server's TLS context with a self-signed certificate, and the certificate's file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file
