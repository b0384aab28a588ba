"""Three ways to write an event, one that is sent; faults use the writer's names."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Email, Identify, OptIn, Page, Phone, Track, to_payload
from tests.events import hostile
from tests.events.saying import IP, MAIL, NOW, OTHER, PHONE, body, faults, opt_in, payload, traits

SENT = {"subscribed": True, "timestamp": "2026-03-02 14:05:09 +00:00", "ip": IP}
PLACED = {"subscribed": True, "timestamp": "2026-03-02T14:05:09Z", "ip": IP}


@pytest.mark.parametrize(
    "written",
    [
        {"phone": PHONE, "opt_in": [opt_in()]},
        {"phone": PHONE, "optIn": opt_in()},
        {"traits": {"phone": "(212) 555-0100", "optIn": [opt_in()]}},
        {"traits": {"phone": PHONE}, "opt_in": (opt_in(),)},
        {"phones": {PHONE: {"isPrimary": True, "smsOptIn": PLACED}}},
        {"traits": {"phones": {PHONE: {"isPrimary": True, "smsOptIn": PLACED}}}},
        {"traits": {"phones": {PHONE: {"is_primary": True}}, "opt_in": [opt_in()]}},
        {"phones": [{"number": PHONE, "isPrimary": True, "smsOptIn": PLACED}]},
        {"phones": [{"number": PHONE, "is_primary": True, "opt_ins": [opt_in()]}]},
        {"phones": [Phone(number=PHONE, is_primary=True, opt_ins=[opt_in()])]},
        {"phone": PHONE, "phones": [PHONE], "opt_in": [opt_in()]},
        {"phone": PHONE, "phones": [Phone(number=PHONE)], "opt_in": hostile.NumpyLike([opt_in()])},
        {"phone": PHONE, "phones": hostile.NumpyLike([hostile.Row({"number": "2125550100"})]), "opt_in": opt_in()},
        hostile.Row({"traits": hostile.Row({"phone": PHONE, "optIn": [hostile.Row(opt_in())]})}),
    ],
)
def test_the_same_thing_said_in_any_form_goes_out_the_same(written):
    event = Identify.read(written)
    assert event == Identify(phones={PHONE: {"isPrimary": True, "smsOptIn": PLACED}})
    assert body(written=dict(written)) == {"traits": {"phones": {PHONE: {"isPrimary": True, "smsOptIn": SENT}}}}


def test_emails_are_written_like_phones():
    mail = opt_in(channel="email")
    for written in (
        {"email": MAIL, "opt_in": [mail]},
        {"traits": {"email": " Ines@Example.com", "optIn": [mail]}},
        {"emails": {MAIL: {"isPrimary": True, "emailOptIn": PLACED}}},
        {"emails": [Email(address=MAIL, is_primary=True, opt_ins=(OptIn(**mail),))]},
    ):
        assert traits(**written) == {"emails": {MAIL: {"isPrimary": True, "emailOptIn": SENT}}}


def test_loose_opt_ins_go_where_their_channel_belongs():
    both = traits(phone=PHONE, email=MAIL, opt_in=[opt_in(), opt_in(channel="email")])
    assert set(both["phones"][PHONE]) == {"isPrimary", "smsOptIn"}
    assert set(both["emails"][MAIL]) == {"isPrimary", "emailOptIn"}


def test_loose_opt_ins_belong_to_the_single_phone_and_not_to_others_of_the_map():
    sent = traits(phone=PHONE, phones={OTHER: {}}, opt_in=[opt_in()])
    assert sent["phones"] == {OTHER: {}, PHONE: {"isPrimary": True, "smsOptIn": SENT}}


def test_a_loose_opt_in_beside_several_phones_is_withheld_and_an_opt_out_is_said_of_all():
    made = payload(phones=[PHONE, OTHER], opt_in=[opt_in(), opt_in(False, channel="voice")])
    assert [str(one) for one in made.withheld] == [
        "opt_in sms: the event has several phones; put the opt-in under the one it belongs to"
    ]
    assert {(one.identifier, one.channel, one.subscribed) for one in made.consents} == {
        (PHONE, "voice", False),
        (OTHER, "voice", False),
    }


@pytest.mark.parametrize("event", [Identify, Track])
def test_two_different_single_phones_leave_it_open_whose_the_consent_is(event):
    written = {"phone": PHONE, "traits": {"phone": OTHER}, "opt_in": [opt_in()], "event": "Seen"}
    if event is Identify:
        del written["event"]
    assert list(faults(event, written=written)) == ["traits.phone"]


def test_the_same_single_phone_in_two_places_is_one():
    assert traits(phone=PHONE, traits={"phone": "2125550100"}) == {"phones": {PHONE: {"isPrimary": True}}}


def test_an_opt_in_without_its_phone_or_email_is_withheld_and_the_rest_goes():
    made = payload(user_id="1", traits={"plan": "gold"}, opt_in=[opt_in(), opt_in(channel="email")])
    assert made.body == {"userId": "1", "traits": {"plan": "gold"}}
    assert [str(one) for one in made.withheld] == [
        "opt_in sms: there is no phone that it could belong to",
        "opt_in email: there is no email that it could belong to",
    ]


def test_an_event_that_is_nothing_but_an_opt_in_without_its_phone_is_invalid():
    with pytest.raises(InvalidEventError, match="there is no phone that it could belong to"):
        payload(user_id="1", opt_in=[opt_in()])


def test_an_opt_out_without_its_phone_is_kept_for_the_phones_the_ledger_knows():
    event = Identify(user_id="1", opt_in=[opt_in(False)])
    made = to_payload(event, now=NOW)
    assert [channel for channel, *_ in made.opt_outs_elsewhere] == ["sms"]
    assert to_payload(Identify.read(event.model_dump()), now=NOW) == made, "an event can be read again"
    added = made.with_opt_outs({"phones": [PHONE, OTHER]})
    assert {one.identifier for one in added.consents} == {PHONE, OTHER}
    info = added.body["traits"]["phones"][OTHER]["smsOptIn"]
    assert (info["subscribed"], info["timestamp"]) == (False, SENT["timestamp"])


def test_a_withheld_opt_in_does_not_find_a_phone_when_the_event_is_read_again():
    event = Identify(phone=None, phones=[PHONE], opt_in=[opt_in()])
    again = Identify.read(event.model_dump())
    assert again == event
    assert to_payload(again, now=NOW).consents == ()


def test_no_opt_out_is_lost_where_two_forms_meet_in_one_phone():
    info = {"smsOptIn": {"subscribed": False}, "opt_ins": [opt_in(False, channel="voice")]}
    for written in ({PHONE: info}, [{"number": PHONE, **info}]):
        sent = traits(phones=written)["phones"][PHONE]
        assert sent["smsOptIn"]["subscribed"] is sent["voiceOptIn"]["subscribed"] is False


def test_an_opt_in_whose_channel_contradicts_its_place_is_a_fault():
    assert list(faults(phones={PHONE: {"smsOptIn": opt_in(channel="voice")}})) == ["phones[0].smsOptIn.channel"]
    assert traits(phones={PHONE: {"smsOptIn": opt_in()}}) == {"phones": {PHONE: {"smsOptIn": SENT}}}


def test_a_number_inside_the_map_cannot_replace_the_key():
    assert list(faults(phones={PHONE: {"number": OTHER, "smsOptIn": PLACED}})) == ["phones[0].number"]


@pytest.mark.parametrize("event", [Track, Page])
def test_only_identify_promotes_the_single_phone(event):
    written = {"event": "Seen"} if event is Track else {}
    assert body(event, written=written, phone=PHONE)["traits"] == {"phones": {PHONE: {}}}


def test_what_the_map_says_about_the_primary_phone_is_kept():
    assert traits(phone=PHONE, phones={PHONE: {"isPrimary": False}}) == {"phones": {PHONE: {"isPrimary": False}}}


def test_postal_code_becomes_zipcode():
    assert traits(user_id="1", traits={"address": {"postalCode": "02110", "city": "Boston"}}) == {
        "address": {"zipcode": "02110", "city": "Boston"}
    }


def test_an_empty_alias_does_not_erase_the_real_one():
    for address in ({"zipcode": "02110", "postalCode": None}, {"postalCode": "", "zipcode": "02110"}):
        assert traits(user_id="1", traits={"address": address}) == {"address": {"zipcode": "02110"}}
    assert traits(user_id="1", sub_brand=" ", traits={"subBrand": "acme"}) == {"subBrand": "acme"}


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ({"user_id": "1", "userId": "2"}, "userId"),
        ({"user_id": "1", "timestamp": "2026-01-01", "originalTimestamp": "2026-01-02"}, "originalTimestamp"),
        ({"user_id": "1", "sub_brand": "a", "traits": {"subBrand": "b"}}, "sub_brand"),
        (
            {"user_id": "1", "traits": {"address": {"zipcode": "1", "postalCode": "2"}}},
            "traits.address.postalCode",
        ),
        ({"phones": {PHONE: {"isPrimary": True, "is_primary": False}}}, "phones[0].is_primary"),
        ({"phones": {PHONE: {}, "(212) 555-0100": {}}}, "phones[1]"),
        ({"emails": {MAIL: {}, MAIL.upper(): {}}}, "emails[1]"),
        ({"traits": {"phones": {PHONE: {"isPrimary": True}, OTHER: {"isPrimary": True}}}}, "traits.phones[1]"),
        ({"phone": PHONE, "phones": {OTHER: {"isPrimary": True}}}, "phone"),
    ],
)
def test_what_is_said_twice_is_a_fault_and_never_silently_dropped(written, place):
    assert list(faults(written=written)) == [place]


def test_nulls_count_as_not_written():
    empty = dict.fromkeys(
        ["userId", "phone", "email", "phones", "emails", "traits", "opt_in", "timestamp", "sub_brand"]
    )
    assert body(written=empty, user_id="1") == {"userId": "1"}
    for nothing in hostile.NOTHINGS:
        written = dict.fromkeys(["userId", "phone", "phones", "traits", "optIn", "timestamp", "eventSource"], nothing)
        assert body(written=written, email=MAIL) == {"traits": {"emails": {MAIL: {"isPrimary": True}}}}


def test_blank_identifiers_count_as_not_written():
    assert body(user_id=" ", phone="", email=MAIL) == {"traits": {"emails": {MAIL: {"isPrimary": True}}}}


@pytest.mark.parametrize(
    "written",
    [{}, {"user_id": ""}, {"traits": {"firstName": "Ines"}}, {"phones": {}}, {"phone": float("nan")}, {"phones": []}],
)
def test_an_event_needs_somebody_it_is_about(written):
    assert list(faults(written=written)) == ["user_id, phone, email"]


# All errors at once, with the names that the user wrote.


def test_all_faults_of_an_event_come_in_one_error():
    written = {
        "userId": 1.5,
        "email": "nobody",
        "timestamp": "soon",
        "event_source": 7,
        "colour": "red",
        "traits": {
            "phones": {PHONE: {"label": 5, "smsOptIn": "yes", "emailOptIn": {}}, "12": {"isPrimary": "perhaps"}},
            "firstName": 5,
            "photo": b"",
            "tags": ["a", {1}],
            "optIn": [opt_in(channel="fax"), opt_in(channel="email", timestamp="soon", ip="here")],
            "address": {"postalCode": 2110, "city": "Boston"},
        },
        "sub_brand": 8,
    }
    assert set(faults(written=written)) == {
        "userId",
        "email",
        "timestamp",
        "event_source",
        "colour",
        "traits.phones[0].label",
        "traits.phones[0].smsOptIn",
        "traits.phones[0].emailOptIn",
        "traits.phones[1]",
        "traits.phones[1].isPrimary",
        "traits.firstName",
        "traits.photo",
        "traits.tags[1]",
        "traits.optIn[0].channel",
        "traits.address.postalCode",
        "sub_brand",
    }


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ({"phone": "12"}, "phone"),
        ({"traits": {"email": "12"}}, "traits.email"),
        ({"phones": ["12"]}, "phones[0]"),
        ({"phones": [5]}, "phones[0]"),
        ({"phones": [{"number": PHONE, "opt_ins": 5}]}, "phones[0].opt_ins"),
        ({"phones": [{"number": PHONE, "opt_ins": [opt_in("x")]}]}, "phones[0].opt_ins[0].subscribed"),
        ({"phones": {PHONE: {"smsOptIn": {**PLACED, "subscribed": "x"}}}}, "phones[0].smsOptIn.subscribed"),
        ({"phones": {PHONE: {"smsOptIn": "x"}}}, "phones[0].smsOptIn"),
        ({"phones": {PHONE: 5}}, "phones[0]"),
        ({"phones": {PHONE: {5: 6}}}, "phones[0]"),
        ({"phones": {PHONE: {"opt_ins": [opt_in(channel="email")]}}}, "phones[0]"),
        ({"phone": PHONE, "optIn": opt_in("x")}, "optIn.subscribed"),
        ({"phone": PHONE, "traits": {"smsOptIn": "x"}}, "traits.smsOptIn"),
        ({"phone": PHONE, "opt_in": "yes"}, "opt_in.channel"),
        ({"user_id": "1", "originalTimestamp": "x"}, "originalTimestamp"),
        ({"user_id": "1", "traits": 5}, "traits"),
        ({"user_id": "1", "traits": [5]}, "traits"),
        ({"user_id": "1", "traits": {"phones": [{"phoneNumber": PHONE}]}}, "traits.phones"),
        ({"user_id": "1", "emails": MAIL}, "emails"),
        ({"user_id": "1", 5: 6}, "the event"),
        ({"user_id": "1", "a\ud800": 6}, "the event"),
    ],
)
def test_a_fault_is_named_in_the_writers_words(written: dict[Any, Any], place):
    assert list(faults(written=written)) == [place]


@pytest.mark.parametrize("written", [None, 5, "text", [("user_id", "1")], b"", object()])
def test_what_is_no_object_is_an_invalid_event(written):
    for read in (Identify.read, Identify.model_validate):
        with pytest.raises(InvalidEventError, match="must be an object"):
            read(written)


def test_an_event_that_was_read_already_stays_as_it_is():
    event = Identify(phone=PHONE)
    assert Identify.model_validate(event) is event


def test_the_written_event_is_left_as_it_was():
    address = {"postalCode": "1"}
    written = {"traits": {"phone": PHONE, "optIn": [opt_in()], "address": address}, "sub_brand": "a"}
    copy = {"traits": {"phone": PHONE, "optIn": [opt_in()], "address": {"postalCode": "1"}}, "sub_brand": "a"}
    payload(written=written)
    assert written == copy


def test_unplaced_opt_ins_that_are_no_list_are_a_fault():
    assert faults(user_id="anne", unplaced=5) == {"unplaced": "must be a list, not a int"}
