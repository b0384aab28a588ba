"""The consent rules: nothing invented, no opt-out lost, unknown left out."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_provider_regal.events import ConsentPolicy, OptIn, Phone, Reading, Track
from tests.events import hostile
from tests.events.saying import (
    GIVEN,
    IP,
    MAIL,
    NO_IP_NEEDED,
    NOW,
    PHONE,
    faults,
    opt_in,
    payload,
    reasons,
    sent,
)

# Rule 1: no evidence, no opt-in.


def test_an_opt_in_with_its_evidence_is_sent():
    assert sent(opt_in(text="I agree.", source="form")) == {
        "sms": {
            "subscribed": True,
            "timestamp": "2026-03-02 14:05:09 +00:00",
            "ip": IP,
            "text": "I agree.",
            "source": "form",
        }
    }


@pytest.mark.parametrize("missing", [None, "", "  ", *hostile.NOTHINGS])
def test_an_opt_in_without_a_timestamp_is_withheld(missing):
    entry = {**opt_in(), "timestamp": missing}
    assert sent(entry) == {}
    assert reasons(entry) == ["no timestamp: send the time the person agreed"]


@pytest.mark.parametrize("missing", [None, "", "\t", *hostile.NOTHINGS])
def test_an_opt_in_without_an_ip_is_withheld(missing):
    entry = {**opt_in(), "ip": missing}
    assert sent(entry) == {}
    (reason,) = reasons(entry)
    assert reason.startswith("no ip")
    assert sent(entry, policy=NO_IP_NEEDED)["sms"]["subscribed"] is True


def test_the_rest_of_the_event_goes_without_the_withheld_opt_in():
    made = payload(phone=PHONE, traits={"plan": "gold"}, opt_in=[opt_in(timestamp=None), opt_in(channel="voice")])
    assert made.body["traits"]["plan"] == "gold"
    assert set(made.body["traits"]["phones"][PHONE]) == {"isPrimary", "voiceOptIn"}
    assert [str(withheld) for withheld in made.withheld] == [
        "phones[0] sms: no timestamp: send the time the person agreed"
    ]


def test_an_opt_in_whose_time_cannot_be_read_is_withheld_and_the_others_go():
    made = payload(traits={"phone": PHONE, "optIn": [opt_in(), opt_in(channel="voice", timestamp="soon")]})
    assert [(one.channel, one.subscribed) for one in made.consents] == [("sms", True)]
    reason = "phones[0] voice: the timestamp can't be read, so it is not evidence; write "
    reason += "ISO 8601 (2026-03-02T14:05:09Z), 'YYYY-MM-DD HH:MM:SS +00:00' or epoch seconds"
    assert [str(one) for one in made.withheld] == [reason]


@pytest.mark.parametrize("bad", ["203.0.113.777", "localhost", "fe80::1%eth0", "10.0.0.0/8", 3405803785, b"\x7f\0\0\1"])
def test_an_opt_in_whose_ip_cannot_be_read_is_withheld(bad):
    assert sent(opt_in(ip=bad)) == {}
    assert reasons(opt_in(ip=bad)) == ["the ip can't be read, so it is not evidence"]


NOT_OF_THE_INTERNET = (
    "0.0.0.0", "127.0.0.1", "::1", "::", "10.1.2.3", "172.16.254.1", "192.168.0.1", "169.254.1.1", "100.64.0.1",
    "fe80::1", "fd00::1", "::ffff:10.0.0.1", "224.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize("address", NOT_OF_THE_INTERNET)
def test_an_address_that_no_person_has_is_no_evidence(address):
    assert sent(opt_in(ip=address)) == {}
    (reason,) = reasons(opt_in(ip=address))
    assert reason.startswith("the ip is not one of the internet")
    assert sent(opt_in(ip=address), policy=NO_IP_NEEDED)["sms"]["subscribed"] is True


@pytest.mark.parametrize("address", ["8.8.8.8", "172.15.0.1", "100.63.0.1", "2a00:1450:4001::1", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is(address):
    assert sent(opt_in(ip=address))["sms"]["subscribed"] is True


@pytest.mark.parametrize(
    ("written", "kept"),
    [(" 203.0.113.9 ", IP), (ip_address(IP), IP), ("2001:DB8::0001", "2001:db8::1")],
)
def test_an_ip_is_kept_in_its_usual_form(written, kept):
    assert sent(opt_in(ip=written))["sms"]["ip"] == kept


# Rule 2: an opt-out is never held back for its evidence.

BARE = {"subscribed": False}


def test_an_opt_out_needs_no_evidence():
    assert sent({"channel": "sms", "subscribed": False}) == {"sms": BARE}
    assert reasons({"channel": "sms", "subscribed": False}) == []


def test_an_opt_out_keeps_the_evidence_that_can_be_read():
    entry = opt_in(False, ip="nonsense", text="STOP", source=["a", "list"])
    assert sent(entry) == {"sms": {**BARE, "timestamp": "2026-03-02 14:05:09 +00:00", "text": "STOP"}}


@hostile.many
@given(
    st.dictionaries(st.sampled_from(["timestamp", "ip", "text", "source", "subscribedAt"]), hostile.values),
    st.sampled_from([False, "false", " FALSE ", 0, hostile.NumpyLike(False)]),
    st.sampled_from([dict, MappingProxyType, hostile.Row]),
)
def test_no_evidence_however_bad_holds_an_opt_out_back(evidence, no, kind):
    entry = kind({"channel": "sms", "subscribed": no, **evidence})
    assert sent(entry)["sms"]["subscribed"] is False
    placed = kind({"subscribed": no, **evidence})
    made = payload(phones={PHONE: {"smsOptIn": placed}}, traits={"emails": {MAIL: {"emailOptIn": placed}}})
    assert made.body["traits"]["phones"][PHONE]["smsOptIn"]["subscribed"] is False
    assert made.body["traits"]["emails"][MAIL]["emailOptIn"]["subscribed"] is False
    assert OptIn.model_validate(dict(entry)).subscribed is False


@pytest.mark.parametrize("time", ["2999-01-01", "1970-01-01", "0001-01-01T00:00:00", "garbage", 10**400, None, ""])
@pytest.mark.parametrize("order", [1, -1])
def test_an_opt_out_of_an_impossible_time_is_sent_and_beats_an_older_opt_in(time, order):
    both = [opt_in(), {**opt_in(False), "timestamp": time}]
    assert sent(*both[::order]) == {"sms": {**BARE, "ip": IP}}


DAY = "2026-03-02"


@pytest.mark.parametrize("day", [DAY, f" {DAY} ", "20260302", date(2026, 3, 2), hostile.NumpyLike(date(2026, 3, 2))])
@pytest.mark.parametrize("hour", ["00:00:00", "12:00:00", "23:59:59"])
@pytest.mark.parametrize("order", [1, -1])
def test_an_opt_out_of_a_day_wins_over_every_opt_in_of_that_day(day, hour, order):
    both = [opt_in(timestamp=f"{DAY}T{hour}Z"), opt_in(False, timestamp=day)]
    assert sent(*both[::order])["sms"] == {**BARE, "timestamp": f"{DAY} 23:59:59 +00:00", "ip": IP}


def test_an_opt_out_of_a_day_loses_to_the_opt_in_of_the_next_and_says_so_wherever_it_is_read():
    assert sent(opt_in(timestamp="2026-03-03T00:00:00Z"), opt_in(False, timestamp=DAY))["sms"]["subscribed"] is True
    of_the_day = {"channel": "sms", "subscribed": False, "subscribedAt": DAY}
    assert sent(of_the_day)["sms"]["timestamp"] == f"{DAY} 23:59:59 +00:00"
    new_york = Reading(timezone=ZoneInfo("America/New_York"))
    made = payload(phones={PHONE: {}}, opt_in=[of_the_day], reading=new_york)
    assert made.body["traits"]["phones"][PHONE]["smsOptIn"]["timestamp"] == "2026-03-03 04:59:59 +00:00"


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(hours=23)])
def test_a_no_of_the_next_hours_counts_until_then_and_goes_without_its_time(ahead):
    (consent,) = payload(phones={PHONE: {}}, opt_in=[opt_in(False, timestamp=NOW + ahead)]).consents
    assert consent.at == NOW + ahead
    assert sent(opt_in(False, timestamp=NOW + ahead, ip=None)) == {"sms": BARE}


def test_times_are_compared_in_whole_seconds_and_in_the_same_second_the_no_wins():
    second = "2026-03-02T14:05:09"
    both = [opt_in(timestamp=f"{second}.900Z"), opt_in(False, timestamp=f"{second}.100Z")]
    assert sent(*both)["sms"]["subscribed"] is sent(*both[::-1])["sms"]["subscribed"] is False


@pytest.mark.parametrize(
    "written", ["2026-11-01 01:30:00", datetime(2026, 11, 1, 1, 30, tzinfo=UTC).replace(tzinfo=None)]
)
def test_in_the_hour_that_the_clock_shows_twice_a_yes_is_of_the_first_and_a_no_of_the_second(written):
    new_york = Reading(timezone=ZoneInfo("America/New_York"))
    at = {
        subscribed: payload(phones={PHONE: {}}, opt_in=[opt_in(subscribed, timestamp=written)], reading=new_york)
        for subscribed in (True, False)
    }
    assert at[True].consents[0].at == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert at[False].consents[0].at == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)


PERSON = ConsentPolicy(opt_out_scope="person")


def test_one_no_closes_all_channels_of_the_phone_but_for_a_newer_yes():
    no = opt_in(False, timestamp="2026-03-03T00:00:00Z")
    assert {channel: one["subscribed"] for channel, one in sent(no, policy=PERSON).items()} == {
        "sms": False, "voice": False,
    }  # fmt: skip
    older, newer = (opt_in(channel="voice", timestamp=f"2026-03-0{day}T00:00:00Z") for day in (2, 4))
    assert sent(no, older, policy=PERSON)["voice"]["subscribed"] is False
    assert sent(no, newer, policy=PERSON)["voice"]["subscribed"] is True
    assert sent(no, older)["voice"]["subscribed"] is True, "by default a channel is closed alone"


def test_a_no_of_an_email_closes_no_phone():
    made = payload(phone=PHONE, email=MAIL, opt_in=[opt_in(False, channel="email")], policy=PERSON)
    assert [(one.identifier, one.channel) for one in made.consents] == [(MAIL, "email")]


def test_an_opt_out_of_today_counts_until_its_end():
    today = opt_in(False, timestamp=f"{NOW:%Y-%m-%d}", ip=None)
    assert sent(today, opt_in(timestamp=NOW)) == {"sms": BARE}
    (consent,) = payload(phones={PHONE: {}}, opt_in=[today]).consents
    assert consent.at == datetime(NOW.year, NOW.month, NOW.day, 23, 59, 59, tzinfo=UTC)


def test_an_opt_in_of_a_day_counts_from_its_first_moment():
    assert sent(opt_in(timestamp=DAY), opt_in(False, timestamp=f"{DAY}T00:00:01Z"))["sms"]["subscribed"] is False
    assert sent(opt_in(timestamp=DAY))["sms"]["timestamp"] == f"{DAY} 00:00:00 +00:00"


def test_a_withheld_opt_in_does_not_push_an_older_opt_out_aside():
    newer = opt_in(timestamp="2026-05-01", ip=None)
    assert sent(newer, opt_in(False, timestamp="2026-04-01"))["sms"]["subscribed"] is False


# Rule 4: unknown is left out; only unmistakable booleans count as yes or no.


@pytest.mark.parametrize("unknown", [None, "", " ", *hostile.NOTHINGS])
def test_unknown_consent_is_left_out_and_never_sent_as_a_no(unknown):
    entry = {**opt_in(), "subscribed": unknown}
    placed = {"subscribed": unknown, "timestamp": GIVEN}
    for written in (
        {"opt_in": [entry]},
        {"opt_in": entry},
        {"traits": {"optIn": [entry]}},
        {"phones": [{"number": PHONE, "opt_ins": [entry]}]},
        {"phones": {PHONE: {"smsOptIn": placed}}},
        {"phones": {PHONE: {"smsOptIn": None}}},
    ):
        made = payload(written={"phone": PHONE, **written})
        assert made.body["traits"]["phones"] == {PHONE: {"isPrimary": True}}
        assert made.withheld == ()


NOES = (
    "false", "False", " FALSE ", "f", "no", "N", "off", 0, False, hostile.NumpyLike(False), 0.0, -0.0, Decimal(0),
    Decimal("0.00"), "0", "0.0", " 0.00 ", b"\0", hostile.NumpyLike(0.0), "unsubscribed", "UNSUBSCRIBED", "opted_out",
    "opted-out", "Opted Out", "opt-out", "opt_out", "OPTOUT", "stop", "STOP", " Stop\n", "revoked", "denied",
)  # fmt: skip


@pytest.mark.parametrize("no", NOES)
def test_a_no_never_subscribes_anyone(no):
    assert sent(opt_in(no))["sms"]["subscribed"] is False


YESES = ("true", "TRUE", "t", 1, True, hostile.NumpyLike(True), 1.0, Decimal("1.0"), "1", "1.0", b"\1")


@pytest.mark.parametrize("yes", YESES)
def test_a_yes_is_sent_as_a_boolean(yes):
    assert sent(opt_in(yes))["sms"]["subscribed"] is True


@pytest.mark.parametrize("stray", ["yes", "y", "on", "10", "truth", 2, -1, 0.5, "1e0", [True], {"a": 1}, b"true"])
def test_anything_else_is_a_fault(stray):
    assert faults(phone=PHONE, opt_in=[opt_in(stray)]) == {"opt_in[0].subscribed": "must be true or false"}


@hostile.many
@given(hostile.values)
def test_only_a_yes_subscribes(value):
    try:
        subscribed = OptIn(channel="sms", subscribed=value).subscribed
    except ValidationError:
        return
    if subscribed:
        value = value.value if isinstance(value, hostile.NumpyLike) else value
        assert value is True or value == 1 or value.strip().lower() in ("true", "t", "1")


@pytest.mark.parametrize("form", [False, True])
def test_an_opt_in_that_does_not_say_yes_or_no_is_a_fault(form):
    entry = {"channel": "sms", "timestamp": GIVEN, "ip": IP}
    written = {"phones": {PHONE: {"smsOptIn": {"ip": IP}}}} if form else {"phone": PHONE, "opt_in": [entry]}
    (fault,) = faults(written=written).items()
    assert fault[0].endswith(".subscribed")


# The model itself.


def test_segments_old_key_for_the_time_is_read():
    entry = {**opt_in(timestamp=None), "subscribedAt": GIVEN}
    assert sent(entry)["sms"]["timestamp"] == "2026-03-02 14:05:09 +00:00"


def test_the_new_key_wins_over_the_old_one_and_an_empty_one_does_not():
    both = {**opt_in(), "subscribedAt": "2020-01-01"}
    assert sent(both)["sms"]["timestamp"].startswith("2026")
    for empty in ({"timestamp": "", "subscribedAt": GIVEN}, {"subscribedAt": None}):
        assert sent({**opt_in(), **empty})["sms"]["timestamp"].startswith("2026")


def test_an_unknown_member_of_an_opt_in_is_a_fault():
    assert list(faults(phone=PHONE, opt_in=[opt_in(colour="red")])) == ["opt_in[0].colour"]


def test_an_unknown_member_of_an_opt_out_holds_nothing_back():
    assert sent({"channel": "sms", "subscribed": False, "colour": "red", "optInDate": 5}) == {"sms": BARE}


@pytest.mark.parametrize("channel", ["SMS", "Sms", " sms", "sms\t"])
@pytest.mark.parametrize("subscribed", [True, False])
def test_a_channel_is_read_whatever_its_case_and_the_space_around_it(channel, subscribed):
    entry = opt_in(subscribed, channel=channel)
    assert sent(entry)["sms"]["subscribed"] is subscribed
    made = payload(traits={"phone": PHONE, "email": MAIL, "optIn": [entry, opt_in(False, channel="Email ")]})
    assert made.body["traits"]["phones"][PHONE]["smsOptIn"]["subscribed"] is subscribed
    assert made.body["traits"]["emails"][MAIL]["emailOptIn"]["subscribed"] is False


BARE_NOES = (
    {"phones": {PHONE: {"smsOptIn": False}}},
    {"phones": {PHONE: {"smsOptIn": "STOP"}}},
    {"phones": [{"number": PHONE, "smsOptIn": 0}]},
    {"traits": {"phones": {PHONE: {"smsOptIn": False}}}},
    {"phone": PHONE, "traits": {"smsOptIn": False}},
    {"phone": PHONE, "traits": {"smsOptIn": {"subscribed": False}}},
    {"phone": PHONE, "traits": {"sms_opt_in": "no"}},
    {"phone": PHONE, "smsOptIn": False},
    {"phone": PHONE, "sms_opt_in": False},
)


@pytest.mark.parametrize("written", BARE_NOES)
def test_a_bare_no_under_the_name_of_its_channel_is_an_opt_out(written):
    info = payload(written=written).body["traits"]["phones"][PHONE]
    assert info["smsOptIn"] == BARE


def test_a_bare_yes_has_no_evidence_and_is_withheld():
    made = payload(phones={PHONE: {"smsOptIn": True}})
    assert "smsOptIn" not in made.body["traits"]["phones"][PHONE]
    assert made.withheld[0].reason.startswith("no timestamp")


@pytest.mark.parametrize("channel", ["text", "fax", "", None, 5, ["sms"]])
def test_an_unknown_channel_is_a_fault(channel):
    entry = {**opt_in(), "channel": channel}
    assert faults(phone=PHONE, opt_in=[entry]) == {"opt_in[0].channel": "must be sms, voice or email"}


def test_made_by_hand_a_bad_opt_in_does_not_show_its_values():
    with pytest.raises(ValidationError) as caught:
        OptIn(
            channel=hostile.NAME,
            subscribed=hostile.NAME,
            timestamp=hostile.NAME,
            ip=hostile.SECRET_IPS[1],
            text=[hostile.NOTE],
        )
    for text in (str(caught.value), repr(caught.value)):
        assert not any(secret in text for secret in hostile.SECRETS)


def test_the_repr_of_a_decision_shows_neither_the_person_nor_the_evidence():
    said = opt_in(text=hostile.NOTE, source=hostile.NAME)
    made = payload(phone=PHONE, opt_in=[said, {**said, "channel": "voice", "timestamp": None}])
    assert made.consents and made.withheld
    for one in (*made.consents, *made.withheld):
        assert not [value for value in (PHONE, IP, hostile.NOTE, hostile.NAME) if value in repr(one)]


def test_an_opt_in_made_by_hand_can_be_used_in_every_form():
    mine = OptIn(channel="sms", subscribed=True, timestamp=datetime(2026, 3, 2, tzinfo=UTC), ip=IP)
    for written in ({"opt_in": mine}, {"opt_in": [mine]}, {"phones": [Phone(number=PHONE, opt_ins=(mine,))]}):
        made = payload(Track, event="Seen", written={"phone": PHONE, **written})
        assert made.body["traits"]["phones"][PHONE]["smsOptIn"]["subscribed"] is True
