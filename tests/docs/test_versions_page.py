"""docs/versions.md names what is public: all of it can be imported, and all that Airflow registers is included."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from airflow_provider_regal import __version__
from airflow_provider_regal.get_provider_info import get_provider_info
from airflow_provider_regal.ledger.schema import MIGRATIONS

PAGE = (Path(__file__).parents[2] / "docs" / "versions.md").read_text()
PUBLIC = PAGE.partition("## What is public")[2].partition("Everything else")[0]


def public_modules() -> set[str]:
    """Read them from the table; `.track` follows the module before it, with the same parent."""
    found: list[str] = []
    for name in re.findall(r"`(airflow_provider_regal[\w.]*|\.\w+)`", PUBLIC):
        found.append(found[-1].rpartition(".")[0] + name if name.startswith(".") else name)
    return set(found)


def test_what_is_public_can_be_imported():
    modules = public_modules()
    assert {"airflow_provider_regal.operators.redeliver", "airflow_provider_regal.testing"} <= modules
    for name in modules:
        import_module(name)
        assert "._" not in name


def test_every_module_that_airflow_is_told_of_is_public():
    info = get_provider_info()
    told = {
        *(module for kind in ("hooks", "operators") for entry in info[kind] for module in entry["python-modules"]),
        *(entry["python-module"] for entry in info["transfers"]),
        *(path.rpartition(".")[0] for path in info["notifications"]),
    }
    assert told <= public_modules()


def test_the_fixtures_and_classes_that_are_named_exist():
    testing = import_module("airflow_provider_regal.testing")
    assert set(testing.__all__) == {"Sandbox", "ManualClock"}
    for name in (*testing.__all__, "regal_sandbox", "regal_ledger"):
        assert f"`{name}`" in PUBLIC
        assert hasattr(testing, name)


def test_the_last_line_of_the_table_of_schemas_is_the_schema_of_this_version():
    versions = [int(schema) for schema in re.findall(r"^\| \d+\.\d+\.\d+ \| (\d+) \|$", PAGE, re.MULTILINE)]
    assert versions[-1] == len(MIGRATIONS)
    assert versions == sorted(versions)


def test_this_version_has_an_upgrade_note():
    assert f"### {__version__}\n" in PAGE.partition("## Upgrade notes")[2]
