"""Consent: per phone or email and channel, with its evidence, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_regal.sandbox.processing.consent import moment
from airflow_provider_regal.testing import ManualClock

PHONE, OTHER, MAIL = "+12125550100", "+14155550199", "ines@example.com"
EVIDENCE = {
    "timestamp": "2026-03-02 14:05:09 +00:00",
    "ip": "203.0.113.9",
    "text": "I agree to texts.",
    "source": "signup_form",
}


def sms(subscribed: Any = True, **evidence: Any) -> dict[str, Any]:
    return {"traits": {"phones": {PHONE: {"smsOptIn": {"subscribed": subscribed, **evidence}}}}}


def status(regal: Any, channel: str = "sms") -> dict[str, Any]:
    return regal.sandbox.contact(phone=PHONE)["phones"][PHONE][channel]


def test_nothing_said_is_no_status(regal):
    regal.post({"traits": {"phones": {PHONE: {}}}})
    assert status(regal)["status"] == "No Status"
    assert status(regal)["timestamp"] is None


def test_a_subscription_is_kept_with_all_its_evidence(run_sandbox):
    regal = run_sandbox(clock=ManualClock(start=1_770_000_000.25))
    regal.post(sms(**EVIDENCE))
    held = status(regal)
    assert {key: held[key] for key in EVIDENCE} == EVIDENCE
    assert (held["status"], held["since"], held["event"]) == ("Subscribed", EVIDENCE["timestamp"], 1)
    assert held["received_at"] == "2026-02-02 02:40:00.250 +00:00"
    assert regal.findings() == []


def test_channels_are_apart(regal):
    info = {"smsOptIn": {"subscribed": True, **EVIDENCE}, "voiceOptIn": {"subscribed": False}}
    mail = {"emailOptIn": {"subscribed": True, **EVIDENCE}}
    regal.post({"traits": {"phones": {PHONE: info, OTHER: {}}, "emails": {MAIL: mail}}})
    contact = regal.sandbox.contact(phone=PHONE)
    found = [contact["phones"][PHONE]["sms"], contact["phones"][PHONE]["voice"], contact["phones"][OTHER]["sms"],
             contact["emails"][MAIL]["email"]]  # fmt: skip
    assert [channel["status"] for channel in found] == ["Subscribed", "Unsubscribed", "No Status", "Subscribed"]


def test_history_is_kept_newest_last_and_since_tells_when_the_status_began(regal):
    for subscribed, day in ((True, "2026-03-01"), (False, "2026-04-01"), (True, "2026-05-01"), (True, "2026-06-01")):
        regal.post(sms(subscribed, timestamp=day, ip="203.0.113.9"))
    held = status(regal)
    assert [item["status"] for item in held["history"]] == ["Subscribed", "Unsubscribed", "Subscribed", "Subscribed"]
    assert (held["since"], held["timestamp"]) == ("2026-05-01", "2026-06-01")


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (sms(ip="203.0.113.9"), ["opt_in_without_timestamp"]),
        (sms(timestamp="2026-03-01"), ["opt_in_without_ip"]),
        (sms(), ["opt_in_without_timestamp", "opt_in_without_ip"]),
        (sms(False), []),
    ],
)
def test_a_subscription_needs_evidence_and_an_opt_out_does_not(regal, body, kinds):
    regal.post(body)
    assert regal.findings() == kinds
    assert status(regal)["status"] != "No Status"


@pytest.mark.parametrize("text", ["true", "false", None, 1])
def test_a_status_that_is_no_boolean_changes_nothing(regal, text):
    regal.post(sms(text, **EVIDENCE))
    assert status(regal)["status"] == "No Status"
    assert regal.findings() == ["subscribed_not_boolean", "opt_in_ignored"]


def test_an_opt_in_on_an_invalid_number_is_lost_and_reported(regal):
    regal.post({"traits": {"phones": {"+15555550100": {"smsOptIn": {"subscribed": True, **EVIDENCE}}}}})
    assert regal.findings() == ["number_dropped", "opt_in_on_invalid_number", "nothing_stored"]


def test_the_last_status_received_holds_and_an_older_one_is_reported(regal):
    regal.post(sms(False, timestamp="2026-04-01T00:00:00Z"))
    regal.post(sms(True, timestamp="2026-03-31 23:00:00 -04:00", ip="203.0.113.9"))  # later, in its own time zone
    assert regal.findings() == []
    regal.post(sms(True, timestamp="2026-03-01", ip="203.0.113.9"))
    assert regal.findings() == ["older_opt_in"]
    assert status(regal)["timestamp"] == "2026-03-01"


@pytest.mark.parametrize(
    "text",
    ["2026-03-02 14:05:09 +00:00", "2026-03-02T14:05:09Z", "2026-03-02 10:05:09 -04:00", "2026-03-02 14:05:09",
     "2026-03-02T14:05:09.000+0000", "2026-03-02T14:05:09.000000000Z"],
)  # fmt: skip
def test_every_documented_form_of_a_timestamp_is_read(text):
    assert moment(text) == moment("2026-03-02T14:05:09+00:00")


def test_the_same_date_again_is_not_older(regal):
    for _ in range(2):
        regal.post(sms(**EVIDENCE))
    assert regal.findings() == ["duplicate"]


def test_a_timestamp_in_no_form_is_not_compared():
    assert moment("yesterday") is None
    assert moment("") is None


# --- the legacy form ------------------------------------------------------------------------------------------


def legacy(channel: str, **more: Any) -> dict[str, Any]:
    return {"channel": channel, "subscribed": True, **more}


def test_the_legacy_array_applies_to_the_phone_and_email_of_the_same_call(regal):
    opt_ins = [legacy("sms", **EVIDENCE), legacy("email", **EVIDENCE)]
    regal.post({"traits": {"phone": PHONE, "email": MAIL, "optIn": opt_ins}})
    contact = regal.sandbox.contact(phone=PHONE)
    assert contact["phones"][PHONE]["sms"]["status"] == "Subscribed"
    assert contact["phones"][PHONE]["sms"]["form"] == "legacy"
    assert contact["phones"][PHONE]["voice"]["status"] == "No Status"
    assert contact["emails"][MAIL]["email"]["status"] == "Subscribed"


def test_the_legacy_array_does_not_touch_phones_of_earlier_calls(regal):
    regal.post({"userId": "u", "traits": {"phones": {PHONE: {}}}})
    regal.post({"userId": "u", "traits": {"phone": OTHER, "optIn": [legacy("sms", **EVIDENCE)]}})
    contact = regal.sandbox.contact(user_id="u")
    assert [contact["phones"][number]["sms"]["status"] for number in (PHONE, OTHER)] == ["No Status", "Subscribed"]


def test_the_legacy_array_applies_to_the_map_when_there_is_no_legacy_phone(regal):
    regal.post({"traits": {"phones": {PHONE: {}}, "optIn": [legacy("voice", **EVIDENCE)]}})
    assert status(regal, "voice")["status"] == "Subscribed"


def test_the_legacy_array_belongs_to_the_legacy_phone_alone_when_a_map_is_there_too(regal):
    regal.post({"traits": {"phone": PHONE, "phones": {OTHER: {}}, "optIn": [legacy("sms", **EVIDENCE)]}})
    contact = regal.sandbox.contact(phone=PHONE)
    assert [contact["phones"][number]["sms"]["status"] for number in (PHONE, OTHER)] == ["Subscribed", "No Status"]


def test_a_legacy_opt_in_without_timestamp_is_ignored_and_counted(regal):
    regal.post({"traits": {"phone": PHONE, "optIn": [legacy("sms", ip="203.0.113.9"), legacy("voice", **EVIDENCE)]}})
    assert (status(regal)["status"], status(regal, "voice")["status"]) == ("No Status", "Subscribed")
    assert (
        regal.sandbox.stats()["behaviour_findings"]["opt_in_without_timestamp"]["text"] == "1 opt-in without timestamp"
    )


@pytest.mark.parametrize("entry", [legacy("fax", **EVIDENCE), {"subscribed": True}, "sms", legacy("email", **EVIDENCE)])
def test_a_legacy_opt_in_for_no_channel_or_nobody_is_ignored_and_counted(regal, entry):
    regal.post({"traits": {"phone": PHONE, "optIn": [entry]}})
    assert regal.findings() == ["legacy_form", "legacy_form", "opt_in_ignored"]
