"""Parsing a DAG file loads fields and options, and nothing that only a running task needs.

``benchmarks/dag_parse.py`` measures the milliseconds; what is loaded is deterministic.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import airflow_provider_regal

PACKAGE = Path(airflow_provider_regal.__file__).parent
# An asset makes Airflow load the URI schemes of all providers, and Airflow 2 loads even more.
ON_AIRFLOW_2 = not find_spec("airflow.sdk")
WITH_ASSETS = ("08_when_contacts_are_synced.py",) if ON_AIRFLOW_2 or find_spec("airflow.providers.amazon") else ()
# For any "@task.NAME", Airflow 2 loads all providers.
WITH_DECORATOR = ("10_task_regal.py",) if ON_AIRFLOW_2 else ()
EXAMPLES = sorted(
    str(path) for path in (PACKAGE.parent / "dags").glob("*.py") if path.name not in WITH_ASSETS + WITH_DECORATOR
)
HEAVY = {"requests", "urllib3", "aiohttp", "phonenumbers", "pandas", "pyarrow", "fastapi", "sqlalchemy", "jsonschema"}
# Besides the modules that DAG files import.
LIGHT = {
    "_compat",
    "assets",
    "assets.regal",
    "client",
    "client.guarantee",
    "delivery",
    "delivery.settings",
    "delivery.stopping",
    "delivery.sync",
    "delivery.sync.columns",
    "errors",
    "events",
    "events.data_contract",
    "events.names",
    "events.options",
    "events.python_values",
    "sources",
    "sources.marks",
}
CODE = """
import json, runpy, sys
from importlib import import_module
from airflow import DAG
DAG("warm", schedule=None)
try:
    from airflow.sdk import BaseHook, BaseOperator
except ImportError:
    from airflow.hooks.base import BaseHook
    from airflow.models.baseoperator import BaseOperator
import airflow.timetables.interval

modules, examples = json.loads(sys.argv[1])
before = set(sys.modules)
for module in modules:
    import_module(module)
for example in examples:
    runpy.run_path(example)
print(json.dumps(sorted(sys.modules.keys() - before)))
"""


def modules_in(*rooms: str) -> list[str]:
    return sorted(
        f"airflow_provider_regal.{room}.{path.stem}"
        for room in rooms
        for path in (PACKAGE / room).glob("*.py")
        if path.stem != "__init__"
    )


def loaded_by(modules: list[str], examples: list[str]) -> set[str]:
    given = json.dumps([modules, examples])
    ran = subprocess.run([sys.executable, "-c", CODE, given], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def parsed() -> set[str]:
    """What DAG files load that import every operator, and make some."""
    modules = modules_in("operators", "transfers", "decorators", "notifications")
    assert len(modules) > 8
    assert len(EXAMPLES) > 3
    return loaded_by(modules, EXAMPLES)


def test_a_dag_file_loads_no_heavy_library(parsed):
    assert parsed & HEAVY == set()


def test_a_dag_file_loads_nothing_of_ours_that_only_a_running_task_needs(parsed):
    ours = {
        name.removeprefix("airflow_provider_regal.") for name in parsed if name.startswith("airflow_provider_regal.")
    }
    rooms = {
        name for name in ours if name.partition(".")[0] in ("operators", "transfers", "decorators", "notifications")
    }
    assert ours - rooms == LIGHT - ({"assets", "assets.regal"} if WITH_ASSETS else set())


def test_the_hook_loads_no_heavy_library_and_makes_no_events():
    loaded = loaded_by(["airflow_provider_regal.hooks.regal"], [])
    assert loaded & HEAVY == set()
    assert "airflow_provider_regal.events.models" not in loaded


def test_what_a_delivery_runs_on_loads_no_heavy_library_before_it_runs():
    assert loaded_by(modules_in("hooks"), []) & HEAVY == set()
