"""The four events: what each accepts and refuses, and that events don't change."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Event, Identify, Page, Phone, Reading, Screen, Track
from tests.events import hostile
from tests.events.saying import GIVEN, MAIL, PHONE, body, faults

NAMED: list[tuple[type[Event], dict[str, Any]]] = [(Identify, {}), (Track, {"event": "Seen"}), (Page, {}), (Screen, {})]


@pytest.mark.parametrize(("event", "needed"), NAMED)
def test_every_event_carries_who_when_and_where_from(event, needed):
    sent = body(event, written=needed, user_id=42, phone=PHONE, email=MAIL, timestamp=GIVEN, event_source="crm")
    assert sent["userId"] == "42"
    assert sent["originalTimestamp"] == "2026-03-02 14:05:09 +00:00"
    assert sent["eventSource"] == "crm"
    assert sent["traits"].keys() == {"phones", "emails"}


@pytest.mark.parametrize(("event", "needed"), NAMED)
def test_an_unknown_field_is_a_fault(event, needed):
    place = "colour"
    assert faults(event, written={**needed, "user_id": "1", place: "red"}) == {
        place: "is not a field of this event; remove it, or put it into traits or properties"
    }


@pytest.mark.parametrize("field", ["call", "promotes", "aliases", "regal_name", "model_config"])
def test_what_a_class_is_cannot_be_written(field):
    assert list(faults(Page, user_id="1", **{field: "x"})) == [field]


@pytest.mark.parametrize(("event", "needed"), NAMED)
def test_an_event_made_by_its_name_says_all_its_faults(event, needed):
    with pytest.raises(InvalidEventError) as caught:
        event(**needed, phone="12", email="nobody")
    assert caught.value.call == event.call
    assert [fault.field for fault in caught.value.faults] == ["phone", "email"]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_track_event_needs_its_name():
    assert faults(Track, user_id="1") == {"event": "is missing"}
    for blank in ("", " ", "\n"):
        assert faults(Track, user_id="1", event=blank) == {"event": "is empty; Regal needs the name of the event"}


def test_regals_own_key_for_the_event_name_is_read():
    assert body(Track, user_id="1", name="Seen")["name"] == "Seen"
    assert list(faults(Track, user_id="1", name="Seen", event="Heard")) == ["event"]


@pytest.mark.parametrize("name", ["identify", "Identify", " IDENTIFY "])
def test_identify_is_no_event_name(name):
    assert list(faults(Track, user_id="1", event=name)) == ["event"]


def test_the_case_of_an_event_name_is_kept():
    assert body(Track, user_id="1", event="Loan Application Approved")["name"] == "Loan Application Approved"


@pytest.mark.parametrize("wrong", [5, True, ["Seen"], b"Seen", {"a": 1}])
def test_names_are_text(wrong):
    assert faults(Track, user_id="1", event=wrong) == {"event": "must be text"}
    assert faults(Page, user_id="1", name=wrong, category=wrong) == {"name": "must be text", "category": "must be text"}
    assert faults(user_id="1", event_source=wrong) == {"event_source": "must be text"}


@pytest.mark.parametrize("field", ["event_source", "name", "category", "user_id"])
def test_text_that_utf8_cannot_carry_is_a_fault(field):
    assert list(faults(Page, written={"email": MAIL, field: "a\ud800"})) == [field]
    assert list(faults(phones={PHONE: {"label": "\udfff"}})) == ["phones[0].label"]


@pytest.mark.parametrize(("event", "field"), [(Identify, "traits"), (Track, "properties"), (Page, "properties")])
@pytest.mark.parametrize("wrong", [5, "text", ["a"], [("a", 1)]])
def test_traits_and_properties_are_objects(event, field, wrong):
    written = {"user_id": "1", field: wrong} | ({"event": "Seen"} if event is Track else {})
    assert list(faults(event, written=written)) == [field]


def test_identify_takes_no_properties_and_no_name():
    assert list(faults(user_id="1", properties={}, name="Seen")) == ["properties", "name"]


def test_a_page_goes_out_under_regals_name_and_keeps_its_own_in_the_properties():
    assert body(Page, user_id="1", name="Pricing", category="Shop", properties={"url": "https://example.com"}) == {
        "userId": "1",
        "name": "pageview",
        "properties": {"url": "https://example.com", "name": "Pricing", "category": "Shop"},
    }
    assert body(Screen, user_id="1", name="Home")["name"] == "screen"


def test_the_reading_decides_about_zones_and_nulls():
    from zoneinfo import ZoneInfo

    reading = Reading(timezone=ZoneInfo("America/New_York"), send_nulls=True)
    sent = body(user_id="1", timestamp="2026-03-02 09:05:09", traits={"plan": None}, reading=reading)
    assert sent["originalTimestamp"] == "2026-03-02 14:05:09 +00:00"
    assert sent["traits"] == {"plan": None}


@pytest.mark.parametrize("nothing", ["", " ", *hostile.NOTHINGS])
def test_no_time_is_no_time(nothing):
    assert "originalTimestamp" not in body(user_id="1", timestamp=nothing)


def test_an_event_cannot_be_changed():
    event = Identify(user_id="1")
    with pytest.raises(ValidationError):
        event.user_id = "2"


def test_an_event_survives_pickling():
    event = Track(event="Seen", phone=PHONE, properties={"at": datetime(2026, 3, 2, tzinfo=UTC)})
    assert pickle.loads(pickle.dumps(event)) == event


def test_a_phone_made_by_hand_does_not_show_its_values():
    for kind, value in ((Phone, "+15555550147"), (Phone, hostile.SECRET_PHONES[2])):
        with pytest.raises(ValidationError) as caught:
            kind(number=value, label=[hostile.NAME], is_primary=hostile.NAME, opt_ins=hostile.NAME)
        for text in (str(caught.value), repr(caught.value)):
            assert not any(secret in text for secret in hostile.SECRETS)
