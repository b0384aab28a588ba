"""An Airflow and a Regal on this machine, inside the project's folder ``.demo`` (or ``$DEMO_HOME``)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from scripts.processes import free_port, running

PROJECT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("DEMO_HOME", PROJECT / ".demo"))
KEY = "sandbox-key"
WAREHOUSE = HOME / "warehouse.db"
LEDGER = HOME / "airflow" / "regal" / "ledger.db"
RECEIVED = HOME / "received.jsonl"


@dataclass(frozen=True)
class Regal:
    """The local Regal."""

    url: str
    rate_limit: int

    @property
    def connection(self) -> str:
        """The connection to it, as Airflow reads it from the environment."""
        # A retry of a killed task waits until the requests of the previous try must have ended: here, a short time.
        extra = {"rate_limit": self.rate_limit, "timeout": 5}
        return json.dumps({"conn_type": "regal", "host": self.url, "password": KEY, "extra": extra})

    def ask(self, what: str) -> Any:
        """Call its JSON side API."""
        with urlopen(f"{self.url}/sandbox/{what}", timeout=10) as answer:
            return json.load(answer)

    def settled_stats(self) -> Any:
        """Return its counts, once everything received was processed."""
        for _ in range(100):
            stats = self.ask("stats")
            if not stats["pending"]:
                return stats
            time.sleep(0.1)
        raise SystemExit("The sandbox did not finish working off its events.")


@contextlib.contextmanager
def regal(*, rate_limit: int) -> Iterator[Regal]:
    """Run the sandbox."""
    HOME.mkdir(parents=True, exist_ok=True)
    port = free_port(8010)
    command = [sys.executable, "-m", "airflow_provider_regal", "sandbox", "--port", str(port), "--api-key", KEY]
    command += ["--rate-limit", str(rate_limit)]
    with running(command, dict(os.environ), HOME / "sandbox.log") as process:
        here = Regal(f"http://127.0.0.1:{port}", rate_limit)
        wait_for(f"{here.url}/sandbox/stats", process, HOME / "sandbox.log", patience_s=30)
        yield here


def forget_ledger() -> None:
    """Delete the ledger of an earlier demo, and what the local Regal had received then."""
    for file in (*LEDGER.parent.glob("ledger.db*"), RECEIVED):
        file.unlink(missing_ok=True)


def keep_received(here: Regal) -> None:
    """Store what the local Regal has received: it loses everything when it stops, while the ledger does not."""
    bodies = [json.dumps(event["body"]) for event in here.ask("events?stored=true")]
    RECEIVED.write_text("".join(f"{body}\n" for body in bodies))


def send_again(here: Regal) -> int:
    """Resend what an earlier local Regal received to a new one, so that it agrees with the ledger again.

    :returns: the number of requests.
    """
    import requests

    bodies = RECEIVED.read_text().splitlines()
    headers = {"Authorization": KEY, "Content-Type": "application/json"}
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        for body in bodies:
            while (
                session.post(f"{here.url}/events", data=body.encode(), headers=headers, timeout=10).status_code == 429
            ):
                time.sleep(0.1)
    return len(bodies)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, *, patience_s: float) -> None:
    """Wait until a URL answers."""
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        if process.poll() is not None:
            break
        with contextlib.suppress(URLError, ConnectionError, TimeoutError), urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer. The last lines of {log}:\n" + log.read_text()[-2000:])


def connections(here: Regal) -> dict[str, str]:
    """Return the connections of the examples, and the default one: all lead to the local Regal, as one account."""
    one_account = json.loads(here.connection)
    one_account["extra"]["account"] = "regal_sandbox"
    others = ("REGAL_DEFAULT", "REGAL_SANDBOX_NORTH", "REGAL_SANDBOX_SOUTH")
    return {
        "AIRFLOW_CONN_REGAL_SANDBOX": here.connection,
        **{f"AIRFLOW_CONN_{name}": json.dumps(one_account) for name in others},
    }


def airflow_environment(here: Regal, **more: str) -> dict[str, str]:
    """The environment variables of an Airflow in ``.demo`` that uses the local Regal."""
    port = free_port(8080)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return inherited | {
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        **connections(here),
        "AIRFLOW_CONN_REGAL_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(WAREHOUSE)}),
        "NO_PROXY": "127.0.0.1,localhost",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}",
        **more,
    }


@contextlib.contextmanager
def api_server(env: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Run Airflow's API server, to which tasks report; return a function that waits until it answers."""
    log = HOME / "api-server.log"
    with running([sys.executable, "-m", "airflow", "api-server", "--workers", "1"], env, log) as process:
        yield lambda: wait_for(airflow_url(env) + "/api/v2/version", process, log, patience_s=120)


def airflow_url(env: dict[str, str]) -> str:
    """The URL of Airflow's UI and API."""
    return f"http://127.0.0.1:{env['AIRFLOW__API__PORT']}"


def ask_ledger(env: dict[str, str], *words: str) -> str:
    """Run one of our own commands, and return its output."""
    command = [sys.executable, "-m", "airflow_provider_regal", *words]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"'{' '.join(words)}' failed:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def airflow(env: dict[str, str], *words: str, log: str, over: Callable[[], bool] = lambda: False) -> None:
    """Run one ``airflow`` command, with its output in a file that is shown if it fails.

    :param over: called repeatedly while it runs; once it returns True, the command has ten seconds to end. (In rare
        cases ``dags test --use-executor`` waits for an idle worker forever.)
    """
    path = HOME / log
    with running([sys.executable, "-m", "airflow", *words], env, path) as process:
        while process.poll() is None and not over():
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        failed = process.poll()  # None: it was done but did not end, and is stopped now
    if failed:
        lines = path.read_text(errors="replace").splitlines()[-40:]
        print("\n".join(lines))
        raise SystemExit(f"'airflow {' '.join(words)}' failed; its whole output is in {path}.")
