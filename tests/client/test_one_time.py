"""How long one event may take, and how senders share a rate and a pause."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.errors import (
    CheckRegalError,
    RefusedEventError,
    RegalError,
    RetryLaterError,
)
from airflow_provider_regal.testing import Sandbox
from tests.client.fake_clock import FakeClock
from tests.client.raw_server import RawServer, http, self_signed
from tests.client.sending import TRACK, once, sender

# Deadlines


def never_answers(talk):
    talk.read()
    talk.wait_until_the_client_goes()


def drips_headers(talk):
    talk.read()
    talk.say(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    talk.drip(b"x")


def drips_the_status_line(talk):
    talk.read()
    talk.drip(b"H")


def promises_to_go_on(talk):
    talk.read()
    talk.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("script", [never_answers, drips_headers, drips_the_status_line, promises_to_go_on])
def test_no_server_holds_us_for_longer_than_the_timeout(script):
    with RawServer(script) as server:
        started = time.monotonic()
        error = once(server.origin, timeout=0.3)
        assert time.monotonic() - started < 2
    assert isinstance(error, CheckRegalError)
    assert "no answer within the timeout" in str(error)
    assert isinstance(error.__cause__, TimeoutError)


def test_a_server_that_drips_its_tls_answer_is_left_in_time(tmp_path):
    context, certificate = self_signed(tmp_path)
    with RawServer(drips_headers, tls=context) as server:
        one = sender(f"https://localhost:{server.port}", timeout=0.5, patience_s=0)
        one.session.verify = str(certificate)
        started = time.monotonic()
        with pytest.raises(CheckRegalError):
            one.send(TRACK, "at_most_once")
        assert time.monotonic() - started < 3


LONG = b"HTTP/1.1 %s\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIPPED = (
    b"HTTP/1.1 %s\r\nContent-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03"
)


@pytest.mark.parametrize(
    ("status", "kind"), [(b"200 OK", None), (b"400 Bad", RefusedEventError), (b"302 F", RegalError)]
)
@pytest.mark.parametrize("head", [LONG, CHUNKED, GZIPPED], ids=["plain", "a chunk's length", "a gzip header"])
def test_a_body_that_drips_for_ever_changes_nothing_and_is_left_in_time(head, status, kind):
    def script(talk):
        talk.read()
        talk.say(head % status)
        talk.drip(b"1")

    with RawServer(script) as server:
        started = time.monotonic()
        if kind is None:
            assert sender(server.origin, timeout=0.3).send(TRACK, "at_most_once").http_status == 200
        else:
            assert isinstance(once(server.origin, timeout=0.3), kind)
        assert time.monotonic() - started < 2


def test_the_body_of_a_redirect_is_not_waited_for():
    def script(talk):
        talk.read()
        talk.say(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 1000000\r\n\r\n")
        talk.drip(b"1")

    with RawServer(script) as server:
        error = once(server.origin, timeout=0.3)
    assert (type(error), error.status) == (CheckRegalError, 302)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
    ids=["headers cut off", "cut off", "bad chunk", "bad gzip"],
)
def test_a_broken_body_does_not_undo_an_acknowledgement(answer):
    def script(talk):
        talk.read()
        talk.say(answer)

    with RawServer(script) as server:
        one = sender(server.origin)
        assert one.send(TRACK, "at_most_once").http_status == 200
        assert one.send(TRACK, "at_most_once").http_status == 200


def test_a_large_answer_is_not_read_to_its_end():
    taken = []

    def script(talk):
        talk.read()
        taken.append(talk.say(http("400 Bad", b"x" * 50_000_000)))

    with RawServer(script) as server:
        started = time.monotonic()
        assert len(str(once(server.origin, timeout=30))) < 600
        assert time.monotonic() - started < 5
        server.wait_for_scripts()
    assert taken == [False], "we hung up before it was all said"


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_repeating_ends_with_patience(guarantee, jitter):
    clock = FakeClock(jitter=jitter)
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": 429, "retry_after": 1}}]) as regal:
        with pytest.raises(RetryLaterError) as raised:
            sender(regal.url, clock=clock, patience_s=10).send(TRACK, guarantee)
        assert regal.stats()["requests"] == raised.value.tries > 1
    assert clock.passed <= 10
    assert raised.value.retry_after_s == 1
    assert "was not applied" in str(raised.value)


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_beyond_patience_ends_at_once(status):
    clock = FakeClock()
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": status, "retry_after": 61}}]) as regal:
        with pytest.raises(RetryLaterError) as raised:
            sender(regal.url, clock=clock, patience_s=60).send(TRACK, "at_least_once")
        assert regal.stats()["requests"] == 1
    assert clock.slept == []
    assert (raised.value.status, raised.value.tries, raised.value.retry_after_s) == (status, 1, 61)


def test_patience_of_nothing_sends_once():
    clock = FakeClock(jitter=0.0)
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": 429}}]) as regal:
        once(regal.url, clock=clock)
        assert regal.stats()["requests"] == 1


def test_an_outage_that_ends_within_patience_is_bridged():
    with Sandbox() as regal:
        regal.stop()
        clock = FakeClock(jitter=1.0)
        sleep = clock.sleep

        def sleep_and_return(seconds):
            sleep(seconds)
            if clock.passed > 5:
                regal.start()

        clock.sleep = sleep_and_return
        receipt = sender(regal.url, clock=clock).send(TRACK, "at_most_once")
        assert receipt.tries == 4
        assert [event["stored"] for event in regal.events()] == [True]


# Concurrency


def test_a_429_holds_back_every_sender_of_the_pacer_even_if_ours_gives_up():
    clock, pacer = FakeClock(), Pacer(100)
    with Sandbox(faults=[{"on": {"requests": [1]}, "do": {"status": 429, "retry_after": 30}}]) as regal:
        with pytest.raises(RetryLaterError):
            sender(regal.url, clock=clock, pacer=pacer, patience_s=5).send(TRACK, "at_most_once")
        with pytest.raises(RetryLaterError) as raised:
            sender(regal.url, clock=clock, pacer=pacer, patience_s=5).send(TRACK, "at_most_once")
        assert regal.stats()["requests"] == 1
        assert raised.value.tries == 0
        assert raised.value.retry_after_s == pytest.approx(30)
        assert "was not sent" in str(raised.value)
        sender(regal.url, clock=clock, pacer=pacer, patience_s=60).send(TRACK, "at_most_once")
    assert clock.passed >= 30


def test_a_pause_that_comes_while_waiting_to_repeat_does_not_outlast_patience():
    clock, pacer = FakeClock(), Pacer(100)
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": 500}}]) as regal:
        sleep = clock.sleep

        def sleep_while_another_is_told_to_wait(seconds):
            sleep(seconds)
            pacer.pause(clock.time + 100)

        clock.sleep = sleep_while_another_is_told_to_wait
        with pytest.raises(CheckRegalError) as raised:
            sender(regal.url, clock=clock, pacer=pacer, patience_s=20).send(TRACK, "at_least_once")
        assert raised.value.tries == regal.stats()["requests"] == 1
    assert clock.passed < 20


def test_waiting_for_the_rate_is_not_bounded_by_patience():
    clock, pacer = FakeClock(), Pacer(1)
    with Sandbox() as regal:
        one = sender(regal.url, clock=clock, pacer=pacer, patience_s=0)
        for _ in range(5):
            assert one.send(TRACK, "at_most_once").tries == 1
    assert clock.passed >= 4


class BusyRate(Pacer):
    """A rate of which others leave only a few slots, until they have finished."""

    def __init__(self, *, until, free=0):
        super().__init__(10)
        self._until, self._free = until, free

    def take(self, now):
        if now < self._until and not self._free:
            return 0.25
        self._free = max(self._free - 1, 0)
        return super().take(now)


@pytest.mark.parametrize("patience_s", [0, 30])
def test_waiting_for_the_rate_has_an_end_of_its_own(patience_s):
    clock = FakeClock()
    busy = BusyRate(until=clock.time + 100)
    with Sandbox() as regal:
        one = sender(regal.url, clock=clock, pacer=busy, patience_s=patience_s, slot_patience_s=60)
        with pytest.raises(RetryLaterError) as raised:
            one.send(TRACK, "at_most_once")
        assert regal.stats()["requests"] == 0
        assert clock.passed == 60
        assert (raised.value.tries, raised.value.retry_after_s) == (0, None)
        assert str(raised.value) == (
            "Other senders used the account's rate limit for 60 s, so this track event was not sent: "
            "run the task again."
        )
        assert one.send(TRACK, "at_most_once").tries == 1
    assert clock.passed >= 100


def test_a_repeat_waits_for_the_rate_no_longer_than_that():
    clock = FakeClock(jitter=0.0)
    busy = BusyRate(until=clock.time + 100, free=1)
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": 500}}]) as regal:
        with pytest.raises(CheckRegalError) as raised:
            sender(regal.url, clock=clock, pacer=busy, patience_s=600, slot_patience_s=60).send(TRACK, "at_least_once")
        assert raised.value.tries == regal.stats()["requests"] == 1
    assert clock.passed == 60


def test_repeats_keep_the_rate_as_well():
    clock = FakeClock(jitter=0.0)
    with Sandbox(faults=[{"on": {"to": 9}, "do": {"status": 429}}]) as regal:
        assert sender(regal.url, clock=clock, pacer=Pacer(2)).send(TRACK, "at_most_once").tries == 10
    assert clock.passed >= 9 / 2


def test_threads_share_a_sender():
    with Sandbox() as regal:
        one, failed = sender(regal.url), []

        def send():
            try:
                for _ in range(10):
                    one.send(TRACK, "at_most_once")
            except RegalError as error:
                failed.append(error)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert failed == []
        assert regal.stats()["requests"] == 40
