"""What is shown instead of personal data."""

from __future__ import annotations

import time

import pytest

from airflow_provider_regal.events.privacy import KeysOnly, contact_values, keys_only, scrub, shown_key
from tests.events import hostile
from tests.events.saying import IP, MAIL, PHONE, opt_in


def test_a_payload_field_is_described_by_its_keys():
    assert keys_only({"phone": PHONE, "optIn": [1, 2], "address": {"city": "Albany"}}) == (
        "{address: {city}, optIn: [2], phone}"
    )
    assert keys_only("Ines") == keys_only(5) == "***"
    assert keys_only([1, 2]) == "[2]"


def test_keys_that_are_personal_themselves_are_masked():
    shown = keys_only({PHONE: {"label": "x"}, MAIL: 1, IP: 2})
    assert shown == "{***, ***, ***: {label}}"


def test_nothing_stays_nothing_and_a_description_stays_itself():
    assert keys_only(None) is None
    shown = keys_only({"a": 1})
    assert isinstance(shown, KeysOnly)
    assert keys_only(shown) is shown


def test_a_structure_without_end_can_be_described():
    ring: dict[str, object] = {}
    ring["again"] = ring
    assert keys_only(ring).count("again") == 8
    assert keys_only(hostile.deep(5000)).startswith(("[", "{"))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("firstName", "firstName"),
        ("straße", "straße"),
        (PHONE, "***"),
        (MAIL, "***"),
        ("hidden.person@@example.com", "***"),
        ("2001:db8::7777", "***"),
        ("a\nb\ud800", "a?b?"),
        ("x" * 101, "(a name of 101 characters)"),
    ],
)
def test_a_key_in_a_message_holds_nothing_personal_and_nothing_unprintable(key, shown):
    assert shown_key(key) == shown


def test_contact_values_are_found_anywhere():
    written = {
        "traits": {"phones": {PHONE: {"label": "x"}}, "optIn": [opt_in(ip="2001:db8::1")]},
        "email": MAIL,
        "n": [2125550147],
    }
    assert contact_values(written) == {PHONE, MAIL, "2001:db8::1", "2125550147"}


def test_a_date_is_no_phone_to_be_masked_in_every_log_line():
    assert contact_values({"timestamp": "2026-03-02T14:05:09Z", "b": "2026-03-02 14:05:09 +00:00"}) == set()


def test_contact_values_of_a_structure_without_end_end():
    assert contact_values(hostile.cyclic()) == set()
    assert contact_values(hostile.doubling(40)) == set()
    assert contact_values(hostile.deep(5000)) == set()


def test_regals_words_are_scrubbed_of_what_we_sent_and_of_what_looks_personal():
    sent = {"traits": {"firstName": hostile.NAME, "phones": {PHONE: {}}, "plan": "gold", "no": True}, "userId": "c-77"}
    said = f"contact c-77 {hostile.NAME} (212) 555-0147 at {MAIL} from {IP}: plan gold is not a number"
    assert scrub(said, sent) == "contact *** *** *** at *** from ***: plan *** is not a number"


def test_longer_values_are_scrubbed_before_those_they_contain():
    assert scrub("Anne-Marie", {"a": "Anne", "b": "Anne-Marie"}) == "***"


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "1 " * 100_000, "1.1" * 70_000, "a:" * 100_000, "@" * 200_000, "(1" * 100_000]
)
def test_a_long_text_takes_no_more_than_its_length(text):
    started = time.process_time()
    contact_values({"x": text})
    scrub(text, {})
    assert time.process_time() - started < 5
