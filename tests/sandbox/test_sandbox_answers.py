"""The immediate answers of ``POST /events``."""

from __future__ import annotations

import time

import pytest

from airflow_provider_regal.sandbox.window import SlidingWindow
from airflow_provider_regal.testing import ManualClock, Sandbox

BODY = {"userId": "cust-1", "traits": {"phones": {"+12125550100": {}}}}


def test_a_good_event_gets_200_and_message_ok(regal):
    reply = regal.post(BODY)
    assert (reply.status, reply.json) == (200, {"message": "ok"})
    assert reply.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("key", "kind"),
    [(None, "no_key"), ("other", "wrong_key"), ("Bearer sandbox-key", "bearer_key"), ("sandbox-key2", "wrong_key")],
)
def test_a_key_that_is_not_the_raw_one_gets_401_with_no_body(regal, key, kind):
    reply = regal.post(BODY, key=key)
    assert (reply.status, reply.body) == (401, b"")
    assert regal.findings() == [kind]
    assert not regal.sandbox.events()[0]["stored"]
    assert regal.sandbox.contacts() == []


def test_the_api_key_can_be_chosen(run_sandbox):
    regal = run_sandbox(api_key="mine")
    assert regal.post(BODY).status == 401
    assert regal.post(BODY, key="mine").status == 200
    assert regal.sandbox.api_key == "mine"


def test_a_wrong_key_can_be_answered_with_403_and_json(run_sandbox):
    reply = run_sandbox(wrong_key_status=403).post(BODY, key="other")
    assert reply.status == 403
    assert reply.json == {"statusCode": 403, "message": "Invalid API Key", "error": "Forbidden"}


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b'"text"', b"7", b"null", b"{", b'{"a": NaN}', b'{"a": 1e999}', b"\xff{}", b"[" * 100_000,
     b'{"a":' * 300 + b"1" + b"}" * 300],
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_gets_400_with_no_body(regal, raw):
    reply = regal.post(raw=raw)
    assert (reply.status, reply.body) == (400, b"")
    assert regal.findings() == ["not_an_object"]
    assert regal.sandbox.stats()["stored"] == 0


def test_the_content_may_be_wrong_and_the_answer_is_200_all_the_same(regal):
    assert regal.post({}).status == 200
    assert regal.post({"traits": {"phones": [{"phoneNumber": "+12125550100"}]}, "userId": 7}).status == 200
    assert regal.sandbox.stats()["by_status"] == {"200": 2}
    assert regal.sandbox.contacts(hidden=True) == []


def test_a_body_above_the_limit_gets_413(run_sandbox):
    regal = run_sandbox(max_body_bytes=1000)
    reply = regal.post({"userId": "x" * 2000})
    assert reply.status == 413
    assert "message" in reply.json
    assert regal.post({"userId": "x" * 500}).status == 200


def test_the_size_limit_is_one_mebibyte_by_default(regal):
    assert regal.post({"userId": "x", "traits": {"note": "y" * (1024 * 1024 - 100)}}).status == 200
    assert regal.post({"userId": "x", "traits": {"note": "y" * 1024 * 1024}}).status == 413


def test_other_methods_get_405_and_other_paths_a_404_that_says_what_there_is(regal):
    reply = regal.request("PUT", "/events")
    assert reply.status == 405
    assert reply.headers["Allow"] == "POST"
    reply = regal.request("POST", "/events/events", b"{}")
    assert reply.status == 404
    assert "POST /events" in reply.json["there_is"]
    assert regal.sandbox.stats()["requests"] == 0


def test_a_request_not_sent_as_json_is_taken_and_noted(regal):
    headers = {"Authorization": "sandbox-key", "Content-Type": "text/plain"}
    assert regal.request("POST", "/events", b'{"userId": "a"}', headers).status == 200
    assert "not_sent_as_json" in regal.findings()


def test_more_than_the_limit_in_a_second_gets_429(run_sandbox):
    clock = ManualClock()
    regal = run_sandbox(rate_limit=2, clock=clock)
    assert [regal.post(BODY).status for _ in range(3)] == [200, 200, 429]
    assert regal.post(BODY).json == {"message": "Too Many Requests"}
    assert "Retry-After" not in regal.post(BODY).headers
    assert regal.sandbox.stats()["stored"] == 2


def test_the_window_slides_and_refused_requests_do_not_count(run_sandbox):
    clock = ManualClock()
    regal = run_sandbox(rate_limit=2, clock=clock)
    regal.post(BODY)
    clock.advance(0.6)
    assert [regal.post(BODY).status for _ in range(3)] == [200, 429, 429]
    clock.advance(0.375)
    assert regal.post(BODY).status == 429
    clock.advance(0.05)  # the first is now more than a second old, the second is not
    assert [regal.post(BODY).status for _ in range(2)] == [200, 429]


def test_requests_with_a_wrong_key_do_not_use_up_the_limit(run_sandbox):
    regal = run_sandbox(rate_limit=1, clock=ManualClock())
    regal.post(BODY, key="other")
    assert regal.post(BODY).status == 200


def test_retry_after_is_sent_when_asked_for(run_sandbox):
    regal = run_sandbox(rate_limit=1, retry_after=3, clock=ManualClock())
    assert regal.post(BODY).status == 200
    reply = regal.post(BODY)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "3")


def test_the_busiest_second_is_counted_for_accepted_and_for_all_requests(run_sandbox):
    clock = ManualClock()
    regal = run_sandbox(rate_limit=3, clock=clock)
    for _ in range(5):
        regal.post(BODY)
    clock.advance(10)
    regal.post(BODY)
    stats = regal.sandbox.stats()
    assert (stats["worst_window_1s"], stats["worst_window_1s_all"], stats["rate_now"]) == (3, 5, 1)
    assert stats["rate_limit"] == 3


def test_the_busiest_second_may_straddle_a_full_second():
    window = SlidingWindow()
    for moment in (0.0, 0.75, 1.5, 1.625, 1.875):
        window.add(moment)
    assert window.worst == 3  # 1.5, 1.625, 1.875
    assert window.count(2.5) == 2


def test_an_arrival_exactly_a_second_later_is_outside_the_window():
    window = SlidingWindow()
    window.add(5.0)
    window.add(6.0)
    assert window.worst == 1


def test_every_answer_takes_the_latency(run_sandbox):
    regal = run_sandbox(latency_ms=120)
    start = time.monotonic()
    assert regal.post(BODY).status == 200
    assert time.monotonic() - start >= 0.12


@pytest.mark.parametrize(
    "options",
    [{"api_key": ""}, {"api_key": " x"}, {"rate_limit": 0}, {"latency_ms": -1}, {"wrong_key_status": 404},
     {"lookup_order": ["phone"]}, {"retry_after": -1}, {"keep_events": 0}],
)  # fmt: skip
def test_an_impossible_option_is_refused(options):
    with pytest.raises(ValueError, match=r"must|answered"):
        Sandbox(**options)
