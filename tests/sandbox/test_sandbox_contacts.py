"""What happens to an event after the 200: its profile, what is stored, which phone is primary."""

from __future__ import annotations

from typing import Any

import pytest

PHONE, OTHER, THIRD = "+12125550100", "+14155550199", "+12025550147"
MAIL, MAIL_2 = "ines@example.com", "lee@example.com"


def phones(*numbers: str, **info: Any) -> dict[str, Any]:
    return {"phones": {number: dict(info) for number in numbers}}


def emails(*addresses: str) -> dict[str, Any]:
    return {"emails": {address: {} for address in addresses}}


def yes(**evidence: Any) -> dict[str, Any]:
    return {"subscribed": True, "timestamp": "2026-03-02 14:05:09 +00:00", "ip": "203.0.113.9", **evidence}


# --- what makes a contact -------------------------------------------------------------------------------------


def test_an_invalid_number_alone_makes_no_contact_and_still_gets_200(regal):
    assert regal.post({"traits": phones("+15555550100")}).status == 200
    assert regal.sandbox.contacts(hidden=True) == []
    assert regal.findings() == ["number_dropped", "nothing_stored"]


def test_an_invalid_number_among_good_identifiers_is_left_out(regal):
    regal.post({"userId": "u1", "traits": phones(PHONE, "+12225555555")})
    contact = regal.sandbox.contact(user_id="u1")
    assert list(contact["phones"]) == [PHONE]
    assert regal.findings() == ["number_dropped"]


def test_numbers_are_read_as_us_numbers_and_kept_in_one_spelling(regal):
    regal.post({"traits": phones("(212) 555-0100")})
    regal.post({"traits": phones("12125550100")})
    assert [list(contact["phones"]) for contact in regal.sandbox.contacts()] == [[PHONE]]


def test_a_user_id_alone_is_held_on_a_hidden_profile_until_a_phone_arrives(regal):
    regal.post({"userId": "u1", "traits": {"plan": "gold"}})
    assert regal.sandbox.contacts() == []
    assert regal.findings() == ["hidden_profile"]
    assert regal.sandbox.contact(user_id="u1") is None
    assert [profile["visible"] for profile in regal.sandbox.contacts(hidden=True)] == [False]
    assert regal.sandbox.stats()["hidden_profiles"] == 1
    regal.post({"userId": "u1", "traits": phones(PHONE)})
    contact = regal.sandbox.contact(user_id="u1")
    assert (contact["traits"], contact["primary_phone"], contact["events"]) == ({"plan": "gold"}, PHONE, [1, 2])
    assert regal.sandbox.stats()["hidden_profiles"] == 0


@pytest.mark.parametrize("traits", [phones(PHONE), emails(MAIL), {"phone": PHONE}, {"email": MAIL}])
def test_a_phone_or_an_email_makes_a_contact(regal, traits):
    regal.post({"traits": traits})
    assert len(regal.sandbox.contacts()) == 1


def test_phones_and_emails_in_an_array_are_ignored(regal):
    regal.post({"userId": "u1", "traits": {"phones": [{"phoneNumber": PHONE}], "emails": [MAIL]}})
    assert regal.findings() == ["list_for_map", "list_for_map", "hidden_profile"]
    assert regal.sandbox.contact(phone=PHONE) is None


def test_an_email_that_is_no_address_is_dropped_and_case_does_not_matter(regal):
    regal.post({"traits": emails("nobody", " Ines@Example.COM ")})
    assert list(regal.sandbox.contacts()[0]["emails"]) == [MAIL]
    assert "email_dropped" in regal.findings()


# --- which contact --------------------------------------------------------------------------------------------


def three_people(regal: Any) -> None:
    regal.post({"userId": "by-phone", "traits": phones(PHONE)})
    regal.post({"userId": "by-mail", "traits": emails(MAIL)})
    regal.post({"userId": "by-id", "traits": phones(OTHER)})


