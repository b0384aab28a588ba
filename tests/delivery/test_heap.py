"""While a delivery runs, the garbage collector passes over what was there before; afterwards it does not."""

from __future__ import annotations

import gc

import pytest

from airflow_provider_regal.errors import CheckSourceError
from tests.delivery.test_run import people


@pytest.fixture(autouse=True)
def nothing_set_apart():
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_the_heap_is_set_apart_while_a_delivery_runs(deliver):
    seen = []

    def rows():
        seen.append(gc.get_freeze_count())
        yield from people(3)

    deliver(rows())
    assert seen[0] > 1_000
    assert gc.get_freeze_count() == 0


def test_it_is_given_back_after_a_failure(deliver):
    with pytest.raises(CheckSourceError):
        deliver(people(3), min_rows=4)
    assert gc.get_freeze_count() == 0


def test_what_others_had_set_apart_stays_so(deliver):
    gc.freeze()
    before = gc.get_freeze_count()
    deliver(people(3))
    assert gc.get_freeze_count() >= before
