"""Where a connection can fail, and what is then known about the event."""

from __future__ import annotations

import socket

import pytest

from airflow_provider_regal.errors import (
    CheckRegalError,
    RetryLaterError,
)
from tests.client.raw_server import RawServer, answering, http, self_signed, unused_port
from tests.client.sending import KEY, TRACK, once, sender


def test_nothing_listens():
    error = once(f"http://127.0.0.1:{unused_port()}")
    assert isinstance(error, RetryLaterError)
    assert "the connection was refused: nothing listens there" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert error.__cause__.__traceback__ is None, "its frames hold the request, and so the key"


def test_no_such_host():
    error = once("https://regal.invalid")
    assert isinstance(error, RetryLaterError)
    assert "the host name could not be resolved" in str(error)
    assert error.__cause__ is not None


def test_a_host_that_takes_no_connection_is_left_in_time():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]  # more than the backlog: the next one is not accepted
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        error = once(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=0.3)
        for one in waiting:
            one.close()
    assert isinstance(error, RetryLaterError)
    assert "no connection within the timeout" in str(error)


def test_a_name_that_sounds_like_a_failure_is_not_taken_for_one():
    with RawServer(lambda talk: talk.read()) as server:
        error = once(f"http://localhost:{server.port}")
    assert "the connection was lost" in str(error)


def test_a_certificate_nobody_signed_is_refused_before_anything_is_sent(tmp_path):
    context, certificate = self_signed(tmp_path)
    with RawServer(answering(http()), tls=context) as server:
        one = sender(f"https://localhost:{server.port}", patience_s=0)
        with pytest.raises(RetryLaterError) as raised:
            one.send(TRACK, "at_most_once")
        assert server.requests == []
        assert "the TLS connection failed" in str(raised.value)
        assert "certificate verify failed" in str(raised.value.__cause__)
        one.session.verify = str(certificate)
        assert one.send(TRACK, "at_most_once").status == "acknowledged"
        one.send(TRACK, "at_most_once")
    assert [len(talk.requests) for talk in server.talks] == [0, 2], "one TLS connection for both"
    assert all(KEY.encode() not in talk.received for talk in server.talks[:1])


def test_a_certificate_for_another_name_is_refused(tmp_path):
    context, certificate = self_signed(tmp_path)
    with RawServer(answering(http()), tls=context) as server:
        one = sender(server.origin, patience_s=0)  # the certificate is not for 127.0.0.1
        one.session.verify = str(certificate)
        with pytest.raises(RetryLaterError):
            one.send(TRACK, "at_most_once")
    assert server.requests == []


def test_a_server_that_speaks_no_tls_gets_nothing():
    with RawServer(lambda talk: talk.say(b"220 hello\r\n") and talk.wait_until_the_client_goes()) as server:
        error = once(f"https://localhost:{server.port}")
        server.wait_for_scripts()
    assert isinstance(error, RetryLaterError)
    assert KEY.encode() not in server.talks[0].received


def closes_after_request(talk):
    talk.read()


def closes_in_the_status_line(talk):
    talk.read()
    talk.say(b"HTTP/1.1 20")


def resets_after_request(talk):
    talk.read()
    talk.reset()


def resets_after_headers_of_the_request(talk):
    talk.read_head()
    talk.reset()


def speaks_garbage(talk):
    talk.read()
    talk.say(b"\x16\x03\x01 anne-1 Lesson Booked\r\n\r\n")


def sends_two_lengths(talk):
    talk.read()
    talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n")


def sends_a_thousand_headers(talk):
    talk.read()
    talk.say(b"HTTP/1.1 200 OK\r\n" + b"X-Header: 1\r\n" * 1_000 + b"\r\n")


def sends_an_endless_header(talk):
    talk.read()
    talk.say(b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 100_000 + b"\r\n\r\n")


LOST = [
    closes_after_request,
    closes_in_the_status_line,
    resets_after_request,
    resets_after_headers_of_the_request,
    speaks_garbage,
    sends_two_lengths,
    sends_a_thousand_headers,
    sends_an_endless_header,
]


@pytest.mark.parametrize("script", LOST, ids=lambda script: script.__name__)
def test_a_connection_lost_after_bytes_were_written_leaves_it_unknown(script):
    with RawServer(script) as server:
        error = once(server.origin)
        assert len(server.talks) == 1
    assert "anne" not in str(error)
    assert isinstance(error, CheckRegalError)
    assert error.status is None
    with RawServer(script, answering(http())) as server:
        assert sender(server.origin).send(TRACK, "at_least_once").tries == 2


def test_a_connection_cut_before_it_was_read_is_never_called_safe_once_the_body_was_begun():
    """Whether the reset comes before or after the body is the network's choice: either must be told truthfully."""
    with RawServer(lambda talk: talk.reset()) as server:
        for _ in range(20):
            before = len(server.talks)
            error = once(server.origin)
            assert isinstance(error, (RetryLaterError, CheckRegalError))
            assert len(server.talks) == before + 1, "at_most_once sends once, whatever happens"


def test_a_kept_connection_that_the_server_has_closed_is_replaced_without_a_word():
    def script(talk):
        talk.read()
        talk.say(http())

    with RawServer(script) as server:
        one = sender(server.origin)
        for _ in range(3):
            assert one.send(TRACK, "at_most_once").tries == 1
            server.wait_for_scripts()
    assert len(server.talks) == 3


def test_a_kept_connection_closed_just_as_we_write_leaves_it_unknown_and_is_not_repeated():
    def script(talk):
        talk.read()
        talk.say(http())
        talk.read_head()
        talk.reset()

    with RawServer(script, answering(http())) as server:
        one = sender(server.origin)
        one.send(TRACK, "at_most_once")
        with pytest.raises(CheckRegalError):
            one.send(TRACK, "at_most_once")
        assert len(server.talks) == 1
    with RawServer(script, answering(http())) as server:
        one = sender(server.origin)
        assert [one.send(TRACK, "at_least_once").tries for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_not_followed(status):
    with RawServer(answering(http())) as other:
        moved = http(status, b"", f"Location: {other.origin}/events")
        with RawServer(answering(moved)) as server:
            error = once(server.origin)
        assert other.talks == []
    assert isinstance(error, CheckRegalError)


@pytest.mark.parametrize("where", ["http://[", "//", "http://a b/", "\x00", "gopher://x", "http://" + "a." * 200])
def test_a_redirect_to_nowhere_is_unknown_and_breaks_nothing(where):
    with RawServer(answering(http("302 Found", b"", f"Location: {where}"))) as server:
        assert isinstance(once(server.origin), CheckRegalError)
