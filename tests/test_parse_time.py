"""What a DAG file costs to parse: nothing heavy is imported before a task runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import airflow_provider_regal

PACKAGE = Path(airflow_provider_regal.__file__).parent
ROOMS = ("operators", "transfers", "decorators", "hooks")
MODULES = sorted(
    f"airflow_provider_regal.{room}.{path.stem}"
    for room in ROOMS
    for path in (PACKAGE / room).glob("*.py")
    if path.stem != "__init__"
)


def test_importing_every_operator_loads_nothing_heavy():
    code = (
        "import sys, importlib, airflow.providers.common.compat.sdk as sdk; sdk.BaseOperator, sdk.BaseHook;"
        "before = set(sys.modules);"
        f"[importlib.import_module(name) for name in {MODULES!r}];"
        "heavy = {'requests', 'urllib3', 'aiohttp', 'phonenumbers', 'pandas', 'pyarrow', 'fastapi'};"
        "sys.exit(str(sorted(heavy & (sys.modules.keys() - before))) if heavy & (sys.modules.keys() - before) else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(MODULES) > 8
