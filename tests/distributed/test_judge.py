"""The judge of the distributed tests sees each kind of broken promise; needs nothing running."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.distributed.judge import Case, judge, judge_limit
from tests.distributed.record import Arrival, Broken, Delivered, Journal
from tests.distributed.source import SourceRow

ROWS = [SourceRow(10 + number, f"p{number // 2}") for number in range(6)]


def arrivals(*row_ids, stored=True):
    return [Arrival(number, 0.0, 200, "p", row_id, stored) for number, row_id in enumerate(row_ids, 1)]


def case_of(task_id="events", *, unknown=(), sent=(10, 11, 12, 13, 14, 15), broken=None, **changes):
    outcomes = {at: "unknown" if at in unknown else "acknowledged" for at in range(1, 7)}
    one = Delivered(1, task_id, 0, "finished", 1, None, 6, 6 - len(unknown), 0, len(unknown), 0)
    return Case("case", replace(one, **changes), outcomes, ROWS, Journal(arrivals(*sent)), broken)


BROKEN = Broken(frozenset({1, 2}), reserved=1, until=3)


@pytest.mark.parametrize(
    "case",
    [
        case_of(),
        case_of("contacts"),
        case_of("contacts", sent=(10, 11, 12, 12, 13, 14, 15), broken=BROKEN),
        case_of(unknown=(3,), sent=(10, 11, 12, 13, 14, 15), broken=BROKEN),
        case_of(unknown=(4,), sent=(10, 11, 12, 14, 15), broken=BROKEN),
        case_of(sent=(10, 12, 14, 11, 13, 15)),
    ],
    ids=["events", "contacts", "repeated", "unknown arrived", "unknown did not", "people take turns"],
)
def test_a_promise_that_was_kept(case):
    judge(case)


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        (case_of(state="stopped"), "stopped"),
        (case_of(acknowledged=5), "acknowledged=5"),
        (case_of(read=7, acknowledged=7), "read=7"),
        (replace(case_of(), outcomes=dict.fromkeys((1, 2, 3, 4, 5, 7), "acknowledged")), "without an outcome"),
        (case_of(sent=(10, 11, 12, 13, 14)), "1 acknowledged rows did not arrive"),
        (case_of(sent=(10, 11, 12, 13, 14, 15, 15)), "came again"),
        (case_of(unknown=(3,)), "1 unknown"),
        (case_of(unknown=(3, 4), broken=BROKEN), "2 unknown"),
        (case_of(unknown=(4,), sent=(10, 11, 12, 13, 14, 15), broken=BROKEN), "settled them as unknown"),
        (case_of("contacts", unknown=(3,), broken=BROKEN), "1 unknown"),
        (case_of("contacts", sent=(10, 11, 12, 13, 14, 15, 15)), "came again"),
        (case_of("contacts", sent=(10, 11, 12, 11, 13, 14, 15), broken=BROKEN), "a commit acknowledged"),
        (case_of("contacts", sent=(10, 11, 12, 13, 13, 14, 15), broken=BROKEN), "0 may"),
        (case_of(sent=(11, 10, 12, 13, 14, 15)), "row 11 came before"),
    ],
)
def test_a_promise_that_was_broken(case, complaint):
    with pytest.raises(AssertionError, match=complaint):
        judge(case)


def test_the_limit_is_exact_unless_the_server_stood_still():
    judge_limit(100, 100, 0.0)
    judge_limit(105, 100, 0.05)
    with pytest.raises(AssertionError, match="101 requests"):
        judge_limit(101, 100, 0.0)
    with pytest.raises(AssertionError, match="106 requests"):
        judge_limit(106, 100, 0.05)
