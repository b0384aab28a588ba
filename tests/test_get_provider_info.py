"""The provider's metadata: true, valid, and cheap to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from importlib.resources import files

import jsonschema
import pytest

from airflow_provider_regal import __version__
from airflow_provider_regal.get_provider_info import get_provider_info


def test_it_is_valid_against_airflows_own_schema():
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    assert json.loads(json.dumps(get_provider_info())) == get_provider_info()


def test_it_names_this_distribution_and_version():
    info = get_provider_info()
    assert info["package-name"] == distribution("airflow-provider-regal").metadata["Name"]
    assert info["versions"] == [__version__]
    (entry,) = distribution("airflow-provider-regal").entry_points.select(group="apache_airflow_provider")
    assert entry.load() is get_provider_info


def named_modules(info):
    for kind in ("hooks", "operators", "transfers"):
        for group in info.get(kind, []):
            # A transfer has one module, the others have a list.
            yield from group.get("python-modules") or [group["python-module"]]


def named_objects(info):
    for group, key in (("connection-types", "hook-class-name"), ("task-decorators", "class-name")):
        yield from (entry[key] for entry in info.get(group, []))
    for group in ("asset-uris", "dataset-uris"):
        for entry in info.get(group, []):
            yield from (entry["handler"], entry["to_openlineage_converter"])
    for group in ("cli", "notifications", "extra-links"):
        yield from info.get(group, [])


def test_every_module_and_class_it_names_is_there():
    for module in named_modules(get_provider_info()):
        import_module(module)
    for path in named_objects(get_provider_info()):
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name)), path


def test_every_module_of_a_room_is_named():
    import airflow_provider_regal

    named = set(named_modules(get_provider_info()))
    for room in ("hooks", "operators", "transfers"):
        folder = files(airflow_provider_regal) / room
        if folder.is_dir():
            modules = {path.name.removesuffix(".py") for path in folder.iterdir() if path.name.endswith(".py")}
            there = {name for name in modules if not name.startswith("_")}
            assert {f"airflow_provider_regal.{room}.{name}" for name in there} <= named


def test_every_option_of_the_configuration_is_described():
    (section,) = get_provider_info()["config"].values()
    assert list(get_provider_info()["config"]) == ["regal"]
    for option in section["options"].values():
        assert option["description"]
        assert option["version_added"]
        assert isinstance(option["default"], str)


def test_the_ledgers_key_is_treated_as_a_secret():
    options = get_provider_info()["config"]["regal"]["options"]
    assert {name for name, option in options.items() if option.get("sensitive")} == {"ledger_key"}


def test_the_connection_form_asks_for_the_account():
    (connection,) = get_provider_info()["connection-types"]
    assert connection["conn-fields"]["account"]["schema"]["type"] == ["string", "null"]


def test_asking_for_it_loads_nothing_heavy():
    code = (
        "import sys; from airflow_provider_regal.get_provider_info import get_provider_info; get_provider_info();"
        "heavy = {'requests', 'urllib3', 'aiohttp', 'phonenumbers', 'pydantic', 'airflow'} & sys.modules.keys();"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def airflow_says(tmp_path_factory):
    """Run an ``airflow`` command in a home of its own."""
    home = tmp_path_factory.mktemp("airflow-home")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

    def run(*args):
        return subprocess.run(
            [sys.executable, "-m", "airflow", *args], capture_output=True, text=True, env=env, timeout=120, check=False
        )

    return run


def test_airflow_lists_the_provider_without_a_warning(airflow_says):
    ran = airflow_says("providers", "list", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    listed = {row["package_name"]: row for row in json.loads(ran.stdout[ran.stdout.index("[{") :])}
    assert listed["airflow-provider-regal"]["version"] == __version__
    assert "Regal.io" in listed["airflow-provider-regal"]["description"]
    said = ran.stdout[: ran.stdout.index("[{")] + ran.stderr
    assert not [line for line in said.splitlines() if "regal" in line.lower()], said
