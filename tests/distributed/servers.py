"""Our own servers next to the running PostgreSQL: a PostgreSQL for the ledger that may be restarted, and a Redis."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import make_url

from tests.databases import POSTGRES, administer
from tests.distributed.processes import Processes, free_port, wait_until

_START_S = 60
_MOST_CONNECTIONS = 200


def listens(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def database() -> Iterator[str]:
    """Create a temporary database on the running PostgreSQL; yields its URL."""
    name = f"regal_test_{uuid4().hex[:16]}"
    administer(POSTGRES, f"CREATE DATABASE {name}")
    try:
        yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    finally:
        administer(POSTGRES, f"DROP DATABASE {name} WITH (FORCE)")


class LedgerServer:
    """A PostgreSQL whose only database is a ledger.

    :ivar url: of the ledger, for SQLAlchemy.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._folder = Path(tempfile.mkdtemp(prefix="regal-ledger-"))
        self._user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        self._port = free_port()
        self.url = f"postgresql+psycopg2://postgres@127.0.0.1:{self._port}/regal"
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, pwd.getpwnam(self._user).pw_gid)
        subprocess.run(
            [_postgres("initdb"), "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            **self._as_user(),
        )
        self.start()
        administer(self.url.replace("/regal", "/postgres"), "CREATE DATABASE regal")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _as_user(self) -> dict[str, Any]:
        return {"user": self._user, "group": self._user, "extra_groups": [], "cwd": self._folder} if self._user else {}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["-h", "127.0.0.1", "-p", str(self._port), "-k", "", "-c", f"max_connections={_MOST_CONNECTIONS}"]
        command = [_postgres("postgres"), "-D", self._data, *options]
        self._processes.start("ledger", command, {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **self._as_user())
        ready = [_postgres("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, _START_S, "the ledger's server")

    def crash(self) -> None:
        """Stop it at once, like a crash: the next start recovers from its log."""
        self._processes.end("ledger", signal.SIGQUIT)

    def remove(self) -> None:
        """Remove its data."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _postgres(program: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4]))
    where = str(found[-1]) if found else shutil.which(program)
    if where is None:
        raise AssertionError(f"{program} was not found: install PostgreSQL")
    return where


def start_redis(processes: Processes, folder: Path) -> str:
    """Start a Redis on a free port; return its URL."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    processes.start("redis", ["redis-server", *options], dict(os.environ))
    wait_until(lambda: listens(port), _START_S, "Redis")
    return f"redis://127.0.0.1:{port}/0"
