"""The page about Celery: its numbers match the code and the measurements."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_regal import defaults
from airflow_provider_regal.delivery.delivery import SHARE_HOLD_S
from airflow_provider_regal.delivery.sending.recorder import FRESH_S
from airflow_provider_regal.hooks import _ledger
from scripts.check_docs import PROJECT

TEXT = (PROJECT / "docs" / "celery.md").read_text()
PAGE = " ".join(TEXT.split())
RESULTS = json.loads((PROJECT / "benchmarks" / "results" / "distributed.json").read_text())["rounds"]
HOURS = 10_000_000 / defaults.RATE_LIMIT / 3_600
POOL = _ledger.ENGINE
SCENARIOS = re.findall(r"^\| (?:[^|]*?) \(`(\w+)`\) \|(.*)\|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize(
    "said",
    [
        f"`timeout` ({defaults.TIMEOUT_S:.0f} seconds by default) and {FRESH_S + 1:.0f} seconds more",
        f"is free {SHARE_HOLD_S:g} seconds after its last commit",
        f"{2 * 16 * POOL['pool_size']} to {2 * 16 * (POOL['pool_size'] + POOL['max_overflow'])} for two workers",
        f"10 million rows at {defaults.RATE_LIMIT} requests a second takes {HOURS:.0f} hours",
    ],
)
def test_a_number_is_that_of_the_code(said):
    assert said in PAGE


def test_the_share_of_the_shards_is_the_one_that_was_measured():
    share = next(one["share"] for one in RESULTS if one["scenario"] == "eight_shards")
    assert f"The 8 shards used {100 * share:.0f} % of the rate" in PAGE


def test_every_scenario_that_was_measured_is_told():
    assert [name for name, _ in SCENARIOS] == [one["scenario"] for one in RESULTS]


@pytest.mark.parametrize("one", RESULTS, ids=lambda one: one["scenario"])
def test_what_is_told_was_measured(one):
    cells = [cell.strip() for cell in dict(SCENARIOS)[one["scenario"]].split("|")]
    told = [
        f"{one['rows']:,}",
        f"{one['seconds']:.0f}",
        f"{one.get('repeats', 0):,}",
        f"{one.get('unknown', 0):,}",
        f"{one['worst']} of {one['limit']}",
    ]
    assert cells == told
