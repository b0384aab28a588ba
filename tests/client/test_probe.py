"""The connection test sends no event, and reports what it checked."""

from __future__ import annotations

import pytest

from airflow_provider_regal.client.probe import probe
from tests.client.raw_server import RawServer, answering, http, self_signed, unused_port


def test_it_asks_with_get_and_without_the_key_nor_a_body(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(answering(http("404 Not Found"))) as server:
        good, words = probe(server.origin)
    assert good
    assert "HTTP 404" in words
    assert "The API key was not tested" in words
    (request,) = server.requests
    assert request.head.startswith("GET / HTTP/1.1")
    assert request.body == b""
    assert "authorization" not in request.headers


def test_it_follows_no_redirect():
    with RawServer(answering(http())) as other:
        moved = http("302 Found", b"", f"Location: {other.origin}/")
        with RawServer(answering(moved)) as server:
            assert probe(server.origin)[0]
        assert other.talks == []


def test_a_refused_connection_is_named():
    good, words = probe(f"http://127.0.0.1:{unused_port()}")
    assert not good
    assert "the connection was refused: nothing listens there" in words


def test_an_unknown_host_is_named():
    good, words = probe("https://regal.invalid")
    assert not good
    assert words == "https://regal.invalid: the host name could not be resolved."


def test_a_certificate_nobody_signed_is_named(tmp_path):
    context, _ = self_signed(tmp_path)
    with RawServer(answering(http()), tls=context) as server:
        good, words = probe(f"https://localhost:{server.port}")
    assert not good
    assert "the TLS connection failed" in words
    assert server.requests == []


@pytest.mark.parametrize("said", [b"220 smtp.example ESMTP\r\n", b"\x00\x01\x02\x03\r\n\r\n"])
def test_a_server_that_speaks_something_else_is_named(said):
    def script(talk):
        talk.read()
        talk.say(said)

    with RawServer(script) as server:
        good, words = probe(server.origin)
    assert not good
    assert "what answered does not speak HTTP properly" in words
    assert "smtp" not in words
