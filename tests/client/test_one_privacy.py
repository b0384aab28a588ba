"""Whatever an answer repeats of the event or the key is masked."""

from __future__ import annotations

import json
import logging
import traceback

import pytest

from airflow_provider_regal.errors import (
    CheckRegalError,
    RefusedEventError,
    RegalError,
)
from airflow_provider_regal.events import Payload
from tests.client.raw_server import RawServer, answering, http
from tests.client.sending import once, sender

WHO = {
    "userId": "customer-5150",
    "traits": {
        "firstName": "Zerubbabel",
        "bio": 'Loves "Petrichor"\n  and  ' + "Quisquiliae " * 40,
        "phones": {"+12125550147": {"label": "Vorwerk"}},
        "emails": {"hidden.person@example.com": {}},
        "zip": 12207,
        "tags": ["Sesquipedalian", ["Mumpsimus"]],
    },
}
SECRETS = (
    "5150", "Zerubb", "rubbabel", "Sesquip", "Mumpsi",
    "Petrichor", "Quisquiliae", "2125550147", "555-0147", "555-01", "hidden", "Vorwerk",
    "12207", "203.0.113", "s3cr3t-k3y", "s3cr3t",
)  # fmt: skip
ECHOES = [
    lambda request: request.body,
    lambda request: request.body[:150],
    lambda request: b'{"message": ' + json.dumps(request.body.decode()).encode() + b"}",
    lambda request: (
        b'{"message":["Zerubbabel is taken","(212) 555-0147 is no phone","zerubbabel"],"error":"bio Quisq"}'
    ),
    lambda request: b"no: hidden.person%40example.com Zerub&#98;abel Z\\u0065rubbabel",
    lambda request: b"too long: Zerubbab, sesquipedalian, Mumpsimus",
    lambda request: b"key " + request.headers["authorization"].encode()[:6] + b"...",
    lambda request: b"key " + request.headers["authorization"].encode() + b" is not known",
    lambda request: b"firstName=Zerubbabel&ip=203.0.113.77&label:vorwerk",
]


@pytest.mark.parametrize("echo", ECHOES, ids=range(len(ECHOES)))
@pytest.mark.parametrize("status", ["400 Bad", "401 No", "429 Slow", "500 Oops", "302 Found"])
def test_an_answer_that_repeats_the_event_or_the_key_gives_nothing_away(status, echo, caplog):
    def script(talk):
        while (request := talk.read()) is not None:
            talk.say(http(status, echo(request)))

    caplog.set_level(logging.DEBUG)
    payload = Payload("identify", WHO)
    with RawServer(script) as server, pytest.raises(RegalError) as raised:
        sender(server.origin, key=SECRETS[-2], patience_s=2).send(payload, "at_least_once")
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(raised.value.__dict__)
    for secret in SECRETS:
        assert secret.casefold() not in shown.casefold()


def test_garbage_that_repeats_the_event_gives_nothing_away(caplog):
    def script(talk):
        talk.say(talk.read().body.replace(b"\n", b"") + b"\r\n\r\n")

    caplog.set_level(logging.DEBUG)
    with RawServer(script) as server, pytest.raises(CheckRegalError) as raised:
        sender(server.origin, key=SECRETS[-2]).send(Payload("identify", WHO), "at_most_once")
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    for secret in SECRETS:
        assert secret.casefold() not in shown.casefold()


def test_what_regal_says_about_fields_stays_readable():
    body = b'{"message":["traits.phones must be an object","originalTimestamp is not a time"],"error":"Bad Request"}'
    with RawServer(answering(http("400 Bad", body))) as server, pytest.raises(RefusedEventError) as raised:
        sender(server.origin).send(Payload("identify", WHO), "at_most_once")
    assert "traits.phones must be an object; originalTimestamp is not a time, Bad Request" in str(raised.value)


def test_an_answer_cannot_forge_a_line_of_the_log():
    body = b'{"message":"no\\n[2026-03-02] INFO - all is well \\u001b[2J \\u202e"}'
    with RawServer(answering(http("400 Bad", body))) as server:
        assert str(once(server.origin)).isprintable()
