"""Use Airflow through its REST API: a token, runs, states, clears."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tests.distributed.processes import wait_until

_TIMEOUT_S = 60
_PAGE = 100
ENDED = ("success", "failed")


class Airflow:
    """Airflow's API server.

    :param url: its URL, without a path.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._token = ""

    def answers(self) -> bool:
        """Return whether it answers."""
        with suppress(URLError, ConnectionError, TimeoutError), urlopen(f"{self._url}/api/v2/version", timeout=5):
            return True
        return False

    def log_in(self) -> None:
        """Request a token."""
        self._token = self._ask("/auth/token")["access_token"]

    def api(self, path: str, body: Any = None, **query: Any) -> Any:
        """Call the API; with a body, POST."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return self._ask(f"/api/v2/{path}{'?' if asked else ''}{asked}", body)

    def _ask(self, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = Request(self._url + path, None if body is None else json.dumps(body).encode(), headers)
        with urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)

    def dags(self) -> set[str]:
        """Return the ids of the parsed DAGs."""
        return {dag["dag_id"] for dag in self.api("dags", limit=_PAGE)["dags"]}

    def trigger(self, dag_id: str) -> Run:
        """Start a run of a DAG."""
        return Run(self, dag_id, self.api(f"dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"])


class Run:
    """One run of a DAG."""

    def __init__(self, airflow: Airflow, dag_id: str, run_id: str) -> None:
        self._airflow = airflow
        self.dag_id = dag_id
        self.run_id = run_id
        self._path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    @property
    def state(self) -> str:
        """The state of the run."""
        return str(self._airflow.api(self._path)["state"])

    def tasks(self, task_id: str | None = None) -> list[dict[str, Any]]:
        """Return its task instances as the API returns them, by task and map index."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._airflow.api(f"{self._path}/taskInstances", limit=_PAGE, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                break
        found.sort(key=lambda one: (one["task_id"], one["map_index"]))
        return [one for one in found if task_id in (None, one["task_id"])]

    def task(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return one task instance."""
        return next(one for one in self.tasks(task_id) if one["map_index"] == map_index)

    def tries(self, task_id: str, map_index: int) -> list[dict[str, Any]]:
        """Return the tries of a mapped task instance, oldest first."""
        found = self._airflow.api(f"{self._path}/taskInstances/{task_id}/{map_index}/tries")["task_instances"]
        return sorted(found, key=lambda one: one["try_number"])

    def wait(self, patience_s: float) -> str:
        """Wait until the run has ended; return its state."""
        wait_until(lambda: self.state in ENDED, patience_s, f"the end of {self.dag_id}", every_s=1.0)
        return self.state

    def clear(self) -> None:
        """Clear all its tasks."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "only_failed": False, "reset_dag_runs": True}
        self._airflow.api(f"dags/{self.dag_id}/clearTaskInstances", body)
        wait_until(lambda: self.state not in ENDED, 30, f"the clear of {self.dag_id}")
