"""The connections of the examples: to a local Regal only."""

from __future__ import annotations

import pytest


@pytest.fixture
def regal(regal, monkeypatch):
    """A local Regal that ``regal_sandbox`` leads to. A task that used ``regal_default`` would find no connection."""
    monkeypatch.delenv("AIRFLOW_CONN_REGAL_DEFAULT")
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX", regal.connection())
    return regal
