"""The body: its shape, size, bytes, and notes."""

from __future__ import annotations

import json

import pytest

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Identify, Page, Track, to_payload
from airflow_provider_regal.events.payload import LARGEST_BODY
from tests.events.contract import breaches
from tests.events.saying import NOW, PHONE, body, opt_in, payload


def of_size(size: int) -> Identify:
    frame = len(json.dumps({"userId": "1", "traits": {"x": ""}}, separators=(",", ":")))
    return Identify(user_id="1", traits={"x": "x" * (size - frame)})


def test_the_smallest_event():
    assert body(user_id="1") == {"userId": "1"}
    assert body(Track, user_id="1", event="Seen") == {"userId": "1", "name": "Seen"}


def test_empty_traits_and_properties_are_left_out():
    assert body(Track, user_id="1", event="Seen", traits={}, properties={}) == {"userId": "1", "name": "Seen"}
    assert body(Page, user_id="1", traits={"a": None}) == {"userId": "1", "name": "pageview"}


def test_an_event_can_update_the_contact_as_well():
    assert body(Track, phone=PHONE, event="Seen", traits={"plan": "gold"}, properties={"amount": 1}) == {
        "traits": {"plan": "gold", "phones": {PHONE: {}}},
        "name": "Seen",
        "properties": {"amount": 1},
    }


def test_the_body_is_utf8_json_without_spaces():
    made = to_payload(Identify(user_id="1", traits={"city": "Zürich 🎉"}), now=NOW)
    assert made.encoded == '{"userId":"1","traits":{"city":"Zürich 🎉"}}'.encode()


def test_a_body_of_256_kb_goes_and_a_larger_one_is_invalid():
    assert len(to_payload(of_size(LARGEST_BODY), now=NOW).encoded) == LARGEST_BODY == 262_144
    too_large = to_payload(of_size(LARGEST_BODY + 1), now=NOW)
    with pytest.raises(InvalidEventError) as caught:
        too_large.encoded  # noqa: B018
    (fault,) = caught.value.faults
    assert str(fault) == "the event: is 262,145 bytes; more than 262,144 are not sent. Leave the largest value out"


def test_the_size_counts_bytes_and_not_characters():
    made = to_payload(Identify(user_id="1", traits={"x": "ü" * 140_000}), now=NOW)
    with pytest.raises(InvalidEventError):
        made.encoded  # noqa: B018


def test_a_payload_does_not_show_its_body():
    assert PHONE not in repr(payload(phone=PHONE, opt_in=[opt_in()]))


def test_one_event_can_be_judged_again_at_another_time():
    event = Identify(phone=PHONE, opt_in=[opt_in(timestamp="2026-11-24")])
    assert len(to_payload(event, now=NOW).withheld) == 1
    later = to_payload(event, now=NOW.replace(month=12))
    assert later.withheld == ()
    assert breaches(later.body) == []


def test_its_opt_outs_alone_have_nothing_of_the_rest():
    both = payload(user_id="1", phone=PHONE, traits={"plan": "gold"}, opt_in=[opt_in(False), opt_in(True, "voice")])
    alone = both.opt_outs
    said = both.body["traits"]["phones"][PHONE]["smsOptIn"]
    assert said["subscribed"] is False
    assert alone.body == {"traits": {"phones": {PHONE: {"smsOptIn": said}}}}
    assert [(one.identifier, one.channel, one.subscribed) for one in alone.consents] == [(PHONE, "sms", False)]
    assert payload(phone=PHONE, opt_in=[opt_in()]).opt_outs is None


@pytest.mark.parametrize(("state", "notes"), [("NY", 0), ("New York", 1), ("", 0)])
def test_a_state_without_its_two_letter_code_is_noted(state, notes):
    assert len(payload(user_id="1", traits={"address": {"state": state}}).notes) == notes