@pytest.mark.parametrize(
    ("order", "winner"),
    [(("phone", "email", "userId"), 1), (("email", "userId", "phone"), 2), (("userId", "phone", "email"), 3)],
)
def test_the_first_identifier_in_the_order_set_decides(run_sandbox, order, winner):
    regal = run_sandbox(lookup_order=order)
    three_people(regal)
    regal.post({"userId": "by-id", "traits": phones(PHONE) | emails(MAIL) | {"plan": "gold"}})
    assert regal.sandbox.events()[-1]["contact"] == winner


def test_phone_comes_before_email_before_user_id_by_default(regal):
    three_people(regal)
    regal.post({"userId": "by-id", "traits": emails(MAIL)})
    regal.post({"userId": "by-mail-2", "traits": phones(PHONE) | emails(MAIL_2)})
    assert [event["contact"] for event in regal.sandbox.events()[-2:]] == [2, 1]


def test_the_primary_phone_of_the_body_is_looked_up_before_its_others(regal):
    three_people(regal)
    regal.post({"traits": {"phones": {PHONE: {}, OTHER: {"isPrimary": True}}}})
    assert regal.sandbox.events()[-1]["contact"] == 3


def test_a_later_user_id_replaces_the_earlier_one_which_keeps_matching(regal):
    regal.post({"userId": "old", "traits": phones(PHONE)})
    regal.post({"userId": "new", "traits": phones(PHONE)})
    assert regal.findings() == ["user_id_replaced"]
    contact = regal.sandbox.contact(user_id="new")
    assert (contact["user_id"], contact["former_user_ids"]) == ("new", ["old"])
    regal.post({"userId": "old", "name": "Lesson Booked"})
    assert regal.sandbox.events()[-1]["contact"] == contact["id"]
    assert len(regal.sandbox.contacts(hidden=True)) == 1


def test_two_people_with_one_landline_become_one_profile(regal):
    regal.post({"userId": "anne", "traits": phones(PHONE) | {"firstName": "Anne"}})
    regal.post({"userId": "ben", "traits": phones(PHONE) | {"firstName": "Ben"}})
    assert [(contact["name"], contact["user_id"]) for contact in regal.sandbox.contacts()] == [("Ben", "ben")]


def test_two_profiles_stay_two_when_an_event_names_both(regal):
    regal.post({"userId": "a", "traits": emails(MAIL) | {"plan": "gold"}})
    regal.post({"userId": "b", "traits": phones(PHONE)})
    regal.post({"traits": phones(PHONE) | emails(MAIL)})
    assert regal.findings() == ["identifier_moved"]
    (visible,) = regal.sandbox.contacts()
    assert (visible["user_id"], list(visible["emails"]), visible["traits"]) == ("b", [MAIL], {})
    assert len(regal.sandbox.contacts(hidden=True)) == 2


def test_a_user_id_leads_to_one_profile_only(regal):
    regal.post({"userId": "a", "traits": phones(PHONE)})
    regal.post({"userId": "b", "traits": phones(OTHER)})
    regal.post({"userId": "b", "traits": phones(PHONE)})
    assert regal.findings() == ["identifier_moved", "user_id_replaced"]
    assert [contact["user_id"] for contact in regal.sandbox.contacts()] == ["b", None]
    assert regal.sandbox.contact(user_id="b")["primary_phone"] == PHONE


def test_consent_goes_along_with_a_number_that_moves(regal):
    regal.post({"userId": "a", "traits": {"emails": {MAIL: {"emailOptIn": {"subscribed": False}}}}})
    regal.post({"traits": phones(PHONE) | emails(MAIL)})
    assert regal.sandbox.contact(phone=PHONE)["emails"][MAIL]["email"]["status"] == "Unsubscribed"


# --- which phone is primary -----------------------------------------------------------------------------------


def primary(regal: Any) -> str:
    return regal.sandbox.contact(user_id="u")["primary_phone"]


