"""The pages: what a reader can learn from a page alone."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from airflow_provider_regal.sandbox.pages.words import day
from airflow_provider_regal.testing import ManualClock

PHONE = "+12125550100"


def words(page: str) -> str:
    """The text of a page, as read."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def person(number: int = 100, **traits: Any) -> dict[str, Any]:
    return {"userId": f"cust-{number}", "traits": {"phones": {f"+1212555{number:04d}": {}}, **traits}}


def subscribed(value: bool = True, **evidence: Any) -> dict[str, Any]:
    given = {"subscribed": value, "timestamp": "2026-03-02 14:05:09 +00:00", "ip": "203.0.113.9", **evidence}
    return {"userId": "cust-100", "traits": {"firstName": "Ines", "phones": {PHONE: {"smsOptIn": given}}}}


def test_the_audience_tells_who_is_subscribed_to_what_since_when(regal):
    regal.post(subscribed())
    regal.post({"traits": {"emails": {"lee@example.com": {"emailOptIn": {"subscribed": False}}}}})
    regal.sandbox.settle()
    page = words(regal.page("/"))
    assert "Contacts 2" in page
    assert "SMS subscribed 1" in page
    assert f"Ines cust-100 {PHONE} SMS Subscribed since 2 Mar 2026 Voice No Status" in page
    assert "lee@example.com Email Unsubscribed since" in page


@pytest.mark.parametrize("search", ["ines", "INES O", "(212) 555-0100", "555-0100", "cust-100", "@example", "Okafor"])
def test_the_audience_can_be_searched(regal, search):
    regal.post({**person(100, firstName="Ines", lastName="Okafor"), "userId": "cust-100"})
    regal.post({"userId": "cust-100", "traits": {"emails": {"ines@example.com": {}}}})
    regal.post(person(101, firstName="Lee"))
    regal.sandbox.settle()
    page = regal.page("/?search=" + search.replace(" ", "+").replace("+O", "%20O"))
    assert "Ines" in page
    assert "Lee" not in page


def test_a_search_without_result_says_so(regal):
    regal.post(person(100))
    assert "No contact has" in regal.page("/?search=zzz")


def test_the_audience_has_pages(regal):
    for number in range(60):
        regal.post(person(100 + number))
    regal.sandbox.settle()
    first, second = regal.page("/"), regal.page("/?page=2")
    assert (first.count('<td class="when">'), second.count('<td class="when">')) == (50, 10)
    assert "cust-159" in first
    assert "cust-100" in second
    assert "Page 2 of 2" in second
    assert regal.page("/?page=99") == second
    assert "cust-100" not in regal.page("/?page=x")


def test_empty_pages_say_what_to_do(regal):
    assert "No contacts yet" in regal.page("/")
    assert "Nothing has arrived yet" in regal.page("/activity")


def test_the_activity_tells_what_arrived_last_and_how_it_was_answered(run_sandbox):
    clock = ManualClock()
    regal = run_sandbox(rate_limit=50, clock=clock, faults=[{"on": {"requests": [3]}, "do": {"status": 503}}])
    regal.post(person(100, firstName="Ines"))
    clock.advance(61)
    regal.post({"userId": "cust-100", "name": "Lesson Booked"})
    regal.post({"userId": "cust-100", "name": "Lesson Booked"})
    regal.sandbox.settle()
    page = words(regal.page("/activity"))
    assert "Requests 3 Events stored 2 Last second 2 Worst second 2 limit 50" in page
    assert "1 requests 3: status 503 fired 1 \u00d7" in page
    newest_first = (
        r"3 02:41:01 Lesson Booked 503 fault 1 .*"
        r"2 02:41:01 Lesson Booked Ines 200 .*"
        r"1 02:40:00 contact update"
    )
    assert re.search(newest_first, page)


def test_the_activity_tells_what_was_wrong_in_words_with_counts(regal):
    for day_ in range(3):
        regal.post(subscribed(timestamp=None, text=f"copy {day_}"))
    regal.post({"traits": {"phones": {"+15555550100": {}, "+15555550101": {}}}})
    regal.post({"userId": "cust-100", "messageId": "m"})
    regal.post({"userId": "cust-100", "messageId": "m"})
    regal.sandbox.settle()
    page = words(regal.page("/activity"))
    assert "3 opt-ins without timestamp" in page
    assert "2 numbers dropped: not valid phone numbers" in page
    assert "2 top-level keys not in the contract" in page
    assert "1 event received again" in page
    assert "top-level key not in the contract: messageId" in page


