"""Use the installed package in the Airflow it was installed beside; ``scripts/install_matrix.py`` runs it there.

Nothing is imported from the project's folder. The last line that is printed is JSON: what was found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages

DAG = """
from airflow import DAG

from airflow_provider_regal.operators.track import RegalTrackOperator

try:
    from airflow.sdk import task
except ImportError:
    from airflow.decorators import task

with DAG("installed", schedule=None):
    RegalTrackOperator(task_id="one", event="Operator Ran", user_id="anne", properties={"on": "{{ dag.dag_id }}"})

    @task.regal(call="track", event="Decorator Ran")
    def many(count, ti=None):
        for number in range(count):
            yield {"user_id": f"{ti.task_id}-{number}"}

    many(2)
"""
SENT = ["Decorator Ran", "Decorator Ran", "Operator Ran"]


def main() -> None:
    """Try everything, and print what was found; anything unexpected ends the program."""
    found = {
        "version": version("airflow-provider-regal"),
        "common_compat": version("apache-airflow-providers-common-compat"),
        "sqlalchemy": version("sqlalchemy"),
        "modules": import_all_modules(),
        "form_fields": count_form_fields(),
    }
    found["has_command"] = airflow("regal", "--help").returncode == 0
    check_listed()
    found["events"] = run_dag()
    print(json.dumps(found))


def import_all_modules() -> int:
    """Import every module of the package, and return how many there are."""
    package = import_module("airflow_provider_regal")
    if "site-packages" not in str(package.__file__):
        sys.exit(f"{package.__file__} is not the installed package")
    names = [module.name for module in walk_packages(package.__path__, "airflow_provider_regal.")]
    names.remove("airflow_provider_regal.__main__")
    for name in names:
        import_module(name)
    return len(names)


def count_form_fields() -> int:
    """Return how many fields of its own the form of our connection type has in the UI."""
    if version("apache-airflow").startswith("2."):
        from airflow.providers_manager import ProvidersManager

        return sum(name.startswith("extra__regal__") for name in ProvidersManager().connection_form_widgets)
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (ours,) = (meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "regal")
    return len(ours.extra_fields or {})


def check_listed() -> None:
    """Check that Airflow knows the provider, and says nothing else about it."""
    ran = airflow("providers", "list", "-o", "plain")
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if "regal" in line.lower()]
    if ran.returncode or len(lines) != 1 or "airflow-provider-regal" not in lines[0]:
        sys.exit(f"airflow providers list: {ran.stdout}{ran.stderr}")


def run_dag() -> int:
    """Run a DAG with an operator and ``@task.regal`` against a local Regal; return how many events arrived."""
    from airflow_provider_regal.testing import Sandbox

    dags = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    dags.mkdir()
    (dags / "installed.py").write_text(DAG)
    with Sandbox() as regal:
        os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = regal.connection()
        for words in (("db", "migrate"), ("dags", "test", "installed")):
            ran = airflow(*words)
            if ran.returncode:
                sys.exit(f"airflow {' '.join(words)}: {ran.stdout[-4000:]}{ran.stderr[-4000:]}")
        arrived = sorted(event["name"] for event in regal.events())
        if arrived != SENT or regal.stats()["contract_findings"]:
            sys.exit(f"arrived: {arrived}; {regal.stats()}; {ran.stdout[-4000:]}{ran.stderr[-4000:]}")
        ran = subprocess.run(
            [sys.executable, "-I", "-m", "airflow_provider_regal", "check"], capture_output=True, text=True, check=False
        )
        if ran.returncode:
            sys.exit(f"check: {ran.stdout}{ran.stderr}")
    return len(arrived)


def airflow(*words: str) -> subprocess.CompletedProcess[str]:
    """Run an ``airflow`` command."""
    return subprocess.run(
        [sys.executable, "-I", "-m", "airflow", *words], capture_output=True, text=True, timeout=300, check=False
    )


if __name__ == "__main__":
    main()
