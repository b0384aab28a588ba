"""Golden examples: what a person writes, and what Regal receives."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_regal.events import Event, Identify, Page, Screen, Track, to_payload
from tests.events.saying import NO_IP_NEEDED, NOW, payload

CONSENT = {
    "timestamp": "2020-08-25T21:23:43Z",
    "ip": "172.16.254.1",
    "text": "By clicking the 'Submit' button below, I agree to receive automated marketing SMS and calls.",
}
CONSENT_SENT = {"subscribed": True, **CONSENT, "timestamp": "2020-08-25 21:23:43 +00:00"}

SAME = None  # Regal's own form is unchanged
A = {
    "userId": "cust-0042",
    "traits": {
        "firstName": "Ines",
        "lastName": "Okafor",
        "phones": {
            "+12125550100": {
                "label": "Mobile",
                "isPrimary": True,
                "voiceOptIn": {
                    "subscribed": True,
                    "timestamp": "2026-03-02 14:05:09 +00:00",
                    "ip": "203.0.113.9",
                    "text": "I agree to calls from Acme Tutoring.",
                    "source": "signup_form",
                },
                "smsOptIn": {
                    "subscribed": True,
                    "timestamp": "2026-03-02 14:05:09 +00:00",
                    "ip": "203.0.113.9",
                    "text": "I agree to texts from Acme Tutoring.",
                    "source": "signup_form",
                },
            }
        },
        "emails": {
            "ines@example.com": {
                "label": "Personal",
                "emailOptIn": {"subscribed": False, "timestamp": "2026-03-02 14:05:09 +00:00"},
            }
        },
        "address": {
            "street": "1 Sample Way",
            "city": "Albany",
            "state": "NY",
            "zipcode": "12207",
            "country": "US",
        },
        "plan_tier": "gold",
        "lifetime_value": 129.5,
    },
    "eventSource": "airflow",
}
B = {
    "userId": "cust-0042",
    "name": "Lesson Booked",
    "properties": {"subject": "Algebra", "price": 45.0, "starts_at": "2026-03-09 17:00:00 +00:00"},
    "originalTimestamp": "2026-03-03 10:11:12 +00:00",
    "eventSource": "airflow",
}
OPTED_OUT = {"subscribed": False, "timestamp": "2026-04-01 08:00:00 +00:00", "source": "preference_center"}
C = {
    "userId": "cust-0042",
    "traits": {"phones": {"+12125550100": {"smsOptIn": OPTED_OUT}}},
    "eventSource": "airflow",
}
PAPER = {"subscribed": True, "timestamp": "2026-05-05 12:00:00 +00:00"}
D = {
    "userId": "cust-0042",
    "traits": {
        "phones": {"+14155550199": {"isPrimary": True, "label": "New mobile", "voiceOptIn": PAPER, "smsOptIn": PAPER}}
    },
}
E = {
    "userId": "cust-0042",
    "traits": {
        "phone": "+12125550100",
        "optIn": [
            {
                "channel": "sms",
                "subscribed": True,
                "timestamp": "2026-03-02T14:05:09Z",
                "ip": "203.0.113.9",
                "text": "I agree to texts.",
                "source": "signup_form",
            }
        ],
    },
    "eventSource": "airflow",
}
F_IDENTIFY = {
    "userId": "cust-0043",
    "traits": {
        "phone": "(212) 555-0101",
        "email": "Lee@Example.com",
        "address": {"postalCode": "02110", "state": "MA"},
        "optIn": [
            {
                "channel": "sms",
                "subscribed": True,
                "timestamp": "2026-02-01T00:00:00Z",
                "ip": "198.51.100.7",
            },
            {"channel": "voice", "subscribed": True},
        ],
    },
    "timestamp": "2026-02-01T00:00:01.350Z",
    "eventSource": "segment",
}

GOLDEN: list[Any] = [
    pytest.param(
        Identify,
        {"traits": {"phone": "+19175554444", "firstName": "Anne", "lastName": "Smith"}},
        {"traits": {"firstName": "Anne", "lastName": "Smith", "phones": {"+19175554444": {"isPrimary": True}}}},
        id="brief-identify",
    ),
    pytest.param(
        Track,
        {
            "event": "Loan Application Approved",
            "user_id": "anne-1",
            "properties": {"loanType": "Personal loan", "amount": 30000, "currency": "USD", "term": 12},
        },
        {
            "userId": "anne-1",
            "name": "Loan Application Approved",
            "properties": {"loanType": "Personal loan", "amount": 30000, "currency": "USD", "term": 12},
        },
        id="brief-track",
    ),
    pytest.param(Page, {"user_id": "anne-1"}, {"userId": "anne-1", "name": "pageview"}, id="brief-page"),
    pytest.param(
        Screen,
        {"user_id": "anne-1", "name": "Home"},
        {"userId": "anne-1", "name": "screen", "properties": {"name": "Home"}},
        id="brief-screen",
    ),
    pytest.param(Identify, A, SAME, id="regal-A-upsert-with-consent"),
    pytest.param(Track, B, SAME, id="regal-B-event"),
    pytest.param(Identify, C, SAME, id="regal-C-opt-out"),
    pytest.param(
        Identify,
        E,
        {
            "userId": "cust-0042",
            "traits": {
                "phones": {
                    "+12125550100": {
                        "isPrimary": True,
                        "smsOptIn": {
                            "subscribed": True,
                            "timestamp": "2026-03-02 14:05:09 +00:00",
                            "ip": "203.0.113.9",
                            "text": "I agree to texts.",
                            "source": "signup_form",
                        },
                    }
                }
            },
            "eventSource": "airflow",
        },
        id="regal-E-legacy",
    ),
    pytest.param(
        Track,
        {
            "userId": "cust-0043",
            "event": "Quote Requested",
            "properties": {"amount": 300},
            "timestamp": "2026-02-01T00:03:00.000Z",
            "eventSource": "segment",
        },
        {
            "userId": "cust-0043",
            "name": "Quote Requested",
            "properties": {"amount": 300},
            "originalTimestamp": "2026-02-01 00:03:00 +00:00",
            "eventSource": "segment",
        },
        id="regal-F-track",
    ),
    pytest.param(
        Page,
        {
            "userId": "cust-0043",
            "name": "Pricing",
            "properties": {"path": "/pricing"},
            "timestamp": "2026-02-01T00:02:00Z",
        },
        {
            "userId": "cust-0043",
            "name": "pageview",
            "properties": {"path": "/pricing", "name": "Pricing"},
            "originalTimestamp": "2026-02-01 00:02:00 +00:00",
        },
        id="regal-F-page",
    ),
]


@pytest.mark.parametrize(("event", "written", "expected"), GOLDEN)
def test_an_example_becomes_what_regal_documents(event: type[Event], written: Any, expected: Any):
    made = payload(event, written=written)
    assert made.body == (written if expected is SAME else expected)
    assert made.withheld == ()
    assert made.notes == ()


BRIEF_TWO_OPT_INS: tuple[type[Event], Any, Any] = (
    Identify,
    {
        "traits": {
            "phone": "+19175554444",
            "age": 30,
            "firstName": "Anne",
            "lastName": "Smith",
            "optIn": [
                {"channel": "sms", "subscribed": True, **CONSENT},
                {"channel": "voice", "subscribed": True, **CONSENT},
            ],
        }
    },
    {
        "traits": {
            "age": 30,
            "firstName": "Anne",
            "lastName": "Smith",
            "phones": {"+19175554444": {"isPrimary": True, "smsOptIn": CONSENT_SENT, "voiceOptIn": CONSENT_SENT}},
        }
    },
)


def test_the_two_opt_ins_of_the_brief_have_an_address_of_a_private_network_which_is_no_evidence():
    event, written, expected = BRIEF_TWO_OPT_INS
    assert payload(event, written=written, policy=NO_IP_NEEDED).body == expected
    assert [one.consent.channel for one in payload(event, written=written).withheld] == ["sms", "voice"]


def test_the_segment_identify_goes_without_its_undated_voice_opt_in():
    made = payload(written=F_IDENTIFY)
    assert made.body == {
        "userId": "cust-0043",
        "traits": {
            "phones": {
                "+12125550101": {
                    "isPrimary": True,
                    "smsOptIn": {
                        "subscribed": True,
                        "timestamp": "2026-02-01 00:00:00 +00:00",
                        "ip": "198.51.100.7",
                    },
                }
            },
            "emails": {"lee@example.com": {"isPrimary": True}},
            "address": {"zipcode": "02110", "state": "MA"},
        },
        "originalTimestamp": "2026-02-01 00:00:01 +00:00",
        "eventSource": "segment",
    }
    assert [str(withheld) for withheld in made.withheld] == [
        "phones[0] voice: no timestamp: send the time the person agreed"
    ]


def test_consent_without_ip_goes_where_it_was_given_on_paper():
    assert payload(written=D, policy=NO_IP_NEEDED).body == D


def test_consent_without_ip_is_withheld_from_a_server():
    made = payload(written=D)
    assert made.body["traits"]["phones"] == {"+14155550199": {"isPrimary": True, "label": "New mobile"}}
    assert {withheld.consent.channel for withheld in made.withheld} == {"sms", "voice"}


def test_the_connections_event_source_is_used_where_the_event_names_none():
    event = Identify(user_id="1")
    assert to_payload(event, now=NOW, event_source="airflow").body == {"userId": "1", "eventSource": "airflow"}
    assert to_payload(Identify(user_id="1", event_source="crm"), now=NOW, event_source="airflow").body == {
        "userId": "1",
        "eventSource": "crm",
    }