def test_the_activity_can_be_narrowed_to_one_kind_of_finding(regal):
    regal.post({"userId": "a", "messageId": "m"})
    regal.post({"userId": "b"})
    regal.sandbox.settle()
    page = words(regal.page("/activity?finding=unknown_top_level_key"))
    assert "Only requests with: 1 top-level key not in the contract" in page
    assert '"userId": "a"' in page
    assert '"userId": "b"' not in page
    assert '"userId": "b"' in words(regal.page("/activity?finding=nonsense"))


def test_a_clean_run_is_called_clean(regal):
    regal.post(person(100))
    regal.sandbox.settle()
    assert "Nothing was wrong" in regal.page("/activity")


def test_the_activity_refreshes_itself_until_paused(regal):
    assert 'http-equiv="refresh"' in regal.page("/activity")
    assert 'http-equiv="refresh"' not in regal.page("/activity?paused")
    assert "/activity?paused=" in regal.page("/activity")


def test_older_activity_is_a_page_further(regal):
    for number in range(60):
        regal.post(person(100 + number))
    regal.sandbox.settle()
    page = regal.page("/activity")
    (older,) = re.findall(r'href="(/activity\?before=[^"]*)"', page)
    assert older == "/activity?before=11"
    assert words(regal.page(older)).count("contact update") == 10


def test_a_hidden_profile_is_called_hidden(regal):
    regal.post({"userId": "u"})
    regal.sandbox.settle()
    assert "Hidden: no phone or email is known" in regal.page("/contacts/1")
    assert "1 profile without phone or email kept hidden" in regal.page("/")


def test_the_pages_say_when_something_was_dropped_from_memory(run_sandbox):
    regal = run_sandbox(keep_events=1, keep_contacts=1)
    assert "dropped from memory" not in regal.page("/")
    regal.post(person(100))
    regal.post(person(101))
    regal.sandbox.settle()
    for path in ("/", "/activity"):
        assert "1 older requests and 1 contacts were dropped from memory" in regal.page(path)
    assert regal.get("/contacts/1", "text/html").status == 404
    regal.post({"userId": "x"})
    regal.sandbox.settle()


def test_what_was_sent_is_shown_and_never_run(regal):
    evil = "<script>alert(1)</script>"
    regal.post(
        {"userId": evil, "name": evil, evil: 1, "traits": {"firstName": evil, evil: evil, "phones": {PHONE: {}}}}
    )
    regal.sandbox.settle()
    for path in ("/", "/activity", "/contacts/1", "/?search=%3Cscript%3E"):
        page = regal.page(path)
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_the_pages_load_nothing_from_outside_and_run_no_script(regal):
    regal.post(person(100))
    regal.sandbox.settle()
    for path in ("/", "/activity", "/contacts/1"):
        reply = regal.get(path, "text/html")
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert not re.search(r'(?:src|href|action)="(?!/|#)', reply.text)
    style = regal.get("/style.css")
    assert style.headers["Content-Type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in style.text
    assert "url(" not in style.text
    assert "@import" not in style.text
    assert regal.get("/icon.svg").status == 200


def test_a_missing_page_shows_the_way(regal):
    reply = regal.get("/contacts/7", "text/html")
    assert reply.status == 404
    assert 'href="/activity"' in reply.text
    assert "/sandbox/stats" in reply.text


def contrast(first: str, second: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)


def test_every_text_colour_can_be_read_on_its_ground(regal):
    light, dark = re.findall(r":root \{(.*?)\}", regal.get("/style.css").text, re.DOTALL)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        pairs = [
            (ink, ground) for ink in ("text", "soft", "accent", "good", "bad", "warn") for ground in ("card", "ground")
        ]
        pairs += [(tone, f"{tone}-ground") for tone in ("good", "bad", "warn")] + [("soft", "none-ground")]
        for ink, ground in pairs:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def test_days_are_written_for_people():
    assert [day("2026-03-02T14:05:09Z"), day("whenever"), day(None)] == ["2 Mar 2026", "whenever", ""]
