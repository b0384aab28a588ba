"""Scripted faults: which requests they affect, and what the client sees."""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from airflow_provider_regal.sandbox.faults import FaultPlan, FaultsError, describe, parse_rules
from airflow_provider_regal.testing import ManualClock

BODY = {"userId": "cust-1", "traits": {"phones": {"+12125550100": {}}}}
BOOKED = {"userId": "cust-1", "name": "Lesson Booked"}


def fired(on: dict, count: int = 20, name: str | None = None) -> list[int]:
    plan = FaultPlan(parse_rules([{"on": on, "do": {"status": 500}}]))
    return [number for number in range(1, count + 1) if plan.take(number, name)]


@pytest.mark.parametrize(
    ("on", "numbers"),
    [
        ({"requests": [3, 7]}, [3, 7]),
        ({"from": 10, "to": 12}, [10, 11, 12]),
        ({"from": 19}, [19, 20]),
        ({"to": 2}, [1, 2]),
        ({"every": 8}, [8, 16]),
        ({"every": 8, "offset": 3}, [3, 11, 19]),
        ({"every": 2, "from": 15}, [16, 18, 20]),
        ({"every": 5, "times": 2}, [5, 10]),
        ({"name": "Lesson Booked"}, []),
        ({"times": 3}, [1, 2, 3]),
    ],
)
def test_a_rule_meets_the_requests_it_names(on, numbers):
    assert fired(on) == numbers


def test_a_share_is_the_same_in_every_run_and_differs_by_seed():
    hit = fired({"share": 0.1, "seed": 1}, 2000)
    assert hit == fired({"share": 0.1, "seed": 1}, 2000)
    assert hit != fired({"share": 0.1, "seed": 2}, 2000)
    assert 140 < len(hit) < 260
    assert fired({"share": 1.0}) == list(range(1, 21))


def test_a_rule_can_be_bound_to_an_event_name(regal):
    regal.sandbox.set_faults([{"on": {"name": "Lesson Booked"}, "do": {"status": 503}}])
    assert [regal.post(BODY).status, regal.post(BOOKED).status, regal.post({"name": "Other"}).status] == [200, 503, 200]


def test_the_first_rule_that_matches_wins_and_a_spent_one_steps_aside(run_sandbox):
    rules = [{"on": {"every": 2, "times": 1}, "do": {"status": 502}}, {"on": {"every": 2}, "do": {"status": 504}}]
    regal = run_sandbox(faults=rules)
    assert [regal.post(BODY).status for _ in range(5)] == [200, 502, 200, 504, 200]
    assert regal.get("/sandbox/faults").json["fired"] == [1, 1]
    assert regal.sandbox.stats()["faults_fired"] == 2
    assert [event["fault"] for event in regal.sandbox.events()] == [None, 1, None, 2, None]


@pytest.mark.parametrize(
    ("do", "body", "content_type"),
    [
        ({"status": 500}, b'{"message":"Internal Server Error"}', "application/json"),
        ({"status": 400}, b"", "application/octet-stream"),
        ({"status": 401}, b"", "application/octet-stream"),
        (
            {"status": 403},
            b'{"statusCode":403,"message":"Invalid API Key","error":"Forbidden"}',
            "application/json",
        ),
        ({"status": 500, "body": "empty"}, b"", "application/octet-stream"),
        ({"status": 400, "body": "json"}, b'{"message":"Bad Request"}', "application/json"),
        (
            {"status": 400, "body": "list"},
            b'{"statusCode":400,"message":["Bad Request"],"error":"Bad Request"}',
            "application/json",
        ),
        ({"status": 200, "body": "quoted"}, b'"{\\"message\\":\\"ok\\"}"', "application/json"),
        ({"status": 200, "body": "empty"}, b"", "application/octet-stream"),
        ({"status": 299}, b'{"message":"ok"}', "application/json"),
        ({"status": 500, "body": "text:oh no"}, b"oh no", "text/plain"),
    ],
)
def test_a_scripted_status_comes_with_the_body_asked_for(regal, do, body, content_type):
    regal.sandbox.set_faults([{"do": do}])
    reply = regal.post(BODY)
    assert (reply.status, reply.body) == (do["status"], body)
    assert reply.headers.get("Content-Type", content_type).startswith(content_type)


def test_an_html_error_page_can_be_played(regal):
    regal.sandbox.set_faults([{"do": {"status": 502, "body": "html"}}])
    reply = regal.post(BODY)
    assert reply.headers["Content-Type"].startswith("text/html")
    assert "<h1>502 Bad Gateway</h1>" in reply.text


