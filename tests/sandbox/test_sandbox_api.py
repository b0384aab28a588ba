"""The side API."""

from __future__ import annotations

import json

import pytest

PHONE, MAIL = "+12125550100", "ines@example.com"
BODY = {"userId": "u1", "traits": {"firstName": "Ines", "phones": {PHONE: {}}, "emails": {MAIL: {}}}}


def test_contacts_are_listed_the_one_changed_last_first_and_found_by_identifier(regal):
    regal.post(BODY)
    regal.post({"userId": "u2", "traits": {"phones": {"+14155550199": {}}}})
    regal.post({"userId": "u3"})
    regal.sandbox.settle()

    def found(query: str) -> list[str]:
        return [contact["user_id"] for contact in regal.get(f"/sandbox/contacts{query}").json]

    assert found("") == ["u2", "u1"]
    assert found("?hidden=true") == ["u3", "u2", "u1"]
    assert found("?phone=%2B12125550100") == found("?phone=2125550100") == found("?email=INES@example.com") == ["u1"]
    assert found("?user_id=u1&email=ines@example.com") == ["u1"]
    assert found("?user_id=u2&email=ines@example.com") == found("?user_id=u3") == found("?phone=nonsense") == []
    assert found("?user_id=u3&hidden=true") == ["u3"]


def test_one_contact_has_an_address_of_its_own(regal):
    regal.post(BODY)
    regal.sandbox.settle()
    contact = regal.get("/sandbox/contacts/1").json
    assert contact == regal.sandbox.contact(phone=PHONE)
    assert (contact["name"], contact["primary_phone"], contact["primary_email"]) == ("Ines", PHONE, MAIL)
    reply = regal.get("/sandbox/contacts/99", accept="text/html")
    assert reply.status == 404
    assert "GET /sandbox/contacts" in reply.json["there_is"]


def test_events_are_listed_newest_last_with_all_there_is_to_know(regal):
    for number in range(3):
        regal.post(BODY | {"eventSource": str(number)})
    regal.post(BODY, key="wrong")
    regal.sandbox.settle()
    events = regal.get("/sandbox/events").json
    assert [event["number"] for event in events] == [1, 2, 3, 4]
    assert events[0] == {
        "number": 1, "received_at": events[0]["received_at"], "answer": 200, "stored": True, "processed": True,
        "fault": None, "name": None, "contact": 1, "duplicate_of": None, "findings": [],
        "body": BODY | {"eventSource": "0"},
    }  # fmt: skip
    assert [event["number"] for event in regal.get("/sandbox/events?after=2").json] == [3, 4]
    assert [event["number"] for event in regal.get("/sandbox/events?stored=true").json] == [1, 2, 3]
    assert [event["answer"] for event in regal.get("/sandbox/events?stored=false").json] == [401]


@pytest.mark.parametrize(
    "path",
    ["/sandbox/events?after=x", "/sandbox/events?before=3", "/sandbox/events?stored=yes", "/sandbox/contacts?name=x"],
)
def test_a_parameter_that_cannot_be_used_is_refused_in_words(regal, path):
    reply = regal.get(path)
    assert reply.status == 400
    assert "must be" in reply.json["message"] or "unknown parameter" in reply.json["message"]


def test_stats_are_the_same_over_http_and_in_python(regal):
    regal.post(BODY)
    regal.sandbox.settle()
    stats = regal.get("/sandbox/stats").json
    assert stats | {"rate_now": 0} == regal.sandbox.stats() | {"rate_now": 0}
    assert (stats["requests"], stats["pending"], stats["contacts"]) == (1, 0, 1)


def test_answers_add_up_to_requests(regal):
    regal.post(BODY)
    regal.post(BODY, key=None)
    regal.post(raw=b"")
    stats = regal.sandbox.stats()
    assert stats["by_status"] == {"200": 1, "400": 1, "401": 1}
    assert sum(stats["by_status"].values()) == stats["requests"]


def test_reset_forgets_data_and_counts_and_keeps_the_rules(run_sandbox):
    regal = run_sandbox(faults=[{"on": {"requests": [1], "times": 1}, "do": {"status": 500}}])
    assert [regal.post(BODY).status for _ in range(2)] == [500, 200]
    assert regal.request("POST", "/sandbox/reset").status == 200
    stats = regal.sandbox.stats()
    assert (stats["requests"], stats["stored"], stats["contacts"], stats["faults_fired"]) == (0, 0, 0, 0)
    assert stats["contract_findings"] == stats["behaviour_findings"] == stats["by_status"] == {}
    assert regal.sandbox.events() == regal.sandbox.contacts(hidden=True) == []
    assert regal.post(BODY).status == 500  # request 1 again: the rule starts counting anew
    assert regal.sandbox.stats()["duplicates"] == 0


def test_faults_are_read_and_replaced_over_http(regal):
    rules = [{"on": {"from": 1, "to": 5}, "do": {"status": 503, "retry_after": 2}}]
    reply = regal.request("PUT", "/sandbox/faults", json.dumps(rules).encode())
    assert reply.json == {"rules": rules, "fired": [0]}
    assert regal.post(BODY).status == 503
    assert regal.get("/sandbox/faults").json == {"rules": rules, "fired": [1]}
    regal.request("PUT", "/sandbox/faults", b"[]")
    assert regal.post(BODY).status == 200


@pytest.mark.parametrize(
    ("body", "word"), [(b'[{"do": {"statsu": 1}}]', "rule 1: unknown key 'statsu'"), (b"{", "JSON"), (b"{}", "list")]
)
def test_rules_that_cannot_be_used_are_refused_and_the_old_ones_stay(regal, body, word):
    regal.sandbox.set_faults([{"do": {"status": 500}}])
    reply = regal.request("PUT", "/sandbox/faults", body)
    assert reply.status == 400
    assert word in reply.json["message"]
    assert regal.post(BODY).status == 500


def test_a_revoked_key_is_refused_from_then_on_and_the_new_one_accepted(regal):
    assert regal.post(BODY).status == 200
    assert regal.request("PUT", "/sandbox/api-key", b'{"api_key": "another"}').status == 200
    assert regal.post(BODY).status == 401
    assert regal.post(BODY, key="another").status == 200


@pytest.mark.parametrize("body", [b'{"api_key": " "}', b'{"api_key": 7}', b'{"key": "x"}', b"{}", b"["])
def test_what_can_be_no_key_is_refused_and_the_old_one_stays(regal, body):
    assert regal.request("PUT", "/sandbox/api-key", body).status == 400
    assert regal.post(BODY).status == 200


def test_text_that_is_half_a_character_does_no_harm(regal):
    regal.post(raw=rb'{"userId": "\ud800", "traits": {"phones": {"+12125550100": {}}, "note": "\udfff"}}')
    assert regal.sandbox.contacts()[0]["user_id"] == "\ud800"
    assert regal.get("/sandbox/events").status == 200
    assert "+12125550100" in regal.page("/contacts/1")
    assert regal.get("/", "text/html").status == regal.get("/activity", "text/html").status == 200
