"""Shared by all benchmarks: the server, a description of the machine, processes on their own core, results."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
SERVER_CORE, CLIENT_CORE = 0, min(1, (os.cpu_count() or 1) - 1)
PRIORITY = 10
_VERSIONS = (
    "apache-airflow",
    "aiohttp",
    "requests",
    "pydantic",
    "phonenumbers",
    "dlt",
    "drt-core",
    "uvloop",
    "httptools",
)


class Server:
    """The running sink.

    :ivar url: its origin.
    :ivar certificate: the certificate that signs it, if it uses TLS.
    """

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.certificate = folder / "certificate.pem" if tls else None
        port_file = folder / "port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.sink", "--port-file", str(port_file)]
        if tls:
            make_certificate(folder)
            command += ["--tls", str(self.certificate), str(folder / "key.pem")]
        self._process = subprocess.Popen(command, cwd=PROJECT, preexec_fn=lambda: alone_on(SERVER_CORE, urgent=True))  # noqa: PLW1509
        while not port_file.exists():
            if self._process.poll() is not None:
                raise RuntimeError("the server did not start")
            time.sleep(0.02)
        host = "localhost" if tls else "127.0.0.1"
        self.url = f"{'https' if tls else 'http'}://{host}:{port_file.read_text()}"

    def reset(self, *, latency_ms: float = 0.0, jump_ms: float = 0.0) -> None:
        """Delete all records, and set the latency."""
        self._ask(f"/reset?latency_ms={latency_ms}&jump_ms={jump_ms}")

    def stats(self) -> dict[str, Any]:
        """Return the counts."""
        counts: dict[str, Any] = json.loads(self._ask("/stats"))
        return counts

    def arrivals(self) -> list[float]:
        """Return the arrival times of events in seconds, by the server's clock."""
        found = array("d")
        found.frombytes(self._ask("/arrivals"))
        return list(found)

    def senders(self) -> list[int]:
        """Return the number of each event's sender, -1 if it is not known."""
        found = array("h")
        found.frombytes(self._ask("/senders"))
        return list(found)

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()

    def _ask(self, path: str) -> bytes:
        import ssl

        context = ssl.create_default_context(cafile=str(self.certificate)) if self.certificate else None
        with urllib.request.urlopen(self.url + path, context=context, timeout=30) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def server(*, tls: bool = False) -> Iterator[Server]:
    """Run the sink temporarily."""
    with tempfile.TemporaryDirectory() as folder:
        running = Server(Path(folder), tls=tls)
        try:
            yield running
        finally:
            running.close()


def make_certificate(folder: Path) -> None:
    """Create a self-signed certificate for localhost, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
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
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def alone_on(core: int, *, urgent: bool = False) -> None:
    """Pin this process to a core.

    :param urgent: if permitted, run it before all other work, so that a busy machine disturbs it less; for processes
        that leave the core idle most of the time.
    """
    os.sched_setaffinity(0, {core})
    if urgent:
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))


def stolen_s() -> float:
    """Return the seconds in which a core of this machine was given to another machine on the same hardware."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def run_on_a_core(
    arguments: Sequence[str], *, environment: dict[str, str] | None = None, urgent: bool = False
) -> dict[str, Any]:
    """Run one of our modules in its own process, on the client's core; return the JSON of its last line.

    :param urgent: see :func:`alone_on`.
    :raises RuntimeError: it failed; with its output.
    """
    ran = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=PROJECT,
        env={**os.environ, "AIRFLOW_HOME": str(PROJECT / ".cache" / "airflow"), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: alone_on(CLIENT_CORE, urgent=urgent),
    )
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{ran.stdout[-2_000:]}\n{ran.stderr[-4_000:]}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write_results(name: str, rounds: list[dict[str, Any]], **more: Any) -> Path:
    """Store the raw results."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({"machine": machine(), **more, "rounds": rounds}, indent=1) + "\n")
    return file


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Format a median with its spread."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
