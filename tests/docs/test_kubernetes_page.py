"""The page about Kubernetes: its numbers match the code."""

from __future__ import annotations

import pytest

from airflow_provider_regal import defaults
from airflow_provider_regal.delivery.delivery import SHARE_HOLD_S
from airflow_provider_regal.delivery.sending import window
from airflow_provider_regal.delivery.sending.recorder import COMMIT_EVERY_S, FRESH_S
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import GRACE_S
from airflow_provider_regal.hooks import _ledger
from airflow_provider_regal.ledger.database import LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S
from scripts.check_docs import PROJECT

PAGE = " ".join((PROJECT / "docs" / "kubernetes.md").read_text().split())
PATIENCE_S = DeliverySettings.of(call="identify").outage_patience_s
POOL = _ledger.ENGINE


@pytest.mark.parametrize(
    "said",
    [
        f"waits {GRACE_S:.0f} seconds for requests under way",
        f"at most {window.MOST_ROWS:,} rows and {window.MOST_BYTES // 2**20} MiB of bodies",
        f"{POOL['pool_size']} for each running task, {POOL['pool_size'] + POOL['max_overflow']} at most",
        f"`timeout` ({defaults.TIMEOUT_S:.0f} seconds by default) and {FRESH_S + 1:.0f} seconds more",
        f"is free {SHARE_HOLD_S:g} seconds after its last commit",
        f"its last commit was {FRESH_S:.0f} seconds ago",
        f"`outage_patience` ({PATIENCE_S:.0f} seconds by default)",
        f"ends after {LOCK_TIMEOUT_S} seconds and each statement after {STATEMENT_TIMEOUT_S}",
    ],
)
def test_a_number_is_that_of_the_code(said):
    assert said in PAGE


def test_a_commit_is_made_every_second():
    assert COMMIT_EVERY_S == 1.0
    assert "which was at most a second ago" in PAGE
