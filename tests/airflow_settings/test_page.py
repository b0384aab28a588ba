"""The page about Airflow's settings: each line has a test, and its numbers match the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from airflow import __version__
from airflow.configuration import conf

from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import GRACE_S
from scripts.check_docs import PROJECT

TEXT = (PROJECT / "docs" / "airflow-settings.md").read_text().partition("\n## Airflow 2.11")[0]
PAGE = " ".join(TEXT.split())
HEADING = "setting or event"


def first_cells():
    """Return the first cell of each line of the page's tables."""
    return [line.split("|")[1].strip() for line in TEXT.splitlines() if line.startswith("| ")]


def as_name(cell):
    return "test_" + re.sub(r"\W+", "_", cell.lower()).strip("_")


def names_of_tests():
    names = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        if file != Path(__file__):
            functions = [one.name for one in ast.parse(file.read_text()).body if isinstance(one, ast.FunctionDef)]
            names |= {name for name in functions if name.startswith("test_")}
    return names


def test_every_line_has_a_test_of_its_name_and_every_test_a_line():
    lines = [as_name(cell) for cell in first_cells() if cell != HEADING]
    assert len(lines) == len(set(lines))
    assert set(lines) == names_of_tests()


@pytest.mark.parametrize(
    "said",
    [
        f"at most {GRACE_S:.0f} seconds of that",
        f"`max_event_age` ({DeliverySettings.of(call='track', event='x').max_event_age.days} days)",
    ],
)
def test_a_number_is_that_of_the_code(said):
    assert said in PAGE


@pytest.mark.skipif(__version__.startswith("2."), reason="the page is about Airflow 3")
@pytest.mark.parametrize(
    ("section", "option"), [("workers", "min_heartbeat_interval"), ("scheduler", "task_instance_heartbeat_timeout")]
)
def test_a_number_is_airflows_default(section, option):
    default = conf.get_default_value(section, option)
    assert f"`[{section}] {option}` ({default} seconds by default)" in PAGE
