"""Random histories break no rule of the model, and end in the state that it predicts.

Search for more with ``REGAL_HISTORIES=2000-2500 pytest -m long tests/consent_model``; repeat one history with
``REGAL_HISTORIES=2017``.
"""

from __future__ import annotations

import os
from collections import Counter
from uuid import uuid4

import pytest

from tests.consent_model.generator import history
from tests.consent_model.world import World

FIRST, _, LAST = os.environ.get("REGAL_HISTORIES", "1000-1500").partition("-")
SEEDS = range(int(FIRST), int(LAST or int(FIRST) + 1))
#: Histories a test: a ledger in a server is made once for them.
SOME = 10


def happens(seed, database, monkeypatch, elsewhere, **options):
    """Let the history of a seed happen, in an account of its own."""
    account = f"acme-{uuid4().hex[:8]}"
    world = World(history(seed, **options), database, monkeypatch, account=account, elsewhere=elsewhere)
    if broken := world.happens():
        pytest.fail("\n".join([str(world.history), "", *world.trace, "", *broken]), pytrace=False)


#: What only some histories draw -> in how many of 500 it has to be.
DRAWS = {
    "max_change_ratio=0.0": 100, "max_change_ratio=0.5": 100, "max_change_ratio=1.0": 5, "on_removed=opt_out": 100,
    "initial=baseline": 100, "initial=None": 50, "initial=send": 400, "known_to_regal=True": 100, "ledger_key": 50,
    "suppress": 100, "release": 50, "suppress_named_events": 100, "forget": 50, "lose_owed": 25,
    "wrong ledger": 25, "wrong key": 25, "wrong account": 25, "a time that a clock shows twice": 100,
    "crash: frozen": 25, "crash: backends": 50, "crash: killed": 100, "crash: killed reading": 25,
    "crash: ledger": 50, "crash: answer": 100, "crash: lost": 100, "crash: down": 100, "crash: silent": 10,
    "contacts": 400, "segment": 100, "named": 100, "sync": 400, "one": 100, "redeliver": 50, "retry": 100, "clear": 50,
}  # fmt: skip


def test_every_draw_is_in_enough_of_five_hundred_histories():
    drawn = Counter(draw for seed in range(1000, 1500) for draw in history(seed).draws())
    assert {draw: drawn[draw] for draw, least in DRAWS.items() if drawn[draw] < least} == {}


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 25))])
def test_a_short_history_breaks_no_rule(seed, database_url, monkeypatch, tmp_path):
    happens(seed, database_url, monkeypatch, tmp_path, steps=6, kills=False)


@pytest.mark.long
@pytest.mark.parametrize("first", SEEDS[: len(SEEDS) // 2 or 1 : SOME])
def test_a_history_with_kills_breaks_no_rule(first, database_url, monkeypatch, tmp_path):
    for seed in range(first, min(first + SOME, SEEDS.stop)):
        happens(seed, database_url, monkeypatch, tmp_path)


@pytest.mark.long
@pytest.mark.services
@pytest.mark.parametrize("first", SEEDS[len(SEEDS) // 2 :: SOME])
def test_a_history_with_kills_breaks_no_rule_on_postgresql(first, postgres_url, monkeypatch, tmp_path):
    for seed in range(first, min(first + SOME, SEEDS.stop)):
        happens(seed, postgres_url, monkeypatch, tmp_path)
