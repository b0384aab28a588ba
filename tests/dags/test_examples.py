"""Every example DAG loads, and does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "dags").glob("*.py"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_loads_without_touching_a_connection(path):
    dag = load(path)
    assert dag.tasks
    assert dag.doc_md
    assert not dag.catchup


def test_the_first_events_arrive_exactly_once_and_without_a_finding(run_dag, regal):
    run = run_dag(load(next(path for path in EXAMPLES if path.stem == "01_first_events")))

    assert str(run.state) == "success"
    stats = regal.stats()
    assert stats["requests"] == stats["stored"] == 5
    assert stats["duplicates"] == 0
    assert stats["contract_findings"] == stats["behaviour_findings"] == {}
    assert sorted(event["name"] or "-" for event in regal.events()) == [
        "-",
        "-",
        "Loan Application Approved",
        "pageview",
        "screen",
    ]
    anne = regal.contact(user_id="anne-smith")
    assert anne["name"] == "Anne Smith"
    for channel in ("sms", "voice"):
        consent = anne["phones"]["+19175554444"][channel]
        assert consent["status"] == "Subscribed"
        assert consent["timestamp"] == "2020-08-25 21:23:43 +00:00"
        assert consent["ip"] == "172.16.254.1"
        assert consent["text"].startswith("By clicking")
