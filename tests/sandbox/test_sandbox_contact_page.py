"""The page of a contact: the consent of each phone and email, since when, on which evidence, and its history."""

from __future__ import annotations

import re

from airflow_provider_regal.testing import ManualClock
from tests.sandbox.test_sandbox_pages import PHONE, subscribed, words


def test_the_page_of_a_contact_has_attributes_and_bodies(regal):
    regal.post(subscribed(text="I agree to texts.", source="signup_form"))
    regal.post({"userId": "cust-100", "name": "Lesson Booked", "properties": {"subject": "Algebra"}})
    regal.post({"userId": "cust-100", "traits": {"plan_tier": "gold", "address": {"city": "Albany", "state": "NY"}}})
    regal.sandbox.settle()
    page = words(regal.page("/contacts/1"))
    assert "plan_tier gold Address Albany, NY" in page
    assert 'Lesson Booked 200 { "userId": "cust-100"' in page
    assert "contact update only" in page
    assert "<details>" in regal.page("/contacts/1")


def history(page: str, channel: str, whose: str) -> list[list[str]]:
    """The cells of the table of one channel of a phone or email, the labels for narrow screens left out."""
    (table,) = re.findall(rf"<caption[^>]*>What was said about {channel} to {re.escape(whose)},.*?</table>", page, re.S)
    rows = re.findall(r"<tr.*?</tr>", table, re.S)[1:]
    cells = [re.findall(r"<td.*?</td>", row, re.S) for row in rows]
    return [[words(re.sub(r'<span class="label">.*?</span>', "", cell)) for cell in row] for row in cells]


def test_every_change_of_consent_stands_with_its_evidence_what_holds_now_first(run_sandbox):
    clock = ManualClock()
    regal = run_sandbox(clock=clock)
    regal.post(subscribed(text="I agree to texts.", source="signup_form"))
    clock.advance(61)
    regal.post(subscribed(False, timestamp="2026-04-01 08:00:00 +00:00", ip=None, source="preference_center"))
    clock.advance(61)
    regal.post(
        {"traits": {"phone": PHONE, "optIn": [{"channel": "sms", "subscribed": True, "timestamp": "2026-03-15"}]}}
    )
    regal.sandbox.settle()
    page = regal.page("/contacts/1")

    assert history(page, "SMS", PHONE) == [
        ["2026-02-02 02:42:02", "yes now", "2026-03-15 older than the one before", "-", "-", "- legacy form", "3"],
        ["2026-02-02 02:41:01", "no", "2026-04-01 08:00:00 +00:00", "-", "-", "preference_center", "2"],
        [
            "2026-02-02 02:40:00", "yes", "2026-03-02 14:05:09 +00:00", "203.0.113.9", "“I agree to texts.”",
            "signup_form", "1",
        ],
    ]  # fmt: skip
    assert "SMS Subscribed since 15 Mar 2026 What was said about SMS" in words(page), "what holds now stands above"
    assert page.count('class="current"') == 1
    assert "Voice No Status" in words(page)


def test_each_phone_and_email_and_channel_has_a_history_of_its_own(regal):
    other = "+12125550101"
    yes = {"subscribed": True, "timestamp": "2026-03-02 14:05:09 +00:00", "ip": "203.0.113.9"}
    regal.post(
        {
            "userId": "cust-100",
            "traits": {
                "phones": {PHONE: {"smsOptIn": yes, "voiceOptIn": {"subscribed": False}}, other: {"voiceOptIn": yes}},
                "emails": {"ines@example.com": {"emailOptIn": yes}},
            },
        }
    )
    regal.post({"userId": "cust-100", "traits": {"phones": {PHONE: {"voiceOptIn": yes}}}})
    regal.sandbox.settle()
    page = regal.page("/contacts/1")
    for channel, whose, said in (
        ("SMS", PHONE, ["yes now"]),
        ("Voice", PHONE, ["yes now", "no"]),
        ("Voice", other, ["yes now"]),
        ("Email", "ines@example.com", ["yes now"]),
    ):
        assert [row[1] for row in history(page, channel, whose)] == said
    assert page.count("<caption") == 4


def test_an_event_of_the_history_is_a_click_away(regal):
    for number in range(5):
        regal.post(subscribed(bool(number % 2), timestamp=f"2026-03-0{number + 1} 10:00:00 +00:00"))
    regal.sandbox.settle()
    links = re.findall(r'href="(/activity\?before=\d+)"', regal.page("/contacts/1"))
    assert len(links) == 5
    newest_shown = re.search(r'"timestamp": "2026-03-0(\d)', words(regal.page(links[2])))
    assert newest_shown.group(1) == "3"