def test_the_first_phone_is_primary_and_stays_so(regal):
    regal.post({"userId": "u", "traits": phones(OTHER)})
    regal.post({"userId": "u", "traits": phones(PHONE)})
    assert primary(regal) == OTHER


def test_of_several_new_phones_the_alphanumerically_first_is_primary(regal):
    regal.post({"userId": "u", "traits": phones(OTHER, PHONE, THIRD)})
    assert primary(regal) == THIRD


def test_is_primary_promotes(regal):
    regal.post({"userId": "u", "traits": {"phones": {PHONE: {}, OTHER: {"isPrimary": True}}}})
    assert primary(regal) == OTHER
    regal.post({"userId": "u", "traits": phones(PHONE, isPrimary=True)})
    assert primary(regal) == PHONE
    assert [info["is_primary"] for info in regal.sandbox.contact(user_id="u")["phones"].values()] == [True, False]


def test_is_primary_false_changes_nothing(regal):
    regal.post({"userId": "u", "traits": phones(PHONE)})
    regal.post({"userId": "u", "traits": {"phones": {PHONE: {"isPrimary": False}, OTHER: {"isPrimary": False}}}})
    assert primary(regal) == PHONE


def test_the_legacy_phone_always_promotes_even_an_old_one(regal):
    for number in (PHONE, OTHER, PHONE):
        regal.post({"userId": "u", "traits": {"phone": number}})
        assert primary(regal) == number
    regal.post({"userId": "u", "traits": {"phone": OTHER} | phones(PHONE, isPrimary=True)})
    assert primary(regal) == OTHER


def test_a_primary_phone_without_the_opt_in_the_old_one_had_is_reported_per_channel(regal):
    regal.post({"userId": "u", "traits": phones(PHONE, smsOptIn=yes(), voiceOptIn=yes())})
    regal.post({"userId": "u", "traits": phones(OTHER, isPrimary=True, voiceOptIn=yes())})
    texts = [finding["text"] for finding in regal.sandbox.events()[-1]["findings"]]
    assert texts == [f"primary phone switched to {OTHER} without its own sms opt-in"]


def test_a_primary_phone_with_its_own_answers_is_not_reported(regal):
    regal.post({"userId": "u", "traits": phones(PHONE, smsOptIn=yes(), voiceOptIn=yes())})
    said = {"smsOptIn": yes(), "voiceOptIn": {"subscribed": False}}
    regal.post({"userId": "u", "traits": phones(OTHER, isPrimary=True, **said)})
    assert regal.findings() == []


# --- attributes and activity ----------------------------------------------------------------------------------


def test_attributes_are_merged_and_what_is_not_mentioned_stays(regal):
    regal.post({"traits": phones(PHONE, label="Mobile") | {"firstName": "Ines", "plan": "gold"}})
    regal.post({"traits": phones(PHONE) | {"lastName": "Okafor", "plan": "free"}})
    contact = regal.sandbox.contact(phone=PHONE)
    assert contact["traits"] == {"firstName": "Ines", "lastName": "Okafor", "plan": "free"}
    assert (contact["name"], contact["phones"][PHONE]["label"]) == ("Ines Okafor", "Mobile")


def test_events_and_contact_updates_are_both_kept_and_told_apart(regal):
    regal.post({"userId": "u", "traits": phones(PHONE)})
    regal.post({"userId": "u", "name": "Lesson Booked", "properties": {"subject": "Algebra"}})
    assert regal.sandbox.contact(user_id="u")["events"] == [1, 2]
    assert [event["name"] for event in regal.sandbox.events()] == [None, "Lesson Booked"]


def test_an_event_may_carry_traits_too(regal):
    regal.post({"name": "Quote Requested", "traits": phones(PHONE) | {"plan": "gold"}})
    assert regal.sandbox.contact(phone=PHONE)["traits"] == {"plan": "gold"}
