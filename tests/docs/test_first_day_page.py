"""The first day's callback can read the report when the task fails."""

from __future__ import annotations

import logging
from importlib.metadata import requires

import pytest

from airflow_provider_regal._compat import AirflowFailException
from tests.docs.blocks import blocks_of
from tests.operators.ways import context


def test_the_failure_callback_says_how_many_rows_were_rejected_and_why(regal, caplog):
    namespace: dict = {}
    exec(next(block.code for block in blocks_of("docs/first-day.md") if "def alert" in block.code), namespace)
    operator = namespace["lessons"]
    faults = {"phone": "12", "email": "anne", "timestamp": "soon", "sms_opt_in": "maybe", "voice_opt_in": "maybe"}
    bad = [{"user_id": None}, *({"user_id": "ines", field: value} for field, value in faults.items())]
    operator.rows = [{"user_id": "anne-smith"}, *bad]
    here = context()
    here["ti"].xcom_pull = lambda *, task_ids, key, map_indexes: here["ti"].report
    with pytest.raises(AirflowFailException):
        operator.execute(here)
    with caplog.at_level(logging.ERROR, "alerts"):
        operator.on_failure_callback[0](here) if isinstance(operator.on_failure_callback, (list, tuple)) else (
            operator.on_failure_callback(here)
        )
    (said,) = (one.getMessage() for one in caplog.records if one.name == "alerts")
    assert said.startswith("t: delivery 1: 6 of 7 rows were rejected. Top reasons: ")
    assert len(here["ti"].report["reasons"]) == 5, "the page says five"


def test_what_the_suite_needs_is_installed_on_the_page_and_not_by_the_package():
    """pytest is named before the suite; the package does not bring it."""
    blocks = [block.code for block in blocks_of("docs/first-day.md")]
    suite = next(number for number, code in enumerate(blocks) if "import pytest" in code)
    assert blocks[suite - 1] == "pip install pytest\n"
    assert not any(requirement.startswith("pytest") for requirement in requires("airflow-provider-regal") or ())
