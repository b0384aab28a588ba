"""Shared fixtures for the tests of opt-in syncs and ledgers."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from tests.operators.ways import context


@dataclass
class Seen:
    """The results of one sync."""

    report: dict[str, Any]
    error: str
    requests: int

    @property
    def plan(self):
        return self.report["plan"]


@pytest.fixture
def sync(regal, monkeypatch):
    """Sync rows as a run of its own; all share the ledger."""
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(rate_limit=5_000))
    runs = itertools.count(1)

    def run(rows, task_id="t", map_index=-1, **options):
        here = context()
        here["ti"].run_id, here["ti"].task_id, here["ti"].map_index = f"r{next(runs)}", task_id, map_index
        before = regal.stats()["requests"]
        error = ""
        try:
            RegalOptInSyncOperator(task_id=task_id, rows=rows, **options).execute(here)
        except Exception as failed:  # noqa: BLE001 - its text is looked at
            error = str(failed)
        return Seen(here["ti"].report, error, regal.stats()["requests"] - before)

    return run


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A database of Airflow's, for a ledger."""
    path = tmp_path / "ledgers" / "consents.db"
    path.parent.mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path
