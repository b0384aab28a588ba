"""The hook: the effect of each connection option, one event of each kind, and what is logged."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
import requests

from airflow_provider_regal.errors import (
    CheckRegalError,
    FixConnectionError,
    InvalidEventError,
    RefusedEventError,
    RegalError,
    RetryLaterError,
)
from airflow_provider_regal.events import ConsentPolicy, Identify, Page, Reading, Screen, Track
from airflow_provider_regal.hooks.regal import RegalHook
from tests.client.raw_server import RawServer, answering, http, self_signed, unused_port
from tests.people import SECRETS

CONSENT = {
    "channel": "sms",
    "subscribed": True,
    "timestamp": "2020-08-25T21:23:43Z",
    "ip": "198.51.100.54",
    "text": "I agree.",
}
ANNE = {"phone": "+19175554444", "firstName": "Anne"}


@pytest.fixture
def connect(monkeypatch, regal):
    """Describe the connection ``regal_default``: to the sandbox, unless told otherwise."""

    def connect(host=None, *, password=None, **extra):
        conn = {"conn_type": "regal", "host": host or regal.url, "password": password or regal.api_key, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", json.dumps(conn))
        return RegalHook(outage_patience_s=0)

    return connect


@pytest.fixture
def logged(caplog, capfd):
    """All that was logged: Airflow 3 writes to standard output, Airflow 2 and the libraries to ``logging``."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(capfd.readouterr())


def bodies(regal):
    return [event["body"] for event in regal.events()]


# One event of each kind


def test_each_call_sends_its_event(regal):
    hook = RegalHook()
    receipts = [
        hook.identify(traits=ANNE),
        hook.track("Loan Application Approved", user_id="anne", properties={"amount": 30000}),
        hook.track(event="Visited", user_id="anne"),
        hook.page(user_id="anne", name="Pricing"),
        hook.screen(user_id="anne", name="Home", category="App"),
    ]
    assert [body.get("name") for body in bodies(regal)] == [
        None,
        "Loan Application Approved",
        "Visited",
        "pageview",
        "screen",
    ]
    assert [receipt.call for receipt in receipts] == ["identify", "track", "track", "page", "screen"]
    assert {receipt.status for receipt in receipts} == {"acknowledged"}
    assert regal.stats()["contract_findings"] == {}


def test_each_call_takes_an_event_made_before(regal):
    hook = RegalHook()
    hook.identify(Identify(traits=ANNE))
    hook.track(Track(event="Visited", user_id="anne"))
    hook.page(Page(user_id="anne", name="Pricing"))
    hook.screen(Screen(user_id="anne", name="Home"))
    hook.send(Track(event="Left", user_id="anne"), guarantee="at_most_once")
    assert [body.get("name") for body in bodies(regal)] == [None, "Visited", "pageview", "screen", "Left"]


def test_an_event_and_fields_together_are_a_mistake(regal):
    with pytest.raises(TypeError, match="give an event or its fields, not both"):
        RegalHook().identify(Identify(traits=ANNE), user_id="anne")
    assert regal.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("call", "event"),
    [
        ("identify", Track(event="Visited", user_id="anne")),
        ("track", Identify(user_id="anne")),
        ("page", Screen(user_id="anne")),
        ("screen", Page(user_id="anne")),
        ("page", "Pricing"),
        ("identify", {"user_id": "anne"}),
    ],
)
def test_a_call_takes_its_own_event_only(call, event, regal):
    """An identify is repeated by default: a Track that slipped in would reach a person twice."""
    with pytest.raises(TypeError, match=f"{call} takes a"):
        getattr(RegalHook(), call)(event)
    assert regal.stats()["requests"] == 0


def test_an_unknown_guarantee_is_a_mistake(regal):
    for send in (
        lambda: RegalHook().identify(traits=ANNE, guarantee="exactly_once"),
        lambda: RegalHook().track("Visited", user_id="anne", guarantee=None),
        lambda: RegalHook().send(Identify(traits=ANNE), guarantee=""),
    ):
        with pytest.raises(ValueError, match="guarantee must be one of at_most_once, at_least_once"):
            send()
    assert regal.stats()["requests"] == 0


