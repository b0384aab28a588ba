"""One event on the wire: what is sent, and what an answer means."""

from __future__ import annotations

import pytest

from airflow_provider_regal import __version__
from airflow_provider_regal.errors import (
    CheckRegalError,
    FixConnectionError,
    RefusedEventError,
    RetryLaterError,
)
from airflow_provider_regal.events import Payload
from airflow_provider_regal.testing import Sandbox
from tests.client.fake_clock import FakeClock
from tests.client.raw_server import RawServer, answering, http
from tests.client.sending import KEY, TRACK, once, sender

# Requests


def test_the_request_is_what_regal_documents():
    with RawServer(answering(http())) as server:
        receipt = sender(server.origin).send(TRACK, "at_most_once")
    (request,) = server.requests
    assert request.head.startswith("POST /events HTTP/1.1\r\n")
    headers = request.headers
    assert headers["authorization"] == KEY
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(TRACK.encoded))
    assert headers["user-agent"] == f"airflow-provider-regal/{__version__}"
    assert not {"content-encoding", "transfer-encoding", "expect", "cookie"} & headers.keys()
    assert request.body == TRACK.encoded
    assert (receipt.status, receipt.http_status, receipt.tries) == ("acknowledged", 200, 1)


def test_text_goes_out_as_utf8():
    payload = Payload("track", {"userId": "Zoë ☎", "name": "Quote"})
    with RawServer(answering(http())) as server:
        sender(server.origin).send(payload, "at_most_once")
    (request,) = server.requests
    assert request.body.decode() == '{"userId":"Zoë ☎","name":"Quote"}'
    assert request.headers["content-length"] == str(len(request.body))


def test_many_events_share_one_connection():
    with RawServer(answering(http())) as server:
        one = sender(server.origin)
        for _ in range(20):
            one.send(TRACK, "at_most_once")
    assert len(server.requests) == 20
    assert len(server.talks) == 1


def test_the_environments_proxy_and_netrc_do_not_disturb_a_loopback_host(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hunter2\ndefault login other password hunter3\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(answering(http("418 Proxy"))) as proxy, RawServer(answering(http())) as server:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        sender(server.origin).send(TRACK, "at_most_once")
        assert proxy.talks == []
    assert server.requests[0].headers["authorization"] == KEY


def test_another_host_is_reached_through_the_environments_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RawServer(answering(http("407 Proxy Authentication Required", b""))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        monkeypatch.setenv("https_proxy", proxy.origin)
        error = once("https://regal.invalid")
    assert proxy.talks[0].received.startswith(b"CONNECT regal.invalid:443 ")
    assert KEY.encode() not in proxy.talks[0].received
    assert isinstance(error, RetryLaterError)
    assert "the proxy of the environment refused" in str(error)


# Answers


def test_the_sandbox_takes_it():
    with Sandbox() as regal:
        receipt = sender(regal.url).send(TRACK, "at_most_once")
        assert regal.stats()["contract_findings"] == {}
        assert [event["stored"] for event in regal.events()] == [True]
    assert (receipt.status, receipt.tries) == ("acknowledged", 1)


@pytest.mark.parametrize("body", ["empty", "json", "html", "list", "quoted"])
@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_is_an_acknowledgement_whatever_its_body(status, body):
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": status, "body": body}}]) as regal:
        assert sender(regal.url).send(TRACK, "at_most_once").http_status == status


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, RefusedEventError) for status in (400, 404, 405, 413, 415, 422)],
        *[(status, FixConnectionError) for status in (401, 403)],
    ],
)
def test_what_is_refused_is_sent_once(status, kind, guarantee):
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": status, "body": "list"}}]) as regal:
        with pytest.raises(kind) as raised:
            sender(regal.url).send(TRACK, guarantee)
        assert regal.stats()["requests"] == 1
    assert raised.value.status == status
    assert f"HTTP {status}" in str(raised.value)
    if kind is RefusedEventError:
        assert raised.value.tries == 1


