"""The connections of the examples: only to a local Regal."""

from __future__ import annotations

import pytest


@pytest.fixture
def regal(regal, monkeypatch):
    """A local Regal for ``regal_sandbox``. A task that uses ``regal_default`` finds no connection."""
    monkeypatch.delenv("AIRFLOW_CONN_REGAL_DEFAULT")
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX", regal.connection())
    return regal
