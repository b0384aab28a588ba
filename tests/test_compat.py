"""``_compat``: Airflow's names in every version, and without Airflow's own compatibility layer."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from airflow_provider_regal import _compat

# Every Airflow requires common-compat, but most in a version without this module or some of its names.
WITHOUT_COMMON_COMPAT = """
import sys
sys.modules["airflow.providers.common.compat.sdk"] = None
from importlib import import_module
from pkgutil import walk_packages
import airflow_provider_regal

for module in walk_packages(airflow_provider_regal.__path__, "airflow_provider_regal."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
"""
WARNINGS = """
import sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import airflow_provider_regal._compat as compat
sys.exit("\\n".join(str(warning.message) for warning in caught if warning.filename == compat.__file__) or 0)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_every_module_is_imported_without_common_compat():
    ran = run(WITHOUT_COMMON_COMPAT)
    assert ran.returncode == 0, ran.stderr


def test_no_path_is_one_that_this_airflow_calls_deprecated():
    ran = run(WARNINGS)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["BaseHook", "BaseOperator", "DecoratedOperator"])
def test_what_we_subclass_or_ask_is_a_class_of_airflow(name):
    found = getattr(_compat, name)
    assert inspect.isclass(found)
    assert found.__module__.startswith("airflow.")


@pytest.mark.filterwarnings("ignore")  # Airflow 3 has a newer path, which 2.11 lacks
def test_a_failure_that_forbids_retries_is_the_one_this_airflow_catches():
    from airflow.exceptions import AirflowException, AirflowFailException  # a path that exists in all versions

    assert _compat.AirflowFailException is AirflowFailException
    assert issubclass(_compat.AirflowFailException, AirflowException)
    assert issubclass(_compat.AirflowFailException, _compat.AirflowException)


def test_outside_of_a_task_there_is_no_context():
    with pytest.raises((_compat.AirflowException, RuntimeError)):
        _compat.get_current_context()