@pytest.mark.parametrize(("status", "shape"), [(401, ""), (403, "Invalid API Key, Forbidden")])
def test_a_wrong_key_names_connection_and_field_and_not_the_key(status, shape):
    with Sandbox(wrong_key_status=status) as regal, pytest.raises(FixConnectionError) as raised:
        sender(regal.url, key="s3cr3t").send(TRACK, "at_least_once")
    message = str(raised.value)
    assert "'regal_of_test'" in message
    assert "'API key'" in message
    assert "The event was not applied." in message
    assert shape in message
    assert "s3cr3t" not in message


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize(
    "do",
    [
        {"status": 429},
        {"status": 429, "retry_after": 2},
        {"status": 503, "retry_after": 2},
        {"status": 503, "retry_after": 0},
    ],
)
def test_what_was_not_applied_is_sent_again_under_both_guarantees(do, guarantee):
    clock = FakeClock()
    with Sandbox(faults=[{"on": {"to": 3}, "do": do}]) as regal:
        receipt = sender(regal.url, clock=clock).send(TRACK, guarantee)
        assert [event["stored"] for event in regal.events()] == [False, False, False, True]
    assert receipt.tries == 4
    assert receipt.seconds == pytest.approx(clock.passed, abs=0.01)
    assert clock.passed >= 3 * do.get("retry_after", 1)


def test_retry_after_as_a_date_is_waited_for():
    clock = FakeClock(jitter=0.0)
    clock_date = "Mon, 02 Mar 2026 12:00:20 GMT"  # the fake clock starts at 12:00:00
    with RawServer(answering(http("503 Busy", b"", f"Retry-After: {clock_date}"), http())) as server:
        sender(server.origin, clock=clock).send(TRACK, "at_most_once")
    assert clock.passed == pytest.approx(20, abs=0.1)


UNKNOWN = [
    pytest.param({"status": 500, "store": True}, id="500"),
    pytest.param({"status": 502, "body": "html", "store": True}, id="502"),
    pytest.param({"status": 503, "store": True}, id="503"),
    pytest.param({"status": 504, "store": True}, id="504"),
    pytest.param({"status": 302, "store": True}, id="302"),
    pytest.param({"status": 409, "store": True}, id="409"),
    pytest.param({"drop": True}, id="dropped"),
    pytest.param({"reset": True}, id="reset"),
]


@pytest.mark.parametrize("do", UNKNOWN)
def test_what_nobody_can_know_is_sent_again_only_under_at_least_once(do):
    with Sandbox(faults=[{"on": {"requests": [1, 2]}, "do": do}]) as regal:
        with pytest.raises(CheckRegalError) as raised:
            sender(regal.url).send(TRACK, "at_most_once")
        assert regal.stats()["requests"] == 1
        assert "Look for it in Regal before you send it again" in str(raised.value)
        assert (raised.value.tries, raised.value.status) == (1, do.get("status"))
        assert sender(regal.url).send(TRACK, "at_least_once").tries == 2


def test_at_least_once_says_that_sending_again_is_what_it_means():
    with Sandbox(faults=[{"on": {"every": 1}, "do": {"status": 500}}]) as regal:
        error = once(regal.url, "at_least_once")
    assert isinstance(error, CheckRegalError)
    assert "run the task again" in str(error)
    assert "reach a person twice" not in str(error)


@pytest.mark.parametrize(
    ("last", "kind"),
    [({"status": 429, "retry_after": 300}, CheckRegalError), ({"status": 401}, FixConnectionError)],
)
def test_a_later_answer_does_not_take_back_that_the_first_try_may_have_arrived(last, kind):
    faults = [{"on": {"requests": [1]}, "do": {"drop": True}}, {"on": {"requests": [2]}, "do": last}]
    with Sandbox(faults=faults) as regal, pytest.raises(kind) as raised:
        sender(regal.url).send(TRACK, "at_least_once")
    assert "not applied" not in str(raised.value)
