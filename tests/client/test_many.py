"""One asynchronous attempt: its result, and whether Regal can have the event."""

from __future__ import annotations

import asyncio
import gzip
import socket
from math import inf

import pytest

from airflow_provider_regal.client.exchange import Answer, NoAnswer
from airflow_provider_regal.client.many import ManySender
from airflow_provider_regal.client.target import target_of
from airflow_provider_regal.testing import Sandbox
from tests.client import loops
from tests.client.loops import run as run_on_loop
from tests.client.raw_server import RawServer, answering, http, self_signed, unused_port
from tests.client.sending import KEY

BODY = b'{"userId":"anne-1","name":"Lesson Booked"}'


@pytest.fixture(params=loops.FACTORIES, autouse=True)
def _on_either_loop(request):
    loops.use(request.param)


def attempt(origin, *, timeout=5.0, times=1, body=BODY):
    """Make attempts one after the other on one sender; gives the last."""

    async def run():
        target = target_of("regal_of_test", host=origin, port=None, password=KEY, extra={"timeout": timeout})
        async with ManySender(target, max_connections=4) as sender:
            for _ in range(times):
                made = await sender.attempt(body)
            return made

    return run_on_loop(run())


def test_nothing_is_written_once_the_right_to_send_has_ended():
    waits = [0.0, inf, 0.0]

    async def run(server):
        target = target_of("regal_of_test", host=server.origin, port=None, password=KEY, extra={})
        async with ManySender(target, max_connections=4, wait_s=lambda: waits.pop(0)) as sender:
            return [await sender.attempt(BODY) for _ in range(3)]

    with RawServer(answering(http())) as server:
        first, second, third = run_on_loop(run(server))
        assert (first.status, third.status) == (200, 200)
        lost(second, before_body=True)
        assert second.held_back, "so that it is not taken for an outage of Regal"
        assert [request.body for request in server.requests] == [BODY, BODY]
        assert len(server.talks) == 1, "the connection is kept"


def test_a_request_waits_for_its_turn_when_it_has_a_connection():
    asked = []

    def wait_s():
        asked.append(len(server.requests))
        return 0.05 if len(asked) < 3 else 0.0

    async def run():
        target = target_of("regal_of_test", host=server.origin, port=None, password=KEY, extra={})
        async with ManySender(target, max_connections=4, wait_s=wait_s) as sender:
            return await sender.attempt(BODY)

    with RawServer(answering(http())) as server:
        assert run_on_loop(run()).status == 200
        assert len(server.requests) == 1
    assert asked == [0, 0, 0]


def test_a_connection_that_is_closed_while_a_request_waits_puts_nothing_in_doubt():
    waits = [0.0, 0.6, 0.0, 0.0]

    def close_soon(talk):
        talk.read()
        talk.say(http())
        talk.stopped.wait(0.2)

    async def run(server):
        target = target_of("regal_of_test", host=server.origin, port=None, password=KEY, extra={})
        async with ManySender(target, max_connections=4, wait_s=lambda: waits.pop(0)) as sender:
            return [await sender.attempt(BODY) for _ in range(3)]

    with RawServer(close_soon) as server:
        first, second, third = run_on_loop(run(server))
        assert (first.status, third.status) == (200, 200)
        lost(second, before_body=True)
        assert second.held_back


def test_a_request_that_would_wait_for_long_is_held_back():
    async def run(server):
        target = target_of("regal_of_test", host=server.origin, port=None, password=KEY, extra={"timeout": 30})
        async with ManySender(target, max_connections=4, wait_s=lambda: 2.0) as sender:
            return await sender.attempt(BODY)

    with RawServer(answering(http())) as server:
        made = run_on_loop(run(server))
        assert made.held_back
        assert server.requests == []


def lost(made, *, before_body):
    assert isinstance(made, NoAnswer)
    assert made.before_body is before_body
    return made.reason


def test_the_sandbox_takes_it():
    with Sandbox() as regal:
        target = target_of("regal_of_test", host=regal.url, port=None, password=regal.api_key, extra={})

        async def run():
            async with ManySender(target, max_connections=4) as sender:
                return await asyncio.gather(*(sender.attempt(BODY) for _ in range(20)))

        answers = run_on_loop(run())
        assert regal.stats()["requests"] == 20
        assert regal.stats()["contract_findings"] == {}
    assert {answer.status for answer in answers} == {200}


def test_the_key_goes_raw_and_the_body_as_it_is():
    with RawServer(answering(http())) as server:
        attempt(server.origin)
    (request,) = server.requests
    assert request.body == BODY
    assert request.headers["authorization"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(BODY))
    assert request.head.startswith("POST /events HTTP/1.1")


def test_what_regal_answers_is_given_on():
    with RawServer(answering(http("429 Too Many", b'{"message":"slow"}', "Retry-After: 7"))) as server:
        made = attempt(server.origin)
    assert isinstance(made, Answer)
    assert (made.status, made.headers["retry-after"], made.excerpt) == (429, "7", b'{"message":"slow"}')


