"""The send window: what may be sent now, in order per person, in bounded memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.delivery.reading.prepared import Claimed, Ready
from airflow_provider_regal.delivery.sending import window as module
from airflow_provider_regal.delivery.sending.window import LEAST_AHEAD, SLICE, SendWindow
from airflow_provider_regal.events import Payload
from airflow_provider_regal.ledger.rules import TRACK, Claim
from tests.events.hostile import many


def row(position, *people, phase=0, size=10, claims=()):
    ready = Ready(position, Payload("track", {"x": "y" * size}, (), (), ()), "at_most_once", people, phase=phase)
    ready.claims = claims
    return ready


def window(*rows):
    return SendWindow(iter(rows))


def take_all(one):
    """Take in and hand out all whose turn it is."""
    while one.may_take_in:
        one.take_in()
    return one.take(10_000)


def positions(rows):
    return [ready.position for ready in rows]


def test_rows_of_different_people_go_at_once_in_order():
    one = window(*(row(n, f"u{n}") for n in range(50)))
    assert positions(take_all(one)) == list(range(50))
    assert (len(one), one.turn, one.has_rows) == (50, 0, False)


def test_a_row_waits_for_the_one_before_of_each_of_its_people():
    rows = [row(0, "a"), row(1, "b"), row(2, "a", "b"), row(3, "b")]
    one = window(*rows)
    assert positions(take_all(one)) == [0, 1]
    one.settle(rows[0])
    assert one.turn == 0
    one.settle(rows[1])
    assert positions(one.take(9)) == [2]
    one.settle(rows[2])
    assert positions(one.take(9)) == [3]
    one.settle(rows[3])
    assert len(one) == 0


def test_rows_of_a_later_phase_wait_until_all_earlier_ones_have_settled():
    rows = [row(0, "a"), row(1, "b"), row(2, "c", phase=1), row(3, "d", phase=1), row(4, "e", phase=2)]
    one = window(*rows)
    assert positions(take_all(one)) == [0, 1]
    one.settle(rows[0])
    assert (take_all(one), one.has_rows) == ([], True)
    one.settle(rows[1])
    assert not one.may_take_in, "the next phase is taken in by take_in itself"
    one.take_in()
    assert positions(take_all(one)) == [2, 3]


def test_it_looks_at_the_network_in_between():
    one = window(row(0, "a"), None, row(1, "b"), *(row(n, f"u{n}") for n in range(2, 200)))
    one.take_in()
    assert one.turn == 1
    one.take_in()
    assert one.turn == 1 + SLICE


def test_it_takes_in_no_more_than_twice_what_is_reserved_ahead():
    one = window(*(row(n, f"u{n}") for n in range(9_000)))
    while one.may_take_in:
        one.take_in()
    assert one.turn == 2 * LEAST_AHEAD


@pytest.mark.parametrize(("name", "most", "size"), [("MOST_ROWS", 100, 10), ("MOST_BYTES", 50_000, 500)])
def test_rows_that_wait_for_one_person_are_bounded(name, most, size, monkeypatch):
    monkeypatch.setattr(module, name, most)
    rows = [row(n, "same", size=size) for n in range(1_000)]
    one = window(*rows)
    took = take_all(one)
    assert positions(took) == [0]
    assert len(one) <= 101
    for _ in range(3):
        one.settle(took[0])
        took = take_all(one)
    assert positions(took) == [3]


def test_what_is_handed_back_is_the_next_and_a_repeat_when_it_is_due():
    rows = [row(n, f"u{n}") for n in range(4)]
    one = window(*rows)
    take_all(one)
    one.give_back(rows[2])
    one.repeat(rows[0], 10.0)
    one.repeat(rows[1], 5.0)
    assert one.until_repeat_s(4.0) == pytest.approx(1.0)
    assert positions(one.take(9)) == [2]
    assert one.until_repeat_s(5.0) == pytest.approx(5.0)
    assert positions(one.take(9)) == [1]
    assert one.until_repeat_s(12.0) == float("inf")
    assert positions(one.take(9)) == [0]


def test_what_was_touched_is_known_at_the_end():
    rows = [row(0, "a"), row(1, "b"), row(2, "c", claims=(Claimed(Claim(TRACK, "m")),)), row(3, "d")]
    one = window(*rows)
    take_all(one)
    rows[0].tries = rows[1].tries = 1
    one.repeat(rows[0], 99.0)
    for ready in reversed(rows[1:]):
        one.give_back(ready)
    assert sorted(positions(one.touched())) == [0, 1, 2], "3 was neither sent nor claimed"


class TestAhead:
    """How many rows to keep reserved: those of a quarter of a second, so that few become unknown by a crash."""

    def at_rate(self, per_s, seconds=3):
        one = window()
        for number in range(int(per_s * seconds)):
            one.started(100.0 + number / per_s)
        return one.ahead(probing=False)

    @pytest.mark.parametrize(("per_s", "rows"), [(1, LEAST_AHEAD), (100, LEAST_AHEAD), (400, 100), (2_000, 500)])
    def test_it_follows_the_rate(self, per_s, rows):
        assert self.at_rate(per_s) == pytest.approx(rows, rel=0.02)

    def test_an_outage_is_probed_with_one_row(self):
        assert window().ahead(probing=True) == 1

    def test_at_the_start_it_is_the_least(self):
        assert window().ahead(probing=False) == LEAST_AHEAD

    def test_a_pause_lowers_it(self):
        one = window()
        for number in range(4_000):
            one.started(number / 2_000)
        assert one.ahead(probing=False) > 400
        for number in range(3):
            one.started(10.0 + number * 5)
        assert one.ahead(probing=False) == LEAST_AHEAD


people = st.lists(st.sampled_from("abc"), max_size=2, unique=True)


@many
@given(
    rows=st.lists(st.tuples(people, st.integers(0, 2)), max_size=25).map(
        lambda told: sorted(told, key=lambda one: one[1])
    ),
    choices=st.randoms(use_true_random=False),
)
@pytest.mark.slow
def test_whatever_happens_all_go_once_and_in_the_order_of_each_person(rows, choices):
    made = [row(n, *who, phase=phase) for n, (who, phase) in enumerate(rows)]
    one, sent, now, out = window(*made), [], 0.0, []
    for _ in range(2_000):
        if not (one.has_rows or len(one)):
            break
        one.take_in()
        one.until_repeat_s(now)
        out += one.take(choices.randint(1, 3))
        if not out:
            now += 1
            continue
        ready = out.pop(choices.randrange(len(out)))
        what = choices.random()
        if what < 0.2:
            one.give_back(ready)
        elif what < 0.4:
            one.repeat(ready, now + choices.randint(0, 3))
        else:
            sent.append(ready)
            one.settle(ready)
    assert sorted(positions(sent)) == list(range(len(made)))
    for person in "abc":
        theirs = [ready.position for ready in sent if person in ready.identifiers]
        assert theirs == sorted(theirs)
    assert all(earlier.phase <= later.phase for earlier, later in itertools.pairwise(sent))
