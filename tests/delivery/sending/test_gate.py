"""Concurrency and outages."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_regal.delivery.sending.gate import FAILURES_OF_AN_OUTAGE, Gate

RATE = 100


def gate(connections=256, patience=300.0):
    return Gate(max_connections=connections, patience_s=patience)


def answers(a_gate, times, latency, start=0.0, first=0):
    now = start
    for position in range(first, first + times):
        a_gate.start(position, now)
        now += latency
        a_gate.succeed(position, now)
    return now


def failures(a_gate, times, now=0.0, *, answered=True, first=0):
    for position in range(first, first + times):
        a_gate.start(position, now)
        a_gate.fail(position, now, answered=answered)


def probe(a_gate, now, position=1_000):
    """Wait for the next probe and let it fail; gives when it went."""
    while wait := a_gate.wait_s(now, RATE):
        now += wait
    a_gate.start(position, now)
    assert a_gate.wait_s(now, RATE) > 0, "one at a time"
    a_gate.fail(position, now, answered=False)
    return now


@pytest.mark.parametrize(
    ("latency", "rate", "least", "most"), [(0.05, 100, 5, 12), (1.0, 100, 100, 150), (2, 10, 20, 32)]
)
def test_concurrency_follows_rate_times_latency(latency, rate, least, most):
    one = gate()
    answers(one, 200, latency)
    assert least <= one.limit(rate) <= most


def test_where_the_latency_jumps_there_are_enough_for_the_slow_times_and_not_for_ever():
    one, now = gate(), 0.0
    for latency in (0.02, 0.3, 0.02):
        now = answers(one, int(1 / latency), latency, now)
    assert one.limit(RATE) >= RATE * 0.3
    answers(one, 500, 0.02, now)
    assert one.limit(RATE) < RATE * 0.1


def test_one_slow_answer_among_many_does_not_open_the_gate():
    one = gate()
    for position in range(100):
        one.start(position, 0.002 * position)
    one.start(100, -10.0)
    for position in range(100):
        one.succeed(position, 0.002 * position + 0.05)
    one.succeed(100, 0.25)
    assert one.limit(RATE) < RATE * 0.25


def test_concurrency_is_capped_and_never_nothing():
    one = gate(connections=8)
    answers(one, 100, 30.0)
    assert one.limit(10_000) == 8
    assert gate(connections=1).limit(1) == 1


def test_no_more_start_than_the_limit():
    one = gate(connections=3)
    for position in range(3):
        assert one.wait_s(0.0, RATE) == 0.0
        one.start(position, 0.0)
    assert one.wait_s(0.0, RATE) > 0
    one.succeed(0, 0.1)
    assert one.wait_s(0.1, RATE) == 0.0


@pytest.mark.parametrize("answered", [True, False])
def test_ten_failures_in_a_row_are_an_outage_and_nine_are_not(answered):
    one = gate()
    failures(one, FAILURES_OF_AN_OUTAGE - 1, answered=answered)
    assert not one.probing
    one.start(99, 0.0)
    one.fail(99, 0.0, answered=answered)
    assert one.probing
    assert one.outages == 1
    assert one.wait_s(0.0, RATE) > 0


def test_an_answer_in_between_starts_the_count_anew():
    one = gate()
    for number in range(20):
        failures(one, 9, first=number * 100)
        answers(one, 1, 0.01, first=number * 100 + 50)
    assert not one.probing


def test_silence_is_an_outage_after_two_seconds():
    one = gate()
    answers(one, 10, 0.05, start=0.0)
    one.start(50, 10.0)
    one.start(51, 10.5)
    assert one.wait_s(11.9, RATE) == 0.0
    one.wait_s(12.1, RATE)
    assert one.probing


def test_silence_is_measured_by_how_slow_regal_is_even_after_thousands_of_answers():
    one = gate()
    now = answers(one, 1_000, 0.05)
    now = answers(one, 300, 3.0, start=now, first=2_000)
    one.start(9_000, now)
    one.wait_s(now + 14.0, RATE)
    assert not one.probing, "five times the slowest answers of late is 15 s"
    one.wait_s(now + 15.1, RATE)
    assert one.probing


def test_nothing_under_way_is_no_silence():
    one = gate()
    answers(one, 5, 0.05)
    assert one.wait_s(1e6, RATE) == 0.0
    assert not one.probing


def test_a_failure_that_was_an_answer_breaks_the_silence_and_a_lost_one_does_not():
    for answered in (True, False):
        one = gate()
        one.start(1, 0.0)
        one.start(2, 0.0)
        one.fail(2, 1.5, answered=answered)
        one.wait_s(3.0, RATE)
        assert one.probing is not answered


def test_probes_go_one_at_a_time_with_a_growing_back_off():
    one = gate()
    failures(one, 10)
    times = [0.0]
    for number in range(10):
        times.append(probe(one, times[-1], 1_000 + number))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30], abs=0.06)


def test_what_was_under_way_when_the_outage_began_does_not_lengthen_the_back_off():
    one = gate()
    for position in range(60):
        one.start(position, 0.0)
    for position in range(60):
        one.fail(position, 1.0, answered=False)
    assert one.wait_s(1.0, RATE) == pytest.approx(0.5)
    assert one.outages == 1


def test_nothing_probes_while_something_is_still_under_way():
    one = gate()
    one.start(500, 0.0)
    failures(one, 10)
    assert one.wait_s(20.0, RATE) > 0


def test_one_answer_ends_an_outage_and_the_next_begins_with_a_short_back_off():
    one = gate()
    failures(one, 10)
    now = probe(one, 0.0)
    now = probe(one, now)
    while wait := one.wait_s(now, RATE):
        now += wait
    answers(one, 1, 0.05, start=now, first=5_000)
    assert not one.probing
    assert one.patience_left_s(now) == float("inf")
    assert one.wait_s(now + 0.05, RATE) == 0.0
    failures(one, 10, now=now + 1)
    assert one.wait_s(now + 1, RATE) == pytest.approx(0.5)
    assert one.outages == 2


def test_patience_runs_from_the_first_failure():
    one = gate(patience=60.0)
    assert one.patience_left_s(1e9) == float("inf")
    for number in range(10):
        failures(one, 1, now=100.0 + number, first=number)
    assert one.patience_left_s(120.0) == pytest.approx(40.0)
    probe(one, 150.0)
    assert one.patience_left_s(160.0) == pytest.approx(0.0)


class TestConfirmedOutages:
    """Silence stops new sends at once, but only what fails together, or a probe that fails, is counted as an outage."""

    def silent(self):
        one = gate()
        answers(one, 10, 0.05)
        for position in (50, 51):
            one.start(position, 1.0)
        one.wait_s(3.5, RATE)
        return one

    def test_silence_alone_is_probed_and_is_no_outage_yet(self):
        one = self.silent()
        assert one.probing
        assert (one.in_outage, one.outages) == (False, 0)

    def test_silence_that_ends_with_answers_was_none(self):
        one = self.silent()
        one.succeed(50, 4.0)
        one.succeed(51, 4.0)
        assert (one.probing, one.in_outage, one.outages) == (False, False, 0)

    def test_silence_ended_by_a_successful_probe_was_none(self):
        one = self.silent()
        for position in (50, 51):
            one.fail(position, 5.0, answered=False)
        assert (one.in_outage, one.outages) == (False, 0), "what was under way before may have been a few slow answers"
        while wait := one.wait_s(5.0, RATE):
            assert wait < 1
            break
        one.start(60, 6.0)
        one.succeed(60, 6.1)
        assert (one.probing, one.in_outage, one.outages) == (False, False, 0)

    def test_a_probe_that_fails_confirms_it_once(self):
        one = self.silent()
        for position in (50, 51):
            one.fail(position, 5.0, answered=False)
        now = probe(one, 5.0, 60)
        assert (one.in_outage, one.outages) == (True, 1)
        probe(one, now, 61)
        assert one.outages == 1

    @pytest.mark.parametrize("answered", [True, False])
    def test_ten_failures_in_a_row_are_one_at_once(self, answered):
        one = gate()
        failures(one, FAILURES_OF_AN_OUTAGE, answered=answered)
        assert (one.in_outage, one.outages) == (True, 1)

    def test_each_outage_is_confirmed_anew(self):
        one = gate()
        failures(one, FAILURES_OF_AN_OUTAGE)
        one.start(99, 10.0)
        one.succeed(99, 10.1)
        one.start(100, 20.0)
        one.wait_s(23.0, RATE)
        assert (one.probing, one.in_outage, one.outages) == (True, False, 1)