def test_an_invalid_event_is_not_sent(regal):
    with pytest.raises(InvalidEventError):
        RegalHook().identify(traits={"phone": "+15555555555"})
    with pytest.raises(InvalidEventError):
        RegalHook().track("Visited", user_id="anne", properties={"file": "x" * 300_000})
    assert regal.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("call", "repeats"), [("identify", True), ("track", False), ("page", False), ("screen", False)]
)
def test_only_identify_repeats_by_default_what_may_have_arrived(call, repeats, regal):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"drop": True}}])
    fields = {"user_id": "anne"} | ({"event": "Visited"} if call == "track" else {})
    if repeats:
        assert getattr(RegalHook(), call)(**fields).tries == 2
    else:
        with pytest.raises(CheckRegalError):
            getattr(RegalHook(), call)(**fields)
        assert regal.stats()["requests"] == 1
        regal.reset()
        assert getattr(RegalHook(), call)(**fields, guarantee="at_least_once").tries == 2


# The connection


def test_a_connection_is_read_at_first_use_only(monkeypatch, regal):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_LATER", "{}")
    hook = RegalHook("regal_later")
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_LATER", regal.connection())
    hook.identify(traits=ANNE)
    assert regal.stats()["requests"] == 1


def test_a_connection_may_be_json_or_a_uri(monkeypatch, regal):
    port = regal.url.rpartition(":")[2]
    key = quote(regal.api_key, safe="")
    same = "rate_limit=50&timeout=5&account=brand"  # they share a key, so they are one account
    for number, written in enumerate(
        (
            regal.connection(rate_limit=50, timeout=5, account="brand"),
            f"regal://:{key}@{quote(regal.url, safe='')}?{same}&dry_run=false",
            f"regal://http://:{key}@127.0.0.1:{port}/?{same}",
        )
    ):
        monkeypatch.setenv(f"AIRFLOW_CONN_REGAL_{number}", written)
        hook = RegalHook(f"regal_{number}")
        assert hook.identify(traits=ANNE).status == "acknowledged"
        assert (hook.target.rate_limit, hook.target.timeout_s) == (50, 5)
    assert regal.stats()["requests"] == 3


def test_a_wrong_field_is_named_with_its_connection(connect):
    with pytest.raises(FixConnectionError, match=r"Connection 'regal_default': timeout must be a number"):
        connect(timeout="soon").identify(traits=ANNE)


def test_event_source_of_the_connection_is_used_where_the_event_names_none(connect, regal):
    RegalHook().identify(user_id="anne")
    hook = connect(event_source="warehouse")
    hook.identify(user_id="anne")
    hook.identify(user_id="anne", event_source="crm")
    assert [body["eventSource"] for body in bodies(regal)] == ["airflow", "warehouse", "crm"]


def test_rate_limit_of_the_connection_is_kept(connect, regal):
    hook = connect(rate_limit=10)
    for _ in range(12):
        hook.identify(user_id="anne")
    stats = regal.stats()
    assert stats["requests"] == 12
    assert stats["worst_window_1s_all"] <= 10


def test_rate_limit_holds_for_all_hooks_of_a_connection_together(connect):
    hooks = [connect(rate_limit=5) for _ in range(6)]
    started = time.monotonic()
    for hook in hooks:
        hook.identify(user_id="anne")
    assert time.monotonic() - started >= 1.0, "six events at five a second take longer than a second"


