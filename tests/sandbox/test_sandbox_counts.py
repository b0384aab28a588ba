"""Counting and remembering: duplicates, types, limits of memory."""

from __future__ import annotations

from airflow_provider_regal.sandbox.bodies import Repeats
from airflow_provider_regal.sandbox.processing.directory import Directory
from airflow_provider_regal.sandbox.processing.findings import Finding, Tally, counted

PHONE = "+12125550100"
BODY = {"userId": "u", "name": "Lesson Booked", "traits": {"phones": {PHONE: {}}}}


def numbered(number: int) -> dict:
    return {"userId": f"u{number}", "traits": {"phones": {f"+1212555{number:04d}": {}}}}


def test_the_same_body_again_is_a_duplicate_kept_and_counted(regal):
    regal.post(BODY)
    regal.post(raw=b'{ "traits": {"phones": {"+12125550100": {}}}, "name": "Lesson Booked",  "userId": "u" }')
    regal.post(BODY | {"userId": "v"})
    stats = regal.sandbox.stats()
    assert (stats["duplicates"], stats["duplicate_events"], stats["stored"]) == (1, 1, 3)
    assert [event["duplicate_of"] for event in regal.sandbox.events()] == [None, 1, None]
    assert regal.sandbox.contact(phone=PHONE)["events"] == [1, 2, 3]
    assert stats["behaviour_findings"]["duplicate"]["text"] == "1 event received again"


def test_a_repeated_contact_update_is_a_duplicate_but_no_duplicate_event(regal):
    for _ in range(3):
        regal.post(numbered(100))
    stats = regal.sandbox.stats()
    assert (stats["duplicates"], stats["duplicate_events"]) == (2, 0)


def test_what_was_not_stored_is_no_duplicate(run_sandbox):
    regal = run_sandbox(faults=[{"on": {"requests": [1]}, "do": {"status": 500}}])
    assert [regal.post(BODY).status for _ in range(2)] == [500, 200]
    assert regal.sandbox.stats()["duplicates"] == 0


def test_a_retry_after_an_ambiguous_answer_is_a_duplicate(run_sandbox):
    regal = run_sandbox(faults=[{"on": {"requests": [1]}, "do": {"status": 504, "store": True}}])
    assert [regal.post(BODY).status for _ in range(2)] == [504, 200]
    assert regal.sandbox.stats()["duplicate_events"] == 1


def test_of_very_many_bodies_the_oldest_are_no_longer_recognised():
    repeats = Repeats(keep=2)
    assert [repeats.seen({"n": number}, number) for number in (1, 2, 3)] == [None, None, None]
    assert repeats.seen({"n": 3}, 4) == 3
    assert repeats.seen({"n": 1}, 5) is None
    assert [repeats.seen({"n": number}, 6) for number in (3, 7)] == [3, None]
    assert repeats.seen({"n": 3}, 8) == 3  # seen again, so it is among the newest


def test_the_type_of_a_trait_is_fixed_by_its_first_value(regal):
    user = {"userId": "u"}
    regal.post({**user, "traits": {"amount": 3, "tags": ["a"], "note": None}})
    regal.post({**user, "traits": {"amount": 4.5, "tags": ["b"], "note": "first real value"}})
    assert regal.sandbox.stats()["type_mismatches"] == []
    assert regal.post({**user, "traits": {"amount": "3", "tags": {"a": 1}, "note": True}}).status == 200
    texts = [finding["text"] for finding in regal.sandbox.events()[-1]["findings"]]
    assert texts[:3] == [
        "type changed: amount was number, now text",
        "type changed: tags was list, now object",
        "type changed: note was text, now boolean",
    ]
    assert regal.sandbox.stats()["type_mismatches"][0] == {
        "where": "trait", "event_name": None, "name": "amount", "first": "number", "now": "text", "count": 1,
        "events": [3],
    }  # fmt: skip


def test_the_type_of_a_property_is_fixed_per_event_name_and_account_wide(regal):
    regal.post({"userId": "a", "name": "Booked", "properties": {"price": 45}})
    regal.post({"userId": "b", "name": "Cancelled", "properties": {"price": "none"}})
    assert regal.sandbox.stats()["type_mismatches"] == []
    for user in ("b", "c"):
        regal.post({"userId": user, "name": "Booked", "properties": {"price": "45"}})
    (mismatch,) = regal.sandbox.stats()["type_mismatches"]
    assert (mismatch["where"], mismatch["event_name"], mismatch["count"], mismatch["events"]) == (
        "property", "Booked", 2, [3, 4],
    )  # fmt: skip


def test_property_names_are_counted_and_too_many_are_reported(regal):
    for part in range(2):
        properties = {f"p{number}": 1 for number in range(part * 4500, (part + 1) * 4500)}
        regal.post({"userId": "a", "name": "Wide", "properties": properties})
    stats = regal.sandbox.stats()
    assert stats["property_names"] == 9000
    assert stats["behaviour_findings"]["too_many_property_names"]["count"] == 1000


def test_only_the_newest_events_are_kept_and_the_counts_stay_exact(run_sandbox):
    regal = run_sandbox(keep_events=3)
    for number in range(5):
        regal.post(numbered(100 + number))
    assert [event["number"] for event in regal.sandbox.events()] == [3, 4, 5]
    stats = regal.sandbox.stats()
    assert (stats["requests"], stats["stored"], stats["forgotten"]["events"]) == (5, 5, 2)
    assert stats["by_status"] == {"200": 5}
    assert len(regal.sandbox.contacts()) == 5


def test_large_bodies_are_forgotten_sooner(run_sandbox):
    regal = run_sandbox(keep_body_bytes=1000)
    for number in range(4):
        regal.post({"userId": str(number), "traits": {"note": "x" * 400}})
    assert [event["number"] for event in regal.sandbox.events()] == [3, 4]


def test_only_the_contacts_changed_last_are_kept_and_the_counts_stay_exact(run_sandbox):
    regal = run_sandbox(keep_contacts=2)
    for number in (100, 101, 100, 102):
        regal.post(numbered(number))
    assert [contact["user_id"] for contact in regal.sandbox.contacts()] == ["u102", "u100"]
    stats = regal.sandbox.stats()
    assert (stats["contacts"], stats["forgotten"]["contacts"]) == (3, 1)


def test_a_forgotten_profile_is_not_found_again_by_any_identifier():
    directory = Directory(("phone", "email", "userId"), keep=1)
    first = directory.create(0.0)
    first.user_id, first.former_user_ids = "new", ["old"]
    for user_id in ("new", "old"):
        directory.claim("userId", user_id, first)
    directory.touch(directory.create(1.0), 1.0)
    assert [directory.owner("userId", user_id) for user_id in ("new", "old")] == [None, None]
    assert directory.forgotten_hidden == 1


def test_findings_are_counted_by_kind_and_the_most_frequent_come_first():
    tally = Tally()
    tally.add(1, [Finding("empty_text", "x"), Finding("wrong_type", "y")])
    tally.add(2, [Finding("wrong_type", "y"), Finding("wrong_type", "z"), Finding("duplicate", "again")])
    found = tally.to_json("contract")
    assert list(found) == ["wrong_type", "empty_text"]
    assert found["wrong_type"] == {"count": 3, "text": "3 values of the wrong type", "events": [1, 2]}
    assert list(tally.to_json("behaviour")) == ["duplicate"]


def test_a_count_is_put_before_its_noun():
    assert [counted(1, "opt-in", "opt-ins"), counted(12_000, "opt-in", "opt-ins")] == ["1 opt-in", "12,000 opt-ins"]
