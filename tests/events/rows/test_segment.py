"""Segment messages become events, or have a reason why they are not sent."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_regal.events import to_payload
from airflow_provider_regal.events.models import EVENTS
from airflow_provider_regal.events.rows.segment import Invalid, Message, Skipped, read_message
from tests.events.saying import MAIL, NOW, OTHER, PHONE

CALLED = "2026-02-01T00:00:01.350Z"
BROWSER = {"ip": "198.51.100.7", "library": {"name": "analytics.js", "version": "next-1.70.0"}}
IDENTIFY: dict[str, Any] = {
    "type": "identify",
    "messageId": "m-1",
    "anonymousId": "a-7",
    "userId": "cust-0043",
    "channel": "browser",
    "context": BROWSER,
    "integrations": {"All": True},
    "traits": {
        "phone": "(212) 555-0101",
        "email": "Lee@Example.com",
        "address": {"postalCode": "02110", "state": "MA"},
        "optIn": [
            {"channel": "sms", "subscribed": True, "timestamp": "2026-02-01T00:00:00Z"},
            {"channel": "voice", "subscribed": True},
        ],
    },
    "originalTimestamp": "2026-02-01T00:00:01.100Z",
    "sentAt": "2026-02-01T00:00:01.200Z",
    "receivedAt": "2026-02-01T00:00:01.450Z",
    "timestamp": CALLED,
    "version": 2,
}
TRACK: dict[str, Any] = {
    "type": "track",
    "messageId": "m-2",
    "anonymousId": "a-7",
    "userId": "cust-0043",
    "event": "Quote Requested",
    "properties": {"amount": 300},
    "timestamp": "2026-02-01T00:03:00.000Z",
    "receivedAt": "2026-02-01T00:03:00.200Z",
}
PAGE = {**TRACK, "type": "page", "name": "Pricing", "category": "Shop", "properties": {"path": "/pricing"}}


def event_of(message, include=()):
    read = read_message(message, include)
    assert isinstance(read, Message), read
    return EVENTS[read.call].read(read.written)


def payload_of(message, include=()):
    return to_payload(event_of(message, include), now=NOW)


def body(message, include=()):
    return payload_of(message, include).body


def skipped(message, include=()):
    read = read_message(message, include)
    assert isinstance(read, Skipped), read
    return read.reason


def with_opt_in(opt_in=None, *, context=BROWSER, channel=None, called=CALLED, place="optIn"):
    """An identify whose one opt-in lacks an address; gives the address it is sent with."""
    given = {"channel": "sms", "subscribed": True, "timestamp": "2026-02-01T00:00:00Z", **(opt_in or {})}
    traits = {
        "optIn": {"phone": PHONE, "optIn": [given]},
        "single": {"phone": PHONE, "optIn": given},
        "map": {"phones": {PHONE: {"smsOptIn": given}}},
    }[place]
    message = {"type": "identify", "context": context, "channel": channel, "timestamp": called, "traits": traits}
    (phone,) = event_of(message).phones
    (sent,) = phone.opt_ins
    return sent.ip


def test_an_identify_becomes_a_contact_with_its_consent():
    made = payload_of(IDENTIFY)
    assert made.body == {
        "userId": "cust-0043",
        "traits": {
            "phones": {
                "+12125550101": {
                    "isPrimary": True,
                    "smsOptIn": {"subscribed": True, "timestamp": "2026-02-01 00:00:00 +00:00", "ip": "198.51.100.7"},
                }
            },
            "emails": {"lee@example.com": {"isPrimary": True}},
            "address": {"zipcode": "02110", "state": "MA"},
        },
        "originalTimestamp": "2026-02-01 00:00:01 +00:00",
        "eventSource": "segment",
    }
    (withheld,) = made.withheld
    assert withheld.consent.channel == "voice"
    assert event_of(IDENTIFY).message_id == "m-1"


def test_a_track_becomes_an_event():
    assert body(TRACK) == {
        "userId": "cust-0043",
        "name": "Quote Requested",
        "properties": {"amount": 300},
        "originalTimestamp": "2026-02-01 00:03:00 +00:00",
        "eventSource": "segment",
    }


@pytest.mark.parametrize(("call", "name"), [("page", "pageview"), ("screen", "screen")])
def test_pages_and_screens_are_events_only_if_they_are_asked_for(call, name):
    message = {**PAGE, "type": call}
    assert call in skipped(message)
    assert call in skipped(message, {"page", "screen"} - {call})
    sent = body(message, {call})
    assert sent["name"] == name
    assert sent["properties"] == {"path": "/pricing", "name": "Pricing", "category": "Shop"}


@pytest.mark.parametrize("kind", ["alias", "group", "delete", "Track", 5, ["track"], {}])
def test_calls_that_regal_has_not_are_skipped(kind):
    assert skipped({**TRACK, "type": kind}, {"page", "screen"})


@pytest.mark.parametrize("kind", [None, "", " "])
def test_what_has_no_type_is_no_message_of_segments(kind):
    read = read_message({**TRACK, "type": kind})
    assert isinstance(read, Invalid)
    assert read.faults[0].field == "type"
    assert isinstance(read_message({}), Invalid)


@pytest.mark.parametrize(
    "integrations",
    [
        {"All": False},
        {"all": "false"},
        {"All": False, "Amplitude": True},
        {"Regal": False},
        {"All": True, "Regal.io": False},
        {"All": True, "Regal Voice": False},
        {"regal.IO ": False},
        {"Regal": True, "Regal.io": False},
        {"Regal.io": False, "Regal": True},
        {"All": False, "Regal": None},
    ],
)
def test_integrations_can_switch_regal_off(integrations):
    assert "integrations" in skipped({**TRACK, "integrations": integrations})


@pytest.mark.parametrize(
    "integrations",
    [
        None,
        {},
        {"All": True},
        {"Amplitude": False},
        {"All": None},
        {"All": False, "Regal": True},
        {"All": False, "Regal.io": {"option": 1}},
        {"All": False, "Regal Voice": {}},
        {"Regalia": False},
    ],
)
def test_integrations_that_leave_regal_on(integrations):
    assert body({**TRACK, "integrations": integrations})


@pytest.mark.parametrize("integrations", [False, [], "All", ["Regal"], 0])
def test_integrations_that_cannot_be_read_are_a_fault(integrations):
    read = read_message({**TRACK, "integrations": integrations})
    assert isinstance(read, Invalid)
    assert read.faults[0].field == "integrations"


def test_what_only_a_browser_is_known_of_is_skipped():
    assert "anonymous" in skipped({**TRACK, "userId": None})
    assert "anonymous" in skipped({**IDENTIFY, "userId": " ", "traits": {"plan": "gold", "phone": "", "phones": {}}})
    for traits in ({"phone": PHONE}, {"email": MAIL}, {"phones": {PHONE: {}}}, {"emails": {MAIL: {}}}):
        assert body({**IDENTIFY, "userId": None, "traits": traits})
    assert body({**TRACK, "userId": None, "context": {"traits": {"email": MAIL}}})


def test_without_any_id_it_is_a_fault_of_the_event():
    read = read_message({"type": "track", "event": "X"})
    assert isinstance(read, Message)


def test_the_corrected_time_comes_before_the_devices_own():
    assert body({**TRACK, "originalTimestamp": "2020-01-01T00:00:00Z"})["originalTimestamp"].startswith("2026-02-01")
    only = {**TRACK, "timestamp": "", "originalTimestamp": "2020-01-01T00:00:00Z"}
    assert body(only)["originalTimestamp"] == "2020-01-01 00:00:00 +00:00"
    neither = {key: value for key, value in TRACK.items() if key != "timestamp"}
    assert "originalTimestamp" not in body(neither)  # not receivedAt


def test_opt_ins_with_segments_key_of_before_2021():
    message = {
        **IDENTIFY,
        "traits": {
            "phone": PHONE,
            "optIn": [
                {"channel": "sms", "subscribed": True, "subscribedAt": "2020-03-04T05:06:07Z", "ip": "192.0.2.1"}
            ],
        },
    }
    assert body(message)["traits"]["phones"][PHONE]["smsOptIn"]["timestamp"] == "2020-03-04 05:06:07 +00:00"


def test_cached_traits_give_identifiers_and_nothing_else():
    cached = {
        "phone": PHONE,
        "email": MAIL,
        "plan": "silver",
        "optIn": [{"channel": "sms", "subscribed": True, "timestamp": "2020-01-01T00:00:00Z", "ip": "192.0.2.1"}],
    }
    sent = body({**TRACK, "context": {**BROWSER, "traits": cached}, "traits": cached})
    assert sent["traits"] == {"phones": {PHONE: {}}, "emails": {MAIL: {}}}
    sent = body({**IDENTIFY, "traits": {"plan": "gold"}, "context": {**BROWSER, "traits": cached}})
    assert sent["traits"] == {"plan": "gold"}


def test_a_cached_identifier_that_cannot_be_read_does_not_cost_the_event():
    broken = {"traits": {"phone": "555", "email": MAIL}}
    assert body({**TRACK, "context": broken})["traits"] == {"emails": {MAIL: {}}}
    assert "traits" not in body({**TRACK, "context": {"traits": {"phone": "555"}}})
    read = read_message({**TRACK, "userId": None, "context": {"traits": {"phone": "555"}}})
    assert isinstance(read, Message)
    assert read.written["phone"] == "555"  # and reading the event reports the error


@pytest.mark.parametrize("place", ["optIn", "single", "map"])
def test_the_address_of_a_client_is_evidence_of_consent(place):
    assert with_opt_in(place=place) == "198.51.100.7"
    assert with_opt_in({"ip": "192.0.2.1"}, place=place) == "192.0.2.1"


@pytest.mark.parametrize(
    ("channel", "library", "more", "counts"),
    [
        ("browser", "analytics.js", {}, True),
        (None, "analytics.js", {}, True),
        ("mobile", "analytics-ios", {}, True),
        (None, "analytics-android", {}, True),
        (None, "@segment/analytics-react-native", {}, True),
        (None, "analytics-kotlin", {"device": {"type": "android"}}, True),
        (None, "analytics-kotlin", {}, False),
        ("client", None, {}, True),
        ("server", None, {}, False),
        ("server", "analytics.js", {}, False),
        (None, "analytics-python", {}, False),
        (None, "@segment/analytics-node", {}, False),
        ("browser", "analytics-python", {}, False),
        ("cloud", "analytics.js", {}, False),
        (None, None, {}, False),
    ],
)
def test_a_servers_address_is_no_evidence(channel, library, more, counts):
    context = {"ip": "198.51.100.7", "library": {"name": library}, **more}
    assert with_opt_in(context=context, channel=channel) == ("198.51.100.7" if counts else None)


def test_the_address_of_a_later_call_is_no_evidence():
    assert with_opt_in(called="2026-02-01T20:00:00Z")
    assert with_opt_in(called="2026-03-01T00:00:00Z") is None
    assert with_opt_in(called=None) is None


@pytest.mark.parametrize("address", [None, "", "not an address", 5, {"ip": "1"}])
def test_an_address_that_is_none_is_left_out(address):
    assert with_opt_in(context={**BROWSER, "ip": address}) is None


def test_the_full_name_goes_where_its_parts_are():
    names = {"firstName": "Anne", "lastName": "Smith", "name": "Anne Smith"}
    assert body({**IDENTIFY, "traits": names})["traits"] == {"firstName": "Anne", "lastName": "Smith"}
    assert body({**IDENTIFY, "traits": {"name": "Anne Smith"}})["traits"] == {"name": "Anne Smith"}


def test_ids_among_the_traits_are_no_attributes():
    sent = body({**IDENTIFY, "traits": {"userId": "x", "anonymousId": "a-7", "id": "kept"}})
    assert (sent["userId"], sent["traits"]) == ("cust-0043", {"id": "kept"})


def test_nothing_else_of_a_message_goes_on():
    sent = read_message(
        {**TRACK, "writeKey": "secret-1", "projectId": "p", "traits": {"phone": OTHER}, "context": BROWSER}
    )
    assert isinstance(sent, Message)
    assert sent.written.keys() == {"userId", "message_id", "event", "properties", "timestamp", "eventSource"}


@pytest.mark.parametrize("message_id", [None, "", {"a": 1}, [1], True, 1.5])
def test_a_message_id_that_is_none_costs_nothing(message_id):
    assert event_of({**TRACK, "messageId": message_id}).message_id is None