def test_the_rate_limit_holds_for_threads_that_make_hooks_at_once(connect, regal):
    connect(rate_limit=10)
    threads = [threading.Thread(target=lambda: RegalHook().identify(user_id="anne")) for _ in range(14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    stats = regal.stats()
    assert stats["requests"] == 14
    assert stats["worst_window_1s_all"] <= 10


def test_timeout_of_the_connection_is_kept(connect, regal):
    regal.set_faults([{"do": {"hang": True}}])
    started = time.monotonic()
    with pytest.raises(CheckRegalError, match="no answer within the timeout"):
        connect(timeout=0.3).track("Visited", user_id="anne")
    assert time.monotonic() - started < 5


def test_outage_patience_is_kept(connect, regal):
    connect()
    regal.set_faults([{"do": {"status": 503, "retry_after": 3}}])
    with pytest.raises(RetryLaterError) as raised:
        RegalHook(outage_patience_s=2).identify(traits=ANNE)
    assert raised.value.tries == 1


def test_dry_run_of_the_connection_sends_nothing_and_checks_everything(connect, regal, logged):
    hook = connect(dry_run=True)
    receipt = hook.identify(traits=ANNE)
    assert (receipt.status, receipt.tries, receipt.http_status) == ("dry_run", 0, None)
    assert "Dry run: this identify event is valid" in logged()
    with pytest.raises(InvalidEventError):
        hook.track("Visited", user_id="anne", properties={"file": "x" * 300_000})
    with pytest.raises(FixConnectionError):
        connect("http://events.regalvoice.com", dry_run=True).identify(traits=ANNE)
    assert regal.stats()["requests"] == 0


@pytest.mark.parametrize(("value", "sent"), [("True", 0), ("true", 0), ("False", 1)])
def test_dry_run_of_the_configuration_sends_nothing(value, sent, monkeypatch, connect, regal):
    monkeypatch.setenv("AIRFLOW__REGAL__DRY_RUN", value)
    connect(dry_run=False).identify(traits=ANNE)
    assert regal.stats()["requests"] == sent


def test_get_conn_is_the_one_session_and_carries_the_key(connect, regal):
    hook = connect()
    session = hook.get_conn()
    assert isinstance(session, requests.Session)
    assert hook.get_conn() is session
    hook.identify(traits=ANNE)
    assert session.post(f"{regal.url}/events", json={"userId": "anne"}, timeout=5).status_code == 200
    assert hook.get_conn() is session


# Consent and reading


def test_the_consent_policy_is_honoured(regal):
    paper = {name: value for name, value in CONSENT.items() if name != "ip"}
    traits = {**ANNE, "optIn": [paper]}
    strict = RegalHook().identify(traits=traits)
    lenient = RegalHook(consent=ConsentPolicy(require_ip=False)).identify(traits=traits)
    aged = RegalHook(consent=ConsentPolicy(require_ip=False, max_consent_age=timedelta(days=1))).identify(traits=traits)
    assert [len(receipt.opt_ins_withheld) for receipt in (strict, lenient, aged)] == [1, 0, 1]
    assert ["smsOptIn" in body["traits"]["phones"]["+19175554444"] for body in bodies(regal)] == [False, True, False]


def test_the_reading_is_honoured(regal):
    written = {"user_id": "anne", "timestamp": "2026-03-02 09:00:00", "traits": {"plan": None}}
    RegalHook().identify(**written)
    RegalHook(reading=Reading(timezone=ZoneInfo("America/New_York"), send_nulls=True)).identify(**written)
    assert [body["originalTimestamp"] for body in bodies(regal)] == [
        "2026-03-02 09:00:00 +00:00",
        "2026-03-02 14:00:00 +00:00",
    ]
    assert [body.get("traits") for body in bodies(regal)] == [None, {"plan": None}]


def test_a_primary_phone_without_the_opt_in_of_the_old_one_on_record_is_logged(regal, logged):
    hook = RegalHook()
    hook.identify(user_id="anne", phones={SECRETS["e164"]: {"smsOptIn": CONSENT}})
    assert "becomes primary" not in logged()
    hook.identify(user_id="anne", phone="+14155550199")
    assert "Note: the phone becomes primary without its own opt-in for sms, which another phone" in logged()


def test_withheld_opt_ins_and_notes_are_logged_without_values(regal, logged):
    RegalHook().identify(
        phones={
            SECRETS["e164"]: {"smsOptIn": CONSENT},
            "+14155550199": {"isPrimary": True, "voiceOptIn": {"subscribed": True, "text": SECRETS["name"]}},
        }
    )
    log = logged()
    assert "Opt-in withheld - phones[1] voice: no timestamp" in log
    assert "Note: phones[1] becomes primary without its own opt-in for" in log
    for secret in (*SECRETS.values(), "4155550199", "198.51.100.54", regal.api_key):
        assert secret not in log


# Privacy

SECRET_KEY = "s3cr3t-k3y"
WHO = {
    "user_id": SECRETS["id"],
    "traits": {
        "firstName": SECRETS["name"],
        "phone": SECRETS["phone"],
        "email": SECRETS["email"],
        "optIn": [{**CONSENT, "ip": SECRETS["ip"]}],
    },
}


def echoes(status):
    def script(talk):
        while (request := talk.read()) is not None:
            talk.say(http(status, request.head.encode() + request.body if "401" in status else request.body))

    return script


@pytest.mark.parametrize("call", ["identify", "track"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "401 No", "429 Slow", "500 Oops", "302 Found"])
def test_nothing_personal_and_no_key_is_logged_or_raised(status, call, connect, logged):
    written = WHO | ({"event": "Visited", "properties": {"by": SECRETS["name"]}} if call == "track" else {})
    with RawServer(echoes(status)) as server:
        hook = connect(server.origin, password=SECRET_KEY)
        shown = ""
        try:
            shown = repr(getattr(hook, call)(**written)) + repr(hook.target)
        except RegalError as error:
            shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    assert len(server.requests) == 1
    assert SECRETS["e164"].encode() in server.requests[0].body
    log = logged()
    assert ("acknowledged" in log) == status.startswith("200")
    for secret in (*SECRETS.values(), "2125550147", "hidden", "5150", SECRET_KEY, "s3cr3t"):
        assert secret not in log, "in the log"
        assert secret not in shown, "in the error or the receipt"


def test_what_regal_says_beside_the_echo_is_kept(connect):
    answer = json.dumps({"message": [f"phone {SECRETS['e164']} of {SECRETS['name']} is not a mobile"]}).encode()
    with RawServer(answering(http("422 No", answer))) as server, pytest.raises(RefusedEventError) as raised:
        connect(server.origin).identify(**WHO)
    assert "Regal says: phone *** of *** is not a mobile" in str(raised.value)


# The connection test


def test_the_connection_test_sends_no_event_and_says_that_the_key_was_not_tested(connect, regal):
    good, words = connect(password="any-key").test_connection()
    assert good
    assert words.startswith(f"{regal.url} answered in ")
    assert "The API key was not tested" in words
    assert regal.stats()["requests"] == 0
    with RawServer(answering(http())) as server:
        assert connect(server.origin).test_connection()[0]
    assert [request.head.split()[0] for request in server.requests] == ["GET"]
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"host": "http://events.regalvoice.com"}, "plain http"),
        ({"password": "Bearer x"}, "API key"),
        ({"rate_limit": "fast"}, "rate_limit"),
    ],
)
def test_the_connection_test_names_a_wrong_field(fields, named, connect):
    good, words = connect(**fields).test_connection()
    assert not good
    assert named in words
    assert words.startswith("Connection 'regal_default'")


