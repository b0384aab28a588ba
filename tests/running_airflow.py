"""A running Airflow and a local Regal, used through Airflow's REST API and the sandbox's side API."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from scripts.local import Regal
from scripts.processes import free_port

ENDED = ("success", "failed", "skipped", "upstream_failed")


def ports_and_heartbeats(heartbeat_timeout_s: int) -> dict[str, str]:
    """Return settings with which several Airflows can run at the same time, and detect dead workers quickly."""
    port = free_port(8085)
    return {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(heartbeat_timeout_s),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port(8794)),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port(8793)),
    }


class Airflow:
    """A running Airflow and its local Regal."""

    def __init__(self, env: Mapping[str, str], regal: Regal, home: Path) -> None:
        self.env, self.regal, self.home = env, regal, home
        self.url = f"http://127.0.0.1:{env['AIRFLOW__API__PORT']}"
        self.ledger = Path(env["AIRFLOW_HOME"]) / "regal" / "ledger.db"

    def api(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """Call Airflow's REST API; with a body it is a POST, unless a method is given."""
        request = Request(
            f"{self.url}/api/v2/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        for patience in reversed(range(20)):
            try:
                with urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except HTTPError as error:
                if error.code < 500 or not patience:  # Airflow's SQLite database may be busy
                    error.add_note(error.read().decode(errors="replace")[:500])
                    raise
                time.sleep(1)
        raise AssertionError("unreachable")

    def start(self, dag: str, task: str = "deliver", *, logical_date: str | None = None) -> Run:
        """Start a run of a DAG, as soon as Airflow knows it."""
        self.wait_for_dag(dag)
        return Run(self, dag, self.api(f"dags/{dag}/dagRuns", {"logical_date": logical_date})["dag_run_id"], task)

    def wait_for_dag(self, dag: str) -> None:
        """Wait until Airflow has read the file of a DAG."""
        wait_until(lambda: any(found["dag_id"] == dag for found in self.api("dags?limit=100")["dags"]))

    def runs(self, dag: str) -> list[Run]:
        """Return the runs of a DAG, oldest date first."""
        found = self.api(f"dags/{dag}/dagRuns?order_by=run_after&limit=100")["dag_runs"]
        return [Run(self, dag, run["dag_run_id"]) for run in found]

    def arrivals(self, dag: str) -> Counter[str]:
        """Count the arrivals of each row of a DAG at Regal."""
        return Counter(body["userId"] for body, stored in self._events(dag) if stored)

    def arrived(self, dag: str) -> list[str]:
        """Return the rows of a DAG that Regal has, in the order in which they arrived."""
        return [body["userId"] for body, stored in self._events(dag) if stored]

    def requests(self, dag: str) -> int:
        """Count the requests with rows of a DAG, including refused ones."""
        return len(self._events(dag))

    def _events(self, dag: str) -> list[tuple[dict[str, Any], bool]]:
        return [
            (event["body"], event["stored"])
            for event in self.regal.ask("events")
            if event["body"]["userId"].startswith(f"{dag}-")
        ]

    def set_faults(self, rules: Sequence[object]) -> None:
        """Replace the sandbox's fault rules."""
        urlopen(
            Request(f"{self.regal.url}/sandbox/faults", json.dumps(rules).encode(), method="PUT"), timeout=10
        ).close()


class Run:
    """One run of a DAG, from the view of one of its tasks."""

    def __init__(self, airflow: Airflow, dag: str, run_id: str, task: str = "deliver", index: int | None = None):
        self.airflow, self.dag, self.run_id, self.task_id, self.index = airflow, dag, run_id, task, index
        self._run = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}"
        self.path = f"{self._run}/taskInstances/{task}" + ("" if index is None else f"/{index}")

    def of(self, task: str, index: int | None = None) -> Run:
        """Return the same run, from the view of another task or one of its mapped instances."""
        return Run(self.airflow, self.dag, self.run_id, task, index)

    @property
    def task(self) -> dict[str, Any]:
        """Airflow's record of the task instance."""
        found: dict[str, Any] = self.airflow.api(self.path)
        return found

    @property
    def state(self) -> str | None:
        """The state of the task instance."""
        found: str | None = self.task["state"]
        return found

    @property
    def state_of_run(self) -> str:
        """The state of the whole run."""
        found: str = self.airflow.api(self._run)["state"]
        return found

    def state_store(self) -> dict[str, Any]:
        """What the task has stored in Airflow's task state."""
        entries = self.airflow.api(f"{self.path}/state-store")
        return {entry["key"]: entry["value"] for entry in next(v for v in entries.values() if isinstance(v, list))}

    def report(self) -> dict[str, Any]:
        """The report of the last try."""
        index = "" if self.index is None else f"&map_index={self.index}"
        path = f"{self._run}/taskInstances/{self.task_id}/xcomEntries/regal_report?deserialize=true{index}"
        found: dict[str, Any] = self.airflow.api(path)["value"]
        return found

    def kill(self, *, supervisor_only: bool = False) -> None:
        """Kill the process that watches the task, and the task's own."""
        own, supervisor = (self.airflow.home / f"{self.dag}.pids").read_text().splitlines()[-1].split()
        for pid in [supervisor] if supervisor_only else [supervisor, own]:
            os.kill(int(pid), signal.SIGKILL)

    def wait_for_end(self, patience_s: float = 240) -> dict[str, Any]:
        """Wait until the task instance has ended; return Airflow's record of it."""
        wait_until(lambda: self.state in ENDED, patience_s)
        return self.task

    def clear(self) -> dict[str, Any]:
        """Clear only the task instance, and wait for the end of its next try."""
        before = self.task["try_number"]
        self.request_clear()
        wait_until(lambda: self.task["try_number"] > before)
        return self.wait_for_end()

    def request_clear(self) -> None:
        """Clear the task instance."""
        what = self.task_id if self.index is None else [self.task_id, self.index]
        self.airflow.api(
            f"dags/{self.dag}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": self.run_id, "task_ids": [what], "only_failed": False},
        )

    def mark(self, state: str) -> None:
        """Mark the task instance ``success`` or ``failed``, as a person does in the UI."""
        self.airflow.api(self.path, {"new_state": state}, method="PATCH")

    def log(self) -> str:
        """Return the logs of all tries."""
        tries = self.task["try_number"]
        return "".join(
            json.dumps(self.airflow.api(f"{self.path}/logs/{number}?full_content=true"))
            for number in range(1, tries + 1)
        )


def wait_until(what: Callable[[], Any], patience_s: float = 120) -> Any:
    """Wait until something is true; return it."""
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {patience_s:g} s in vain")
