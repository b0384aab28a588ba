"""The storms of ``make chaos``: a few pass, and deliberate faults are found."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from airflow_provider_regal.sandbox.faults import parse_rules
from tests.chaos.storm import ANSWERS, GUARANTEES, NETWORK, SENDER, SOURCES, draw, rules_of

PROJECT = Path(__file__).parents[2]
#: A way to break the package -> the seed of a storm that finds it, and what is said then.
FOUND_BY = {
    "resume": (18, "was sent again after an answer 200"),
    "reserve": (32, "was sent again after an answer 200"),
    "html": (166, "acknowledged and not at Regal"),
    "order": (113, "of the same person"),
    "log": (113, "leaked"),
}


def storms(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.chaos", "--ledgers", "sqlite", *options]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_a_seed_draws_the_same_storm_again():
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    assert draw(1) != draw(17)


def test_storms_that_follow_each_other_have_all_guarantees_sources_and_troubles():
    drawn = [draw(seed) for seed in range(200)]
    assert Counter((one.guarantee, one.source) for one in drawn).keys() == set(product(GUARANTEES, SOURCES))
    kinds = Counter(trouble.kind for one in drawn for trouble in one.troubles)
    assert kinds.keys() == {*NETWORK, *ANSWERS, *SENDER}
    assert min(kinds.values()) >= 5


def test_the_local_regal_understands_every_answer_of_a_script():
    for storm in map(draw, range(200)):
        parse_rules(rules_of(storm, [one for one in storm.troubles if one.kind in ANSWERS]))


@pytest.mark.long
def test_storms_break_no_promise():
    ran = storms("--seed", "32", "--runs", "4", "--jobs", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "make chaos SEED=32 RUNS=4" in ran.stdout


@pytest.mark.long  # the moment of a kill differs between runs, so what is broken is usually found, not always
@pytest.mark.parametrize("way", sorted(FOUND_BY))
def test_storms_find_what_is_broken(way):
    seed, said = FOUND_BY[way]
    ran = storms("--seed", str(seed), "--runs", "1", "--jobs", "1", "--break", way)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert said in ran.stdout
    assert f"make chaos SEED={seed} RUNS=1" in ran.stdout