def test_the_connection_test_says_in_plain_words_why_nothing_answered(connect, tmp_path):
    context, _ = self_signed(tmp_path)
    with RawServer(answering(http()), tls=context) as server:
        for host, reason in (
            (f"http://127.0.0.1:{unused_port()}", "the connection was refused: nothing listens there"),
            ("https://regal.invalid", "the host name could not be resolved"),
            (f"https://localhost:{server.port}", "the TLS connection failed (certificate or protocol)"),
        ):
            good, words = connect(host).test_connection()
            assert not good
            assert words == f"{host}: {reason}."


def test_consent_of_the_future_is_withheld(regal):
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    receipt = RegalHook().identify(traits={**ANNE, "optIn": [{**CONSENT, "timestamp": soon}]})
    assert receipt.opt_ins_withheld == ("phones[0] sms: the timestamp lies in the future",)


@pytest.mark.parametrize("call", ["identify", "track"])
def test_the_opt_outs_of_an_event_that_is_wrong_elsewhere_are_sent_all_the_same(call, regal, logged):
    no = {"channel": "sms", "subscribed": False}
    named = {"event": "Booked"} if call == "track" else {}
    wrong = {"user_id": 1.5, "phone": "+12125550100", "opt_in": [no], **named}
    with pytest.raises(InvalidEventError, match="user_id"):
        getattr(RegalHook(), call)(**wrong)
    phones = {"+12125550100": {"smsOptIn": {"subscribed": False}}}
    assert bodies(regal) == [{"traits": {"phones": phones}, "eventSource": "airflow"}]
    assert "its opt-outs are still sent" in logged()
