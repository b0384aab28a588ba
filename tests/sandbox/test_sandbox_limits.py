"""How much of the sandbox a client can occupy: places, time and memory; and how soon it stops whatever is open."""

from __future__ import annotations

import contextlib
import socket
import time
from urllib.parse import urlsplit

import pytest

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.gate import Arrival
from airflow_provider_regal.sandbox.settings import SandboxSettings

HEAD = b"POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: sandbox-key\r\nContent-Type: application/json\r\n"
BODY = b'{"userId": "anne"}'
_STOPS_WITHIN_S = 2


@contextlib.contextmanager
def connected(regal, *parts):
    """Open a connection and send these parts of a request."""
    where = urlsplit(regal.sandbox.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        yield connection


def answer(connection):
    """Read until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            received += data
    return received


@pytest.mark.parametrize("part", [b"", b"G", HEAD, HEAD + b"X-More: "])
def test_a_head_that_does_not_come_is_not_waited_for(run_sandbox, part):
    regal = run_sandbox(request_timeout_s=0.3)
    with connected(regal, part) as connection:
        assert answer(connection) == b""
    assert regal.sandbox.stats()["requests"] == 0


def test_a_body_that_does_not_come_is_answered_408(run_sandbox):
    regal = run_sandbox(request_timeout_s=0.3)
    with connected(regal, HEAD, b"Content-Length: 100\r\n\r\n", BODY) as connection:
        received = answer(connection)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 0.3 s" in received
    with connected(
        regal, b"PUT /sandbox/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n["
    ) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 408 ")
    assert regal.sandbox.stats()["requests"] == 0


def test_a_request_in_pieces_is_understood(regal):
    request = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connected(regal, *(request[at : at + 7] for at in range(0, len(request), 7))) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
    assert regal.sandbox.contacts(hidden=True)[0]["user_id"] == "anne"


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000, b"nonsense\r\n\r\n"])
def test_a_head_that_is_none_is_answered_400(regal, head):
    with connected(regal, head) as connection:
        assert answer(connection).startswith(b"HTTP/1.0 400 ") or answer(connection) == b""


def test_no_more_connections_are_open_than_may_be(run_sandbox):
    regal = run_sandbox(max_connections=5, request_timeout_s=0.5)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connected(regal, HEAD))
        with connected(regal, HEAD) as one_more:
            assert answer(one_more).startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
    time.sleep(0.1)
    assert regal.post({"userId": "anne"}).status == 200


class TestPendingEvents:
    """The account alone, without what would process them while the test looks."""

    @pytest.fixture
    def account(self):
        return lambda **settings: Account(SandboxSettings(**settings))

    def arrive(self, account):
        return account.receive(Arrival("sandbox-key", "application/json", BODY))[1]

    def test_are_as_many_as_may_be_and_the_next_is_to_come_later(self, account):
        full = account(max_pending=3)
        answers = [self.arrive(full) for _ in range(5)]
        assert [(one.status, one.retry_after) for one in answers] == [(200, None)] * 3 + [(503, "1")] * 2
        assert (full.pending, full.stats()["stored"], full.stats()["by_status"]) == (3, 3, {"200": 3, "503": 2})
        full.process_next()
        assert self.arrive(full).status == 200

    def test_are_as_many_bytes_as_may_be(self, account):
        full = account(max_pending_bytes=30)
        assert [self.arrive(full).status for _ in range(3)] == [200, 200, 503]
        while full.process_next():
            pass
        assert self.arrive(full).status == 200

    def test_come_first_once_half_of_what_may_wait_does(self, account):
        busy = account(max_pending=4)
        assert [(self.arrive(busy).status, busy.is_busy) for _ in range(3)] == [(200, False), (200, False), (200, True)]


def test_many_events_at_once_are_all_taken(run_sandbox):
    regal = run_sandbox(max_pending=100)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connected(regal, request * 1_000) as connection:
        received = b""
        while received.count(b"HTTP/1.1 ") < 1_000:
            received += connection.recv(65_536)
    assert received.count(b"HTTP/1.1 200 ") == 1_000
    assert regal.sandbox.stats()["stored"] == 1_000


@pytest.mark.parametrize(
    "what", ["half a head", "half a body", "a long latency", "a slow body", "a hanging answer", "kept alive", "pending"]
)
def test_it_stops_soon_whatever_is_open(run_sandbox, what):
    faults = {
        "a long latency": {"delay_ms": 60_000},
        "a slow body": {"slow_body": True, "delay_ms": 60_000},
        "a hanging answer": {"hang": True},
    }
    regal = run_sandbox(faults=[{"do": faults[what]}] if what in faults else [])
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    parts = {"half a head": [HEAD], "half a body": [HEAD, b"Content-Length: 99\r\n\r\n", BODY]}
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connected(regal, *parts.get(what, [whole * (2_000 if what == "pending" else 1)])))
        if what not in parts:
            while not regal.get("/sandbox/stats").json["requests"]:
                time.sleep(0.01)
        before = time.monotonic()
        regal.sandbox.stop()
        assert time.monotonic() - before < _STOPS_WITHIN_S


def test_what_was_pending_when_it_stopped_is_processed_later(run_sandbox):
    regal = run_sandbox()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connected(regal, request * 2_000) as connection:
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 2_000:
            received += connection.recv(65_536)
        regal.sandbox.stop()
    assert all(event["processed"] for event in regal.sandbox.events())
    regal.sandbox.start()
    assert regal.get("/sandbox/stats").json["pending"] == 0
    assert regal.sandbox.stats()["stored"] == 2_000
