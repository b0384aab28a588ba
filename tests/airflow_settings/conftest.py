"""One running Airflow for all tests of this folder; long runs are started first."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts import local
from scripts.processes import running
from tests.running_airflow import Airflow, Run, ports_and_heartbeats

DAGS = Path(__file__).with_name("settings_dags.py")
REMOVED = Path(__file__).with_name("removed_dag.py")
#: Regal's answers by event name; each refusal is given the stated number of times.
FAULTS = [
    {"on": {"name": "marked_after_failing", "times": 3}, "do": {"status": 400}},
    {"on": {"name": "no_retries", "times": 1}, "do": {"status": 503, "retry_after": 600}},
    {"on": {"name": "backoff", "times": 3}, "do": {"status": 503, "retry_after": 600}},
    {"on": {"name": "depends_on_past", "times": 1}, "do": {"status": 400}},
    {"on": {"name": "mapped 1", "times": 1}, "do": {"status": 400}},
    {"on": {"name": "trigger_rule_first", "times": 1}, "do": {"status": 400}},
    {"on": {"name": "setup_teardown_teardown", "times": 1}, "do": {"status": 400}},
    {"on": {"name": "teardown_fails"}, "do": {"status": 400}},
    {"on": {"name": "removed", "times": 1}, "do": {"status": 400}},
]
HEARTBEAT_TIMEOUT_S = 15


class Scheduler:
    """Airflow's scheduler with its LocalExecutor, which can be restarted."""

    def __init__(self, env: dict[str, str], home: Path) -> None:
        self._env, self._home = env, home
        self._stack = ExitStack()
        self._started = 0

    def start(self) -> None:
        """Start it."""
        self._started += 1
        log = self._home / f"scheduler.{self._started}.log"
        command = [sys.executable, "-m", "airflow", "scheduler"]
        self.process = self._stack.enter_context(running(command, self._env, log))

    def close(self) -> None:
        """Stop it, with all its tasks."""
        self._stack.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the running Airflow."""
    return tmp_path_factory.mktemp("settings")


@pytest.fixture(scope="session")
def environment(home: Path) -> Iterator[tuple[dict[str, str], local.Regal]]:
    """Run a local Regal, and create an Airflow environment with a database and the DAGs."""
    dags = home / "dags"
    dags.mkdir()
    for file in (DAGS, REMOVED):
        shutil.copy(file, dags)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "HOME", home)
        with local.regal(rate_limit=1_000) as regal:
            env = local.airflow_environment(
                regal,
                AIRFLOW_HOME=str(home / "airflow"),
                AIRFLOW__CORE__DAGS_FOLDER=str(dags),
                AIRFLOW__CORE__PARALLELISM="8",
                AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="2",
                AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK="False",
                AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="1",
                **ports_and_heartbeats(HEARTBEAT_TIMEOUT_S),
                PYTHONPATH=str(local.PROJECT),
                SETTINGS_TEST_HOME=str(home),
            )
            local.airflow(env, "db", "migrate", log="migrate.log")
            yield env, regal


@pytest.fixture(scope="session")
def without_scheduler(environment: tuple[dict[str, str], local.Regal], home: Path) -> Iterator[Airflow]:
    """Run all of Airflow except the scheduler."""
    env, regal = environment
    with ExitStack() as stack:
        processes = []
        for name, *options in (("api-server", "--workers", "1"), ("dag-processor",), ("triggerer",)):
            log = home / f"{name}.log"
            command = [sys.executable, "-m", "airflow", name, *options]
            processes.append(stack.enter_context(running(command, env, log)))
        local.wait_for(
            f"{local.airflow_url(env)}/api/v2/version", processes[0], home / "api-server.log", patience_s=180
        )
        here = Airflow(env, regal, home)
        here.set_faults(FAULTS)
        yield here
        for process in processes:  # they take their time, all at the same time
            os.killpg(process.pid, signal.SIGTERM)


@pytest.fixture(scope="session")
def scheduler(without_scheduler: Airflow, home: Path) -> Iterator[Scheduler]:
    """Run the scheduler; tasks started before the API server answers would fail."""
    scheduler = Scheduler(dict(without_scheduler.env), home)
    scheduler.start()
    yield scheduler
    scheduler.close()


@pytest.fixture(scope="session")
def airflow(without_scheduler: Airflow, scheduler: Scheduler) -> Airflow:
    """Run Airflow."""
    return without_scheduler


@pytest.fixture(scope="session")
def early(airflow: Airflow) -> dict[str, Run]:
    """Start the long runs, all at once."""
    names = ("execution_timeout", "dagrun_timeout", "backoff", "two_runs", "tested")
    runs = {name: airflow.start(name) for name in names}
    return runs | {"two_runs, again": airflow.start("two_runs")}