def test_retry_after_can_be_seconds_or_a_date(run_sandbox):
    clock = ManualClock(start=1_770_000_000.5)
    rules = [
        {"on": {"requests": [1]}, "do": {"status": 429, "retry_after": 2}},
        {"on": {"requests": [2]}, "do": {"status": 503, "retry_after": "http-date:2"}},
    ]
    regal = run_sandbox(clock=clock, faults=rules)
    assert regal.post(BODY).headers["Retry-After"] == "2"
    date = regal.post(BODY).headers["Retry-After"]
    assert email.utils.parsedate_to_datetime(date).timestamp() == 1_770_000_003  # rounded up: never too early
    assert "Retry-After" not in regal.post(BODY).headers


@pytest.mark.parametrize(
    ("do", "stored"),
    [
        ({"status": 500}, False),
        ({"status": 500, "store": True}, True),
        ({"status": 200}, True),
        ({"status": 200, "store": False}, False),
        ({"delay_ms": 1}, True),
    ],
)
def test_the_event_is_stored_or_not_whatever_the_answer(regal, do, stored):
    regal.sandbox.set_faults([{"do": do}])
    regal.post(BODY)
    assert regal.sandbox.events()[0]["stored"] is stored
    assert len(regal.sandbox.contacts()) == stored


def test_an_answer_can_be_slow(regal):
    regal.sandbox.set_faults([{"do": {"delay_ms": 150, "status": 503}}])
    start = time.monotonic()
    assert regal.post(BODY).status == 503
    assert time.monotonic() - start >= 0.15


def test_drop_stores_the_event_and_closes_without_an_answer(regal):
    regal.sandbox.set_faults([{"do": {"drop": True}}])
    with pytest.raises(http.client.RemoteDisconnected) as caught:
        regal.post(BODY)
    assert not isinstance(caught.value, ConnectionAbortedError)
    assert regal.sandbox.events()[0]["answer"] == "dropped"
    assert len(regal.sandbox.contacts()) == 1
    assert regal.sandbox.stats()["by_status"] == {"dropped": 1}


def test_drop_can_be_told_not_to_store(regal):
    regal.sandbox.set_faults([{"do": {"drop": True, "store": False}}])
    with pytest.raises(http.client.RemoteDisconnected):
        regal.post(BODY)
    assert regal.sandbox.stats()["stored"] == 0


def raw_post(url: str, timeout: float = 5) -> socket.socket:
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), timeout=timeout)
    data = json.dumps(BODY).encode()
    head = f"POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: sandbox-key\r\nContent-Length: {len(data)}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
    return connection


def test_drop_is_an_orderly_end_and_reset_is_not(regal):
    regal.sandbox.set_faults(
        [{"on": {"requests": [1]}, "do": {"drop": True}}, {"on": {"requests": [2]}, "do": {"reset": True}}]
    )
    with raw_post(regal.sandbox.url) as connection:
        assert connection.recv(100) == b""
    with raw_post(regal.sandbox.url) as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)


def test_reset_happens_before_storing(regal):
    regal.sandbox.set_faults([{"do": {"reset": True}}])
    with pytest.raises(ConnectionResetError):
        regal.post(BODY)
    event = regal.sandbox.events()[0]
    assert (event["answer"], event["stored"]) == ("reset", False)
    assert regal.sandbox.contacts() == []


def test_hang_reads_the_request_and_never_answers(regal):
    regal.sandbox.set_faults([{"on": {"requests": [1]}, "do": {"hang": True}}])
    with pytest.raises(TimeoutError):
        regal.post(BODY, timeout=0.2)
    event = regal.sandbox.events()[0]
    assert (event["answer"], event["stored"]) == ("hung", False)
    assert regal.post(BODY).status == 200


def test_a_hanging_request_may_be_stored(regal):
    regal.sandbox.set_faults([{"do": {"hang": True, "store": True}}])
    with pytest.raises(TimeoutError):
        regal.post(BODY, timeout=0.2)
    assert len(regal.sandbox.contacts()) == 1


def test_stopping_lets_go_of_hanging_and_slow_requests(run_sandbox):
    regal = run_sandbox(
        faults=[{"on": {"requests": [1]}, "do": {"hang": True}}, {"on": {"requests": [2]}, "do": {"delay_ms": 60_000}}]
    )
    connections = [raw_post(regal.sandbox.url), raw_post(regal.sandbox.url)]
    while regal.sandbox.stats()["requests"] < 2:
        pass
    start = time.monotonic()
    regal.sandbox.stop()
    assert time.monotonic() - start < 2
    for connection in connections:
        assert connection.recv(100) == b""
        connection.close()


