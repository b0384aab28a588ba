"""A real Airflow for the tests: each test process has its own home, migrated once when first needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

# A shell that starts the tests in the background ignores SIGINT, and commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
HOME = Path(tempfile.mkdtemp(prefix="airflow-"))
CACHE = Path(__file__).parents[1] / ".cache"
for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AIRFLOW__"))]:
    del os.environ[name]
os.environ.update(  # before anything imports Airflow
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(HOME / "dags"),
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# Slowness on a busy machine is not an error.
hypothesis.settings.register_profile("without_deadline", deadline=None)
hypothesis.settings.load_profile("without_deadline")

if TYPE_CHECKING:
    from airflow_provider_regal.testing import Sandbox

pytest_plugins = ["airflow_provider_regal.testing", "tests.databases"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured: repeats and unknowns of each kill."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    for report in sorted((report for report in reports if report.user_properties), key=lambda report: report.nodeid):
        measured = ", ".join(f"{name} {value}" for name, value in report.user_properties)
        terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {measured}")


def pytest_unconfigure() -> None:
    """Clean up the temporary folder."""
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_db() -> Iterator[Path]:
    """Return the file of Airflow's database: a copy of one that was migrated once for these versions of Airflow."""
    (HOME / "dags").mkdir(exist_ok=True)
    file = HOME / "airflow.db"
    versions = sorted(f"{one.name} {one.version}" for one in distributions() if one.name.startswith("apache-airflow"))
    migrated = CACHE / f"airflow-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}.db"
    if migrated.exists():
        shutil.copy(migrated, file)
    else:
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
        CACHE.mkdir(exist_ok=True)
        unfinished = CACHE / f"{migrated.name}.{os.getpid()}"
        with closing(sqlite3.connect(file)) as one, closing(sqlite3.connect(unfinished)) as other:
            one.backup(other)  # with what is still in its WAL
        unfinished.replace(migrated)  # another process may do the same
    yield file


@pytest.fixture
def run_dag(airflow_db: Path) -> Callable:
    """Run a DAG of the test in this process, as Airflow would: templates, XCom, mapping, retries."""

    def run(dag, **kwargs):
        from airflow import __version__

        if not __version__.startswith("2."):
            from airflow.dag_processing.bundles.manager import DagBundlesManager
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

            DagBundlesManager().sync_bundles_to_db()
            bag = DagBag(dag_folder=os.devnull)
            bag.bag_dag(dag)
            sync_bag_to_db(bag, "dags-folder", None)
        return dag.test(**kwargs)

    return run


@pytest.fixture
def everything_stored(airflow_db: Path) -> Callable[[], str]:
    """Return the content of Airflow's database as one text."""

    def read() -> str:
        with sqlite3.connect(airflow_db) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return "\n".join(
                f"{table}: {row!r}" for table in tables for row in connection.execute(f'SELECT * FROM "{table}"')
            )

    return read


@pytest.fixture
def regal(monkeypatch: pytest.MonkeyPatch, regal_sandbox: Sandbox, regal_ledger: Path) -> Sandbox:
    """A local Regal for ``regal_default``, and an empty ledger."""
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection())
    return regal_sandbox
