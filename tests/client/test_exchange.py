"""What an attempt means and what to do next."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.client.exchange import (
    LONGEST_RETRY_AFTER_S,
    Answer,
    Meaning,
    NoAnswer,
    acknowledges,
    decide,
    read_message,
    read_retry_after,
)
from airflow_provider_regal.client.guarantee import GUARANTEES

NOW = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)


def decided(attempt, *, guarantee="at_most_once", tries=1, jitter=0.5):
    return decide(attempt, guarantee=guarantee, tries=tries, jitter=jitter, now=NOW)


def answer(status, retry_after=None, body=b""):
    return Answer(status, {} if retry_after is None else {"retry-after": retry_after}, body)


FINAL = [
    *[(answer(status), Meaning.ACKNOWLEDGED) for status in (200, 201, 202, 204, 299)],
    *[(answer(200, body=body), Meaning.ACKNOWLEDGED) for body in (b'{"message":"ok"}', b"", b"<html>", b"\xff", b"[")],
    *[(answer(status), Meaning.REFUSED) for status in (400, 404, 405, 413, 415, 422)],
    *[(answer(status), Meaning.UNAUTHORIZED) for status in (401, 403)],
    (answer(400, "5"), Meaning.REFUSED),
    (answer(401, "5"), Meaning.UNAUTHORIZED),
]
NOT_APPLIED = [
    answer(429),
    answer(429, "7"),
    answer(429, "soon"),
    answer(503, "7"),
    answer(503, "0"),
    answer(503, format_datetime(NOW + timedelta(seconds=9), usegmt=True)),
    NoAnswer(before_body=True, reason="refused"),
]
UNKNOWN = [
    answer(503),
    answer(503, "soon"),
    *[answer(status) for status in (500, 501, 502, 504, 507, 520, 599)],
    answer(500, "7"),
    *[answer(status) for status in (300, 301, 302, 303, 307, 308, 304)],
    *[answer(status) for status in (100, 101, 199, 402, 406, 408, 409, 410, 418, 425, 426, 451, 600, 999)],
    NoAnswer(before_body=False, reason="lost"),
]


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize(("attempt", "meaning"), FINAL, ids=str)
def test_an_acknowledged_or_refused_event_is_never_sent_again(attempt, meaning, guarantee):
    decision = decided(attempt, guarantee=guarantee)
    assert (decision.meaning, decision.retry, decision.wait_s) == (meaning, False, 0.0)
    assert decision.status == attempt.status


@pytest.mark.parametrize("attempt", [*(attempt for attempt, _ in FINAL), *NOT_APPLIED, *UNKNOWN], ids=repr)
def test_what_is_acknowledged_at_a_glance_is_what_is_decided_to_be(attempt):
    assert acknowledges(attempt) == (decided(attempt).meaning is Meaning.ACKNOWLEDGED)


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("attempt", NOT_APPLIED, ids=str)
def test_what_was_surely_not_applied_is_sent_again_under_both_guarantees(attempt, guarantee):
    decision = decided(attempt, guarantee=guarantee)
    assert (decision.meaning, decision.retry) == (Meaning.NOT_APPLIED, True)


@pytest.mark.parametrize("attempt", UNKNOWN, ids=str)
def test_what_nobody_can_know_is_sent_again_only_under_at_least_once(attempt):
    careful = decided(attempt, guarantee="at_most_once")
    assert (careful.meaning, careful.retry, careful.wait_s) == (Meaning.UNKNOWN, False, 0.0)
    assert decided(attempt, guarantee="at_least_once").retry is True


def test_a_429_alone_pauses_all_senders():
    assert decided(answer(429)).pauses is True
    assert not any(decided(attempt).pauses for attempt in (*NOT_APPLIED[3:], *UNKNOWN))


def test_reason_and_cause_of_a_missing_answer_are_kept():
    cause = ConnectionRefusedError("refused")
    decision = decided(NoAnswer(True, "nothing listens there", cause))
    assert (decision.reason, decision.cause, decision.status) == ("nothing listens there", cause, None)


# Waiting


@pytest.mark.parametrize(("tries", "longest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (10**9, 60)])
def test_the_wait_is_a_random_part_of_a_doubling_base(tries, longest):
    waits = [decided(answer(429), tries=tries, jitter=jitter).wait_s for jitter in (0.0, 0.25, 1.0)]
    assert waits == [0.0, longest / 4, longest]


@given(
    status=st.sampled_from([429, 503]),
    asked=st.integers(0, 10**30),
    tries=st.integers(1, 10**6),
    jitter=st.floats(0, 1),
    guarantee=st.sampled_from(GUARANTEES),
)
def test_the_wait_is_never_shorter_than_asked_and_never_absurd(status, asked, tries, jitter, guarantee):
    decision = decided(answer(status, str(asked)), guarantee=guarantee, tries=tries, jitter=jitter)
    assert decision.retry
    assert min(asked, LONGEST_RETRY_AFTER_S) <= decision.wait_s <= LONGEST_RETRY_AFTER_S
    assert decision.retry_after_s == min(asked, 86_400), "what was asked for, whatever is waited"


def date_in(seconds):
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("000000000000007", 7),
        ("1.5", 1.5),
        ("301", 301),
        ("9" * 5_000, 86_400),
        (date_in(90), 90),
        (date_in(3_600), 3_600),
        (date_in(-3_600), 0),
        ("Mon, 02 Mar 2026 12:00:30", 30),  # without a zone: GMT
        ("Mon, 02 Mar 2026 13:00:30 +0100", 30),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("5, 7", None),
        ("\N{ARABIC-INDIC DIGIT SEVEN}", None),
        ("Mon, 02 Mar 99999999999999999999 12:00:00 GMT", None),
        ("Mon, 99 Foo 2026 12:00:00 GMT", None),
        ("Mon, 02 Mar 2026 12:00:00 +99999999999999", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_garbage_is_none(header, seconds):
    assert read_retry_after(header, NOW) == seconds


def test_a_date_without_a_zone_is_gmt_whatever_the_zone_of_the_machine(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert read_retry_after("Mon, 02 Mar 2026 12:00:30", NOW) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


# Regal's answers


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", ""),
        (b"  \r\n ", ""),
        (b"null", ""),
        (b"[]", ""),
        (b"{}", ""),
        (b'{"message":""}', ""),
        (b'{"message":"Unauthorized"}', "Unauthorized"),
        (b'{"statusCode":403,"message":"Invalid API Key","error":"Forbidden"}', "Invalid API Key, Forbidden"),
        (b'{"statusCode":400,"message":["name is odd","no phone"],"error":"Bad"}', "name is odd; no phone, Bad"),
        (b'{"message":{"message":"deep"}}', "deep"),
        (b'"{\\"message\\":\\"quoted\\"}"', "quoted"),
        (b'"just words"', "just words"),
        (b'"{broken"', '"{broken"'),
        (b"<html><body>502 Bad Gateway</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf<html>", "an HTML page"),
        (b"plain\ttext\nin lines", "plain text in lines"),
        (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (b'{"message":"\\ud800 \\u0000 \\u001b[31m red"}', "[31m red"),
        (b'{"message": "cut o', '{"message": "cut o'),
        (b"17", "17"),
        (b'["a","b",null,"c","d","e","f"]', "a; b; c; d"),
    ],
)
def test_regals_words_are_found_in_a_body_of_any_shape(body, message):
    assert read_message(body) == message
    assert decided(answer(400, body=body)).said == message


@pytest.mark.parametrize("depth", [10, 900, 5_000, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"message":', "}")])
def test_a_deeply_nested_body_is_survived(depth, start, end):
    read_message((start * depth + "1" + end * depth).encode())


def test_a_long_message_is_bounded():
    assert len(read_message(b'{"message":"' + b"x" * 100_000 + b'"}')) <= 2_000


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["message", "error", "statusCode"]), inner),
)


@given(
    status=st.integers(-1, 1_100),
    retry_after=st.none() | st.text() | st.integers().map(str) | st.datetimes().map(format_datetime),
    body=st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()),
    guarantee=st.sampled_from(GUARANTEES),
    tries=st.integers(1, 10_000),
    jitter=st.floats(0, 1),
)
def test_no_answer_whatever_is_too_odd(status, retry_after, body, guarantee, tries, jitter):
    decision = decided(answer(status, retry_after, body), guarantee=guarantee, tries=tries, jitter=jitter)
    assert decision.said.isprintable()
    assert 0 <= decision.wait_s <= LONGEST_RETRY_AFTER_S
    assert decision.retry or not decision.wait_s


@pytest.mark.parametrize(("before_body", "guarantee"), list(product([True, False], GUARANTEES)))
def test_every_meaning_has_a_reason_in_words(before_body, guarantee):
    assert decided(NoAnswer(before_body, "no answer within the timeout"), guarantee=guarantee).reason == (
        "no answer within the timeout"
    )
    assert decided(answer(502), guarantee=guarantee).reason == "HTTP 502"
