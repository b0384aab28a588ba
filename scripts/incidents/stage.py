"""A real Airflow and a local Regal, in which incidents are prepared one after the other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from scripts import local
from scripts.crash import Crash
from scripts.incidents import history
from scripts.incidents.data import INCIDENTS, Incident, write_tables
from scripts.processes import free_port, running

NEW_KEY: Final = "new-sandbox-key"
#: How long Regal is down in the incident `outage`.
OUTAGE_MINUTES: Final = 60
_RATE_LIMIT: Final = 300
#: How long a server of ours may be away.
_PATIENCE_S: Final = 60
_ENDED: Final = ("success", "failed")


@dataclass(frozen=True)
class Stage:
    """The place of the incidents.

    :param airflow: the URL of Airflow.
    :param outage_minutes: how long Regal is down in the incident ``outage``.
    """

    here: local.Regal
    airflow: str
    outage_minutes: float = OUTAGE_MINUTES

    def prepare(self, name: str) -> str:
        """Let an incident happen; return the id of the run that failed."""
        incident = INCIDENTS[name]
        rows = write_tables(local.WAREHOUSE, incident)
        before = self._stored()
        run_id = self.trigger(incident.dag_id)
        self._let_it_go_wrong(incident, before, rows)
        self.wait_for_run(incident.dag_id, run_id, "failed")
        return run_id

    def _let_it_go_wrong(self, incident: Incident, before: int, rows: int) -> None:
        if incident.name == "revoked-key":
            self.wait(lambda: self._stored() - before >= rows // 2, "half of the events")
            self.ask_regal("api-key", {"api_key": NEW_KEY})
        elif incident.name == "outage":
            self.wait(lambda: self._stored() - before >= rows // 3, "a third of the contacts")
            self.break_off()
            timer = threading.Timer(60 * self.outage_minutes, self.be_back)
            timer.daemon = True
            timer.start()
        elif incident.name == "killed-worker":
            crash = Crash(self.here, incident.dag_id, incident.task_id, after=rows // 2)
            self.wait(lambda: crash.look() or crash.arrived is not None, "half of the events", every_s=0.01)

    def break_off(self) -> None:
        """Let Regal answer 503 to everything."""
        self.ask_regal("faults", [{"do": {"status": 503}}])

    def be_back(self) -> None:
        """Let Regal answer as usual."""
        self.ask_regal("faults", [])

    # -- asking -------------------------------------------------------------------------------------------------------

    def trigger(self, dag_id: str) -> str:
        """Start a run; return its id."""
        return str(self.api(f"dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"])

    def wait_for_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Wait until a run ends in a state.

        :raises SystemExit: it ends in another one.
        """
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
        found = self.wait(lambda: self._ended(path), f"the end of {dag_id}")
        if found != state:
            raise SystemExit(f"The run {run_id} of {dag_id} ended as {found}, not as {state}.")

    def _ended(self, path: str) -> str | None:
        state = str(self.api(path)["state"])
        return state if state in _ENDED else None

    def api(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Ask Airflow's REST API."""
        return _ask(f"{self.airflow}/api/v2/{path}", body, method or ("GET" if body is None else "POST"))

    def ask_regal(self, what: str, body: object) -> None:
        """Pull a lever of the local Regal."""
        _ask(f"{self.here.url}/sandbox/{what}", body, "PUT")

    def _stored(self) -> int:
        return int(self.here.ask("stats")["stored"])

    def wait(self, found: Callable[[], Any], what: str, *, patience_s: float = 180, every_s: float = 0.1) -> Any:
        """Wait until something is found; return it.

        :raises SystemExit: it is not found in time.
        """
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            if answer := found():
                return answer
            time.sleep(every_s)
        raise SystemExit(f"Waited {patience_s:.0f} s for {what} in vain. The logs are in {local.HOME}.")

    def page_of(self, incident: Incident) -> str:
        """Return the address of the incident's DAG in Airflow."""
        return f"{self.airflow}/dags/{incident.dag_id}"


def _ask(url: str, body: object, method: str) -> Any:
    told = None if body is None else json.dumps(body).encode()
    request = Request(url, data=told, headers={"Content-Type": "application/json"}, method=method)
    ends = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except HTTPError:
            raise
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > ends:
                raise SystemExit(f"{url} does not answer ({error}). The logs are in {local.HOME}.") from error
        time.sleep(0.5)


@contextmanager
def stage(names: Sequence[str], *, outage_minutes: float = OUTAGE_MINUTES) -> Iterator[Stage]:
    """Run a local Regal and an Airflow that start from nothing, with healthy earlier runs of the incidents named."""
    airflow_home = local.HOME / "airflow"
    shutil.rmtree(airflow_home, ignore_errors=True)
    (airflow_home / "dags").mkdir(parents=True)
    for file in (*history.DAGS.glob("*.py"), local.PROJECT / "dags" / "07_redeliver.py"):
        shutil.copy(file, airflow_home / "dags")
    local.WAREHOUSE.unlink(missing_ok=True)
    for incident in INCIDENTS.values():
        write_tables(local.WAREHOUSE, incident)
    with local.regal(rate_limit=_RATE_LIMIT) as here:
        env = local.airflow_environment(
            here,
            AIRFLOW__CORE__DAGS_FOLDER=str(airflow_home / "dags"),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
            AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port(8794)),
            AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port(8793)),
        )
        for name in local.connections(here):
            del env[name]
        connection = json.loads(here.connection)
        local.airflow(env, "db", "migrate", log="migrate.log")
        # For the tasks it is in Airflow's database, so that its key can be edited in the browser.
        writing = [_history(env | {"AIRFLOW_CONN_REGAL_DEFAULT": here.connection}, name) for name in names]
        log = local.HOME / "standalone.log"
        with running([sys.executable, "-m", "airflow", "standalone"], env, log) as process:
            for one in writing:
                _finish(one)
            local.wait_for(f"{local.airflow_url(env)}/api/v2/version", process, log, patience_s=180)
            here_now = Stage(here, local.airflow_url(env), outage_minutes)
            extra = json.dumps(connection.pop("extra"))
            here_now.api("connections", {"connection_id": "regal_default", "extra": extra, **connection})
            dags = [*(INCIDENTS[name].dag_id for name in names), "upstream_repair", "regal_redeliver"]
            here_now.wait(lambda: {*dags} <= {one["dag_id"] for one in here_now.api("dags")["dags"]}, "the DAGs")
            yield here_now


def _history(env: dict[str, str], name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.incidents.history", name]
    return subprocess.Popen(
        command, env=dict(env), cwd=local.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(process: subprocess.Popen[str]) -> None:
    told, _ = process.communicate(timeout=180)
    if process.returncode:
        raise SystemExit(f"The earlier runs could not be delivered:\n{told[-2000:]}")
