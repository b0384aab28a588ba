"""Phones and emails as they are sent: labels, the primary flag, no duplicates."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airflow_provider_regal.events import Email, Phone
from tests.events import hostile
from tests.events.saying import MAIL, OTHER, PHONE, faults, opt_in, traits


def test_a_phone_keeps_its_label_and_flag():
    assert traits(phones={PHONE: {"label": "Mobile", "isPrimary": True}})["phones"] == {
        PHONE: {"label": "Mobile", "isPrimary": True}
    }


@pytest.mark.parametrize(("written", "sent"), [("false", False), (0, False), ("true", True), (1, True)])
def test_the_primary_flag_is_a_boolean(written, sent):
    assert traits(phones={PHONE: {"isPrimary": written}})["phones"][PHONE]["isPrimary"] is sent


@pytest.mark.parametrize("nothing", hostile.NOTHINGS)
def test_an_empty_label_or_flag_is_left_out(nothing):
    for written in ({PHONE: {"label": nothing, "isPrimary": nothing}}, {PHONE: nothing}):
        assert traits(phones=written)["phones"] == {PHONE: {}}
    assert traits(phones=[{"number": PHONE, "label": nothing}, nothing])["phones"] == {PHONE: {}}


def test_a_stray_primary_flag_is_a_fault():
    assert faults(phones={PHONE: {"isPrimary": "yes"}}) == {"phones[0].isPrimary": "must be true or false"}


def test_two_spellings_of_one_number_are_one_phone():
    assert list(faults(phones=[PHONE, "(212) 555-0100"])) == ["phones[1]"]


def test_only_one_phone_and_one_email_can_be_primary():
    assert list(faults(phones={PHONE: {"isPrimary": True}, OTHER: {"isPrimary": True}})) == ["phones[1]"]
    assert list(faults(emails=[{"address": a, "is_primary": 1} for a in (MAIL, "b@x.org", "c@x.org")])) == [
        "emails[1]",
        "emails[2]",
    ]


def test_consent_cannot_belong_to_the_wrong_kind_of_contact():
    with pytest.raises(ValidationError, match="an opt-in for email cannot belong to a phone"):
        Phone(number=PHONE, opt_ins=[opt_in(channel="email")])
    with pytest.raises(ValidationError, match="an opt-in for sms cannot belong to an email"):
        Email(address=MAIL, opt_ins=[opt_in()])
    assert list(faults(emails={MAIL: {"smsOptIn": {"subscribed": False}}})) == ["emails[0].smsOptIn"]


def test_an_email_among_phones_is_a_fault():
    assert set(faults(phones=[Email(address=MAIL)])) == {"phones[0]", "phones[0].address"}
