"""An Airflow on the CeleryExecutor: databases, Redis, Airflow's processes, two workers, and a local Regal."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from cryptography.fernet import Fernet

from scripts.local import PROJECT
from tests.distributed.airflow_api import Airflow
from tests.distributed.processes import Processes, free_port, wait_until
from tests.distributed.record import Ledger
from tests.distributed.servers import LedgerServer, database, listens, start_redis
from tests.distributed.source import make_tables

FAST, SLOW = 400, 150
ACCOUNT = "distributed"
TIMEOUT_S = 2
#: Time without a sign of life after which a task counts as dead.
HEARTBEAT_TIMEOUT_S = 20
WORKERS = ("worker1", "worker2")
CONCURRENCY = 6
#: Number of mapped tasks of one event each: few by default, 200 if ``FULL`` is set; or ``SINGLES``.
SINGLES = int(os.environ.get("SINGLES") or (200 if os.environ.get("FULL") else 50))
DAGS = Path(__file__).with_name("dags")
_KEY = "key-of-the-distributed-tests"
_AIRFLOW = (sys.executable, "-m", "airflow")
_START_S = 240
_PROGRAMS = {
    "api-server": ("api-server", "--workers", "1"),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer",),
}


class Regal:
    """The local Regal, as seen from outside.

    :param stalls: the file in which it records its stalls.
    """

    def __init__(self, url: str, stalls: Path) -> None:
        self.url = url
        self._stalls = stalls
        self._since = 0.0

    def ask(self, what: str) -> Any:
        """Call its side API."""
        with urlopen(f"{self.url}/sandbox/{what}", timeout=120) as answer:
            return json.load(answer)

    def reset(self) -> None:
        """Delete everything received, and all faults."""
        self.set_faults([])
        self._tell("reset", "POST")
        self._since = time.time()

    def set_faults(self, rules: list[dict[str, Any]]) -> None:
        """Replace the scripted faults."""
        self._tell("faults", "PUT", rules)

    def _tell(self, what: str, method: str, body: Any = None) -> None:
        content = None if body is None else json.dumps(body).encode()
        urlopen(Request(f"{self.url}/sandbox/{what}", content, method=method), timeout=10).close()

    def stats(self) -> dict[str, Any]:
        """Return its counts, once everything received was processed."""
        wait_until(lambda: not self.ask("stats")["pending"], 60, "the sandbox works off its events")
        counts: dict[str, Any] = self.ask("stats")
        return counts

    @property
    def requests(self) -> int:
        """Requests since the last reset."""
        return int(self.ask("stats")["requests"])

    def stall_s(self) -> float:
        """Return its longest stall since the last reset."""
        lines = [line.split() for line in self._stalls.read_text().splitlines()]
        return max((float(lasted) for at, lasted in lines if float(at) > self._since), default=0.0)


class Stack:
    """Everything that runs.

    :ivar source_url: of the database that the DAGs read.
    :ivar record: the ledger, for queries.
    """

    def __init__(self, folder: Path, metadata_url: str, source_url: str) -> None:
        self.folder = folder
        self.source_url = source_url
        self.processes = Processes(folder)
        self.ledger: LedgerServer | None = None
        self._metadata_url = metadata_url
        self._log_began: dict[str, int] = {}

    def start(self) -> None:
        """Start all, and wait until runs can be triggered."""
        self.ledger = LedgerServer(self.processes)
        self.record = Ledger(self.ledger.url)
        broker = start_redis(self.processes, self.folder)
        self._start_regal()
        port = free_port()
        self.airflow = Airflow(f"http://127.0.0.1:{port}")
        self._env = self._environment(port, broker)
        make_tables(self.source_url)
        self._run(*_AIRFLOW, "db", "migrate")
        self._run(sys.executable, "-m", "airflow_provider_regal", "ledger", "upgrade")
        for name in _PROGRAMS:
            self.start_program(name)
        for name in WORKERS:
            self.start_worker(name)
        self._wait(self.airflow.answers, "Airflow's API")
        self.airflow.log_in()
        wanted = {"eight_shards", "people", "singles"}
        self._wait(lambda: wanted <= self.airflow.dags(), "the DAGs are parsed")
        for name in WORKERS:
            self.wait_for_worker(name)

    def start_program(self, name: str) -> None:
        """Start one of Airflow's own processes."""
        self.processes.start(name, [*_AIRFLOW, *_PROGRAMS[name]], self._env)

    def start_worker(self, name: str) -> None:
        """Start a Celery worker with its own home, as on a separate machine."""
        env = self._env | {"AIRFLOW_HOME": str(self.folder / name), "REGAL_TEST_WORKER": name}
        command = [*_AIRFLOW, "celery", "worker", "-H", f"{name}@%h", "--skip-serve-logs", "-c", str(CONCURRENCY)]
        log = self.processes.log(name)
        self._log_began[name] = log.stat().st_size if log.exists() else 0
        self.processes.start(name, command, env)

    def wait_for_worker(self, name: str) -> None:
        """Wait until a worker accepts tasks."""
        began = self._log_began[name]
        self._wait(lambda: b" ready." in self.processes.log(name).read_bytes()[began:], f"{name} is ready")

    def _wait(self, what: Any, why: str) -> None:
        def look() -> Any:
            self.processes.check()
            return what()

        wait_until(look, _START_S, why)

    def _start_regal(self) -> None:
        port = free_port()
        stalls = self.folder / "stalls"
        command = [sys.executable, "-m", "tests.distributed.regal_server", str(port), _KEY, str(FAST), str(stalls)]
        self.processes.start("regal", command, dict(os.environ), cwd=PROJECT)
        wait_until(lambda: listens(port), 60, "the local Regal")
        self.regal = Regal(f"http://127.0.0.1:{port}", stalls)

    def _run(self, *command: str) -> None:
        ran = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]

    def _connection(self, rate_limit: int) -> str:
        extra = {"rate_limit": rate_limit, "timeout": TIMEOUT_S, "account": ACCOUNT}
        return json.dumps({"conn_type": "regal", "host": self.regal.url, "password": _KEY, "extra": extra})

    def _environment(self, port: int, broker: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | {
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__PARALLELISM": "256",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.distributed.worker_name.worker_name",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._metadata_url,
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self._metadata_url}",
            "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT_S),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "REGAL_TEST_SINGLES": str(SINGLES),
            "AIRFLOW__REGAL__LEDGER_CONN_ID": "regal_ledger",
            "AIRFLOW_CONN_REGAL_LEDGER": self.ledger.url.replace("postgresql+psycopg2", "postgres"),
            "AIRFLOW_CONN_SOURCE": self.source_url.replace("postgresql+psycopg2", "postgres"),
            "AIRFLOW_CONN_REGAL_FAST": self._connection(FAST),
            "AIRFLOW_CONN_REGAL_SLOW": self._connection(SLOW),
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(PROJECT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}",
        }

    def end(self) -> None:
        """End all that was started."""
        self.processes.end_all()
        if self.ledger is not None:
            self.ledger.remove()


@contextmanager
def running() -> Iterator[Stack]:
    """Run a stack; its logs stay in its folder if something fails."""
    with ExitStack() as opened:
        folder = Path(tempfile.mkdtemp(prefix="regal-distributed-"))
        metadata, source = opened.enter_context(database()), opened.enter_context(database())
        stack = Stack(folder, metadata, source)
        try:
            stack.start()
            yield stack
        finally:
            stack.end()