def test_what_regal_answers_comes_in_words_from_a_server_that_would_pack_it():
    def packing(talk):
        head = talk.read().head.lower()
        packed = "accept-encoding: identity" not in head
        said = b'{"message":"slow"}'
        more = ("Content-Encoding: gzip",) if packed else ()
        talk.say(http("422 No", gzip.compress(said) if packed else said, *more))

    with RawServer(packing) as server:
        assert attempt(server.origin).excerpt == b'{"message":"slow"}'


def test_of_an_endless_answer_only_the_start_is_read():
    with RawServer(answering(http("500 No", b"x" * 3_000_000))) as server:
        assert 0 < len(attempt(server.origin).excerpt) <= 2_048


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with RawServer(answering(http())) as other:
        with RawServer(answering(http(f"{status} Moved", b"", f"Location: {other.origin}/events"))) as server:
            assert attempt(server.origin).status == status
            assert len(server.requests) == 1
        assert other.talks == []


def test_nothing_listens():
    assert "nothing listens there" in lost(attempt(f"http://127.0.0.1:{unused_port()}"), before_body=True)


def test_no_such_host():
    assert "could not be resolved" in lost(attempt("https://regal.invalid"), before_body=True)


def test_a_host_that_takes_no_connection_is_left_in_time():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        made = attempt(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=0.3)
        for one in waiting:
            one.close()
    assert "within the timeout" in lost(made, before_body=True)


def test_a_certificate_nobody_signed_is_refused_before_anything_is_sent(tmp_path):
    context, _ = self_signed(tmp_path)
    with RawServer(answering(http()), tls=context) as server:
        assert "TLS" in lost(attempt(f"https://localhost:{server.port}"), before_body=True)
        assert server.requests == []


def test_a_server_that_speaks_no_tls_gets_nothing():
    with RawServer(lambda talk: talk.say(b"220 hello\r\n") and talk.wait_until_the_client_goes()) as server:
        lost(attempt(f"https://localhost:{server.port}"), before_body=True)
        server.wait_for_scripts()
    assert KEY.encode() not in server.talks[0].received


@pytest.mark.parametrize(
    "script",
    [
        lambda talk: talk.read(),
        lambda talk: talk.read() and talk.reset(),
        lambda talk: talk.read() and talk.say(b"HTTP/1.1 200"),
        lambda talk: talk.read() and talk.say(b"this is no HTTP\r\n\r\n"),
        lambda talk: talk.read() and talk.say(b"HTTP/1.1 999999 What\r\n\r\n"),
        lambda talk: talk.read() and talk.say(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
        lambda talk: talk.read_head() and talk.reset(),
    ],
    ids=["close", "reset", "half a status", "no HTTP", "odd status", "endless header", "reset after the head"],
)
def test_lost_after_the_body_may_have_arrived_and_is_tried_once(script):
    with RawServer(script) as server:
        lost(attempt(server.origin), before_body=False)
        assert len(server.talks) == 1


@pytest.mark.parametrize("script", [lambda talk: None, lambda talk: talk.reset()], ids=["close", "reset"])
def test_a_connection_cut_at_once_is_never_an_answer(script):
    with RawServer(script) as server:
        assert isinstance(attempt(server.origin), NoAnswer)


def test_a_kept_connection_that_the_server_closes_while_the_request_is_under_way_is_not_repeated():
    def one_answer_then_silence(talk):
        talk.read()
        talk.say(http())
        talk.read()  # and is closed

    with RawServer(one_answer_then_silence, answering(http())) as server:
        lost(attempt(server.origin, times=2), before_body=False)
        assert len(server.requests) == 2, "one attempt is one request"


@pytest.mark.parametrize(
    "script",
    [
        lambda talk: talk.read() and talk.wait_until_the_client_goes(),
        lambda talk: talk.read() and talk.say(b"HTTP/1.1 200 OK\r\n") and talk.drip(b"X: y\r\n"),
    ],
    ids=["silence", "dripping headers"],
)
def test_the_timeout_bounds_the_whole_answer(script):
    with RawServer(script) as server:
        assert "no answer within the timeout" in lost(attempt(server.origin, timeout=0.3), before_body=False)


def test_a_body_that_never_ends_does_not_take_the_status_back():
    with RawServer(lambda talk: talk.read() and talk.say(http("200 OK", b"x" * 99)[:-50]) and talk.drip(b"")) as server:
        assert attempt(server.origin, timeout=0.3).status == 200


def test_a_body_cut_off_does_not_take_the_status_back():
    with RawServer(lambda talk: talk.read() and talk.say(http("422 No", b"x" * 99)[:-50])) as server:
        assert attempt(server.origin).status == 422


def test_the_environments_proxy_and_netrc_do_not_disturb_a_loopback_host(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hunter2\ndefault login other password hunter3\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(answering(http("418 Proxy"))) as proxy, RawServer(answering(http())) as server:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        assert attempt(server.origin).status == 200
        assert proxy.talks == []
    assert server.requests[0].headers["authorization"] == KEY


def test_another_host_is_reached_through_the_environments_proxy_and_the_proxy_gets_no_key(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RawServer(answering(http("407 Proxy Authentication Required", b""))) as proxy:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        lost(attempt("https://regal.invalid"), before_body=True)
    assert proxy.talks[0].received.startswith(b"CONNECT regal.invalid:443 ")
    assert KEY.encode() not in proxy.talks[0].received