def test_a_client_that_leaves_before_the_answer_is_counted_as_unanswered(regal):
    regal.sandbox.set_faults([{"do": {"delay_ms": 60_000}}])
    with pytest.raises(TimeoutError):
        regal.post(BODY, timeout=0.1)
    deadline = time.monotonic() + 5
    while regal.sandbox.stats()["by_status"] != {"unanswered": 1} and time.monotonic() < deadline:
        pass
    assert regal.sandbox.stats()["by_status"] == {"unanswered": 1}
    assert regal.sandbox.events()[0]["stored"]


def test_slow_body_sends_the_headers_at_once_and_then_drips(regal):
    regal.sandbox.set_faults([{"do": {"slow_body": True, "delay_ms": 20}}])
    with raw_post(regal.sandbox.url) as connection:
        start = time.monotonic()
        first = connection.recv(10_000)
        assert first.startswith(b"HTTP/1.1 200 OK")
        assert not first.endswith(b'{"message":"ok"}')
        received = first
        while not received.endswith(b'{"message":"ok"}'):
            received += connection.recv(10_000)
        assert time.monotonic() - start >= 0.25
    assert len(regal.sandbox.contacts()) == 1


def test_the_latency_comes_before_a_slow_body_too(run_sandbox):
    regal = run_sandbox(latency_ms=100, faults=[{"do": {"slow_body": True, "delay_ms": 1}}])
    with raw_post(regal.sandbox.url) as connection:
        start = time.monotonic()
        connection.recv(10_000)
        assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"on": {}, "do": {}}, ["must be a list"]),
        ([{"do": {"status": 500}}, {"on": {"evry": 3}, "do": {"status": 500}}], ["rule 2", "'evry'", "'on'"]),
        ([{"do": {"statsu": 500}}], ["rule 1", "'statsu'"]),
        ([{"on": {"every": 3}, "do": {"status": 500}, "times": 1}], ["rule 1", "'times'"]),
        ([{"on": {"every": 3}}], ["rule 1", "'do' is missing"]),
        ([{"do": {}}], ["rule 1", "nothing to do"]),
        ([{"do": {"status": 99}}], ["rule 1", "status"]),
        ([{"do": {"status": "500"}}], ["rule 1", "status"]),
        ([{"do": {"status": 500, "drop": True}}], ["'drop' and 'status'"]),
        ([{"do": {"drop": True, "retry_after": 2}}], ["need 'status'"]),
        ([{"do": {"reset": True, "store": True}}], ["before storing"]),
        ([{"do": {"status": 500, "body": "xml"}}], ["'body' must be"]),
        ([{"do": {"status": 500, "retry_after": "soon"}}], ["rule 1", "retry_after"]),
        ([{"on": {"offset": 3}, "do": {"drop": True}}], ["'offset' needs 'every'"]),
        ([{"on": {"seed": 3}, "do": {"drop": True}}], ["'seed' needs 'share'"]),
        ([{"on": {"from": 9, "to": 3}, "do": {"drop": True}}], ["'to' lies before 'from'"]),
        ([{"on": {"share": 1.5}, "do": {"drop": True}}], ["rule 1", "share"]),
        ([{"on": {"requests": [0]}, "do": {"drop": True}}], ["rule 1", "requests"]),
        (["drop"], ["rule 1"]),
    ],
)
def test_a_mistake_in_the_rules_is_named_with_rule_and_key(rules, words):
    with pytest.raises(FaultsError) as caught:
        parse_rules(rules)
    for word in words:
        assert word in str(caught.value)


def test_a_rule_is_described_in_one_line():
    rules = parse_rules([{"on": {"every": 50}, "do": {"status": 500, "store": True}}, {"do": {"drop": True}}])
    assert [describe(rule) for rule in rules] == ["every 50: status 500, store", "every request: drop"]


def test_the_rate_limit_comes_before_the_faults(run_sandbox):
    regal = run_sandbox(rate_limit=1, clock=ManualClock(), faults=[{"do": {"status": 500}}])
    assert [regal.post(BODY).status for _ in range(2)] == [500, 429]


def test_a_scripted_429_does_not_count_as_accepted(run_sandbox):
    regal = run_sandbox(rate_limit=1, clock=ManualClock(), faults=[{"on": {"times": 1}, "do": {"status": 429}}])
    assert [regal.post(BODY).status for _ in range(3)] == [429, 200, 429]
