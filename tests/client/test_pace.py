"""The rate limit is respected and used."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_regal.client.pace import MARGIN, Pacer

# Neither floats nor clocks distinguish times closer than this.
TOLERANCE_S = 1e-6


def most_in_any_second(sent: list[float], second: float = 1.0) -> int:
    most = first = 0
    for last, time in enumerate(sent):
        while time - sent[first] >= second - TOLERANCE_S:
            first += 1
        most = max(most, last - first + 1)
    return most


def saturated(limit: int, seconds: float, *, late_s: float = 0.0, start: float = 0.0) -> list[float]:
    """Send as fast as the pacer lets a sender whose timer rings this much late."""
    pacer, now, sent = Pacer(limit), start, []
    while now < start + seconds:
        wait_s = pacer.take(now) or pacer.go(now)
        if wait_s:
            now += wait_s + late_s
        else:
            sent.append(now)
    return sent


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 40),
    start=st.sampled_from([0.0, 1.0, 12_345.678, 4e6]),
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "wait", "wait late", "idle", "pause"]), st.floats(0, 3)),
        min_size=1,
        max_size=400,
    ),
)
def test_no_second_ever_holds_more_than_the_limit(limit, start, steps):
    pacer, now, sent, paused_until = Pacer(limit), start, [], float("-inf")
    for step, seconds in steps:
        if step == "idle":
            now += seconds
        elif step == "pause":
            pacer.pause(now + seconds)
            paused_until = max(paused_until, now + seconds)
        else:
            wait_s = pacer.take(now) or pacer.go(now)
            late_s = seconds / 10 if step == "wait late" else 0.0
            for _ in range(2):  # twice, because a sum of floats may be slightly too small
                if wait_s and step != "ask":
                    now += wait_s + late_s
                    wait_s = pacer.take(now) or pacer.go(now)
            assert not wait_s or step == "ask", "whoever waits for as long as told may go"
            if not wait_s:
                assert now >= paused_until
                sent.append(now)
    assert most_in_any_second(sent) <= limit
    assert sent == sorted(sent)


@settings(max_examples=200, deadline=None)
@given(limit=st.integers(1, 60), opening_s=st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_no_second_ever_holds_more_than_the_limit_whatever_connections_take_to_open(limit, opening_s):
    pacer, now, sent, waiting = Pacer(limit), 0.0, [], []
    opening = itertools.cycle(opening_s)
    while now < 6:
        if not (wait_s := pacer.take(now)):
            waiting.append(now + next(opening))
            continue
        for at in [at for at in waiting if at <= now]:
            waiting.remove(at)
            if again_s := pacer.go(now):
                waiting.append(now + again_s)
            else:
                sent.append(now)
        now = min([now + wait_s, *waiting])
    assert most_in_any_second(sent) <= limit
    assert sent


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 300, 3_000])
@pytest.mark.parametrize("start", [0.0, 987_654.321])
def test_a_saturated_sender_gets_95_percent_of_the_limit_and_never_more(limit, start):
    seconds = 5 if limit > 1_000 else 60
    sent = saturated(limit, seconds, start=start)
    assert 0.95 * limit * seconds <= len(sent) <= limit * seconds
    assert most_in_any_second(sent) <= limit


@pytest.mark.parametrize(("limit", "late_s"), [(100, 0.001), (300, 0.0005), (300, 0.003), (1_000, 0.002)])
def test_timers_that_ring_late_do_not_lower_the_rate(limit, late_s):
    sent = saturated(limit, 20, late_s=late_s)
    assert len(sent) >= 0.95 * limit * 20
    assert most_in_any_second(sent) <= limit


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_late_timers_do_not_squeeze_one_send_too_many_into_a_second(limit):
    for share in (0.1, 0.5, 0.9, 0.99):
        assert most_in_any_second(saturated(limit, 60, late_s=share / limit)) <= limit


@pytest.mark.parametrize("limit", [100, 300, 1_000])
def test_what_a_sender_misses_while_it_stands_still_for_a_moment_is_made_up_for(limit):
    pacer, now, sent = Pacer(limit), 0.0, []
    while now < 20:
        if wait_s := pacer.take(now) or pacer.go(now):
            now += wait_s
            continue
        sent.append(now)
        if len(sent) % (limit // 10) == 0:
            now += 0.015  # it prepares rows ten times a second
    assert len(sent) >= 0.95 * limit * 20
    assert most_in_any_second(sent) <= limit


@pytest.mark.parametrize("limit", [10, 300, 1_000])
def test_what_the_network_moves_by_some_milliseconds_still_keeps_the_limit(limit):
    sent = saturated(limit, 20, late_s=0.019)
    assert most_in_any_second(sent, 1.03) <= limit


def test_idle_time_gives_no_credit():
    pacer = Pacer(10)
    assert pacer.take(0.0) == 0.0
    assert pacer.take(0.01) > 0  # a waiter that is canceled
    for idle in (1.0, 60.0, 3_600.0):
        assert pacer.take(idle) == 0.0
        assert pacer.take(idle) == pytest.approx(1 / (10 * MARGIN))


def test_slots_are_evenly_spaced():
    sent = saturated(50, 10)
    gaps = {round(later - earlier, 6) for earlier, later in itertools.pairwise(sent)}
    assert gaps == {round(1 / (50 * MARGIN), 6)}


def test_a_pause_holds_everybody_back_and_a_shorter_one_does_not_end_it():
    pacer = Pacer(100)
    assert pacer.take(10.0) == 0.0
    pacer.pause(15.0)
    pacer.pause(12.0)
    assert [pacer.take(now) for now in (10.5, 12.5)] == pytest.approx([4.5, 2.5])
    assert pacer.pause_left(12.5) == 2.5
    assert pacer.take(15.0) == 0.0
    assert pacer.take(15.0) == pytest.approx(1 / (100 * MARGIN)), "they do not all go at once when it ends"
    assert pacer.pause_left(15.0) == 0.0


def test_a_wait_for_the_rate_is_no_pause():
    pacer = Pacer(1)
    pacer.take(0.0)
    assert pacer.take(0.1) > 0
    assert pacer.pause_left(0.1) == 0.0


def test_threads_share_one_rate():
    pacer, sent, lock, now = Pacer(200), [], threading.Lock(), [0.0]

    def send() -> None:
        for _ in range(100):
            while True:
                with lock:
                    wait_s = pacer.take(now[0])
                    if not wait_s:
                        sent.append(now[0])
                        break
                    now[0] += wait_s

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(sent) == 800
    assert most_in_any_second(sent) <= 200


def test_threads_that_ask_at_the_same_moment_get_one_slot():
    pacer, ready, granted = Pacer(1_000), threading.Barrier(16), []

    def ask() -> None:
        ready.wait()
        if pacer.take(5.0) == 0.0:
            granted.append(True)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(granted) == 1


def gap(pacer: Pacer, now: float) -> float:
    """The gap it keeps after a request that goes now."""
    assert pacer.take(now) == 0.0
    return pacer.take(now)


def test_slowing_down_halves_the_rate_at_most_once_a_second():
    pacer, usual = Pacer(10), 1 / (10 * MARGIN)
    assert gap(pacer, 0.0) == pytest.approx(usual)
    for _ in range(50):  # answers to requests that were in flight together
        pacer.slow_down(10.0)
        pacer.slow_down(10.9)
    assert gap(pacer, 10.0) == pytest.approx(usual / 0.5)
    pacer.slow_down(11.0)
    assert gap(pacer, 11.0) == pytest.approx(usual / 0.3), "half of the 0.6 it had recovered to"


def test_it_recovers_by_a_tenth_of_the_limit_a_second_and_never_beyond_it():
    pacer, usual = Pacer(10), 1 / (10 * MARGIN)
    pacer.slow_down(0.0)
    gaps = [gap(pacer, float(second)) for second in range(10)]
    assert gaps == pytest.approx([usual / min(1.0, 0.5 + second / 10) for second in range(10)])


def test_however_often_it_is_slowed_down_something_still_goes():
    pacer = Pacer(100)
    for second in range(100):
        pacer.slow_down(float(second))
    assert gap(pacer, 99.0) == pytest.approx(1 / (100 * MARGIN * 0.1))


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 40), cuts=st.lists(st.floats(0, 20), max_size=20))
def test_a_sender_that_is_slowed_down_never_sends_more_than_the_limit(limit, cuts):
    pacer, now, sent, left = Pacer(limit), 0.0, [], sorted(cuts)
    while now < 25:
        while left and left[0] <= now:
            pacer.slow_down(left.pop(0))
        wait_s = pacer.take(now)
        if wait_s:
            now += wait_s
        else:
            sent.append(now)
    assert most_in_any_second(sent) <= limit


def test_a_lower_limit_holds_at_once_counts_what_has_gone_and_is_never_raised():
    pacer, now, sent = Pacer(100), 0.0, []
    while len(sent) < 30:
        wait_s = pacer.take(now) or pacer.go(now)
        now += wait_s
        sent += [] if wait_s else [now]

    assert pacer.lower(10, now) == 30, "what has gone in this second can't be taken back"
    end = now + 5
    while now < end:
        wait_s = pacer.take(now) or pacer.go(now)
        now += wait_s
        sent += [] if wait_s else [now]
    assert most_in_any_second(sent[30:]) <= 10
    assert pacer.lower(200, now + 1) == 10
