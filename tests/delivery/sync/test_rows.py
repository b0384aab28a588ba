"""Rows of a consent table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.delivery.sync.rows import ConsentRows, Said, Unfit
from airflow_provider_regal.events import ConsentPolicy, Reading
from tests.events.hostile import many

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
PHONE, EMAIL, IP = "+12125550147", "hidden.person@example.com", "203.0.113.77"
YES = {"phone": PHONE, "channel": "sms", "subscribed": True, "timestamp": "2026-11-01T10:00:00Z", "ip": IP}
NO = {"phone": PHONE, "channel": "sms", "subscribed": False}


def reader(columns=None, *, policy=None, phone_needed=True, lower_upper=True):
    return ConsentRows(
        columns, lower_upper=lower_upper, reading=Reading(), policy=policy or ConsentPolicy(), phone_needed=phone_needed
    )


def read(row, columns=None, **options):
    return reader(columns, **options).read(row, NOW)


def short(told):
    return [(one.identifier, one.channel, one.subscribed) for one in told if isinstance(one, Said)]


def faults(told):
    return {fault.field: fault.reason for one in told if isinstance(one, Unfit) for fault in one.faults}


def test_a_row_of_the_long_form_is_one_consent_with_its_evidence():
    row = {**YES, "user_id": 5150, "text": "I agree", "source": "form", "email": EMAIL}
    assert read(row) == [
        Said(PHONE, "sms", True, datetime(2026, 11, 1, 10, tzinfo=UTC), "5150", IP, "I agree", "form"),
    ]


@pytest.mark.parametrize(("channel", "whose"), [("sms", PHONE), ("voice", PHONE), ("email", EMAIL)])
def test_sms_and_voice_belong_to_the_phone_and_email_to_the_email(channel, whose):
    row = {**YES, "phone": "(212) 555-0147", "email": " Hidden.Person@Example.com", "channel": channel}
    assert short(read(row)) == [(whose, channel, True)]


def test_a_row_of_the_wide_form_is_one_consent_for_each_channel_that_says_yes_or_no():
    row = {
        "phone": PHONE, "email": EMAIL, "sms_opt_in": 1, "sms_opt_in_at": "2026-11-01", "sms_opt_in_ip": IP,
        "voice_opt_in": None, "voice_opt_in_at": "2026-11-01", "email_opt_in": "false", "email_opt_in_source": "x",
    }  # fmt: skip
    told = read(row)
    assert short(told) == [(PHONE, "sms", True), (EMAIL, "email", False)]
    assert told[1].source == "x"


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ({"phone": None, "sms_opt_in": "no"}, "sms_opt_in", "is an opt-out of no phone, and none is on record"),
        ({"phone": " n/a", "sms_opt_in": "no"}, "sms_opt_in", "is an opt-out of no phone"),
        ({"sms_opt_in": 0}, "sms_opt_in", "is an opt-out of no phone"),
        ({"user_id": "u1", "voice_opt_in": False}, "voice_opt_in", "is an opt-out of no phone"),
        ({"user_id": "u1", "email": "", "email_opt_in": False}, "email_opt_in", "is an opt-out of no email; name it"),
        ({"phone": "555", "sms_opt_in": False}, "phone", "not a valid phone number"),
        ({"phone": None, "sms_opt_in": "perhaps"}, "sms_opt_in", "must be true or false"),
        ({**NO, "phone": None}, "subscribed", "is an opt-out of no phone"),
        ({**NO, "phone": None, "email": EMAIL}, "subscribed", "is an opt-out of no phone"),
        ({**NO, "channel": "email"}, "subscribed", "is an opt-out of no email"),
        ({**NO, "phone": None, "subscribed": "perhaps"}, "subscribed", "must be true or false"),
        ({"phone": PHONE, "subscribed": "no"}, "channel", "is missing"),
    ],
)
def test_a_decision_that_belongs_to_no_one_is_lost_and_is_not_left_out(row, column, reason):
    (told,) = read(row)
    assert told.loses_a_decision
    assert reason in faults([told])[column]


def test_a_decision_of_a_row_whose_columns_collide_is_lost():
    for one, other in ((True, False), (False, True), (False, None)):
        (told,) = read({**YES, "subscribed": one, "ok": other}, {"ok": "subscribed"})
        assert told.loses_a_decision
    (told,) = read({**YES, "tel": PHONE}, {"tel": "phone"})
    assert not told.loses_a_decision


def test_a_wide_no_of_an_address_that_the_person_lacks_says_nothing_and_a_yes_is_wrong():
    """A column that says no by default says it of everybody: who has a phone and no email has no email to opt out."""
    assert read({"phone": PHONE, "email": "", "email_opt_in": False}) == []
    assert read({"email": EMAIL, "phone": None, "sms_opt_in": False}) == []
    assert faults(read({"phone": PHONE, "email": None, "email_opt_in": True}))


def test_columns_of_other_names_are_told_by_their_targets():
    row = {"tel": PHONE, "how": "voice", "ok": True, "when": "2026-11-01T10:00:00Z", "addr": IP, "phone": "rubbish"}
    columns = {"tel": "phone", "how": "channel", "ok": "subscribed", "when": "timestamp", "addr": "ip", "phone": None}
    assert short(read(row, columns)) == [(PHONE, "voice", True)]


def test_columns_in_upper_case_are_lower_cased_unless_they_are_to_be_kept():
    row = {name.upper(): value for name, value in YES.items()}
    assert short(read(row)) == [(PHONE, "sms", True)]
    assert "channel" in faults(read(row, lower_upper=False))
    upper = {"TEL" if name == "PHONE" else name: value for name, value in row.items()}
    assert short(read(upper, {"tel": "phone"})) == short(read(upper, {"TEL": "phone"})) == [(PHONE, "sms", True)]


def test_a_mapping_that_cannot_be_is_refused_at_once():
    with pytest.raises(ValueError, match=r"mapping\['tel'\] must be one of user_id, phone"):
        reader({"tel": "traits.phone"})


def test_a_column_that_goes_where_another_does_makes_the_row_wrong():
    assert faults(read({**YES, "tel": PHONE}, {"tel": "phone"})) == {"tel": "goes to phone, as the column phone does"}


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_null_is_silent(value):
    assert read({**YES, "subscribed": value}) == []
    assert read({"phone": PHONE, "sms_opt_in": value, "sms_opt_in_at": "2026-11-01"}) == []


@pytest.mark.parametrize("value", ["false", " FALSE ", 0, False, 0.0, "0", "0.0", "N", "off", "STOP", "opted-out"])
def test_what_says_false_opts_out(value):
    assert short(read({**YES, "subscribed": value})) == [(PHONE, "sms", False)]


@pytest.mark.parametrize("written", ["2125550147.0", 2125550147.0, "2.125550147E9"])
def test_a_no_of_a_phone_that_kept_its_digits_is_taken_and_a_yes_of_it_is_wrong(written):
    assert short(read({**NO, "phone": written})) == [(PHONE, "sms", False)]
    assert "became a fraction or got an exponent" in faults(read({**YES, "phone": written}))["phone"]


def test_a_no_of_a_phone_that_may_have_lost_digits_is_lost():
    (told,) = read({**NO, "phone": "2.12555E9"})
    assert told.loses_a_decision
    assert "got an exponent" in faults([told])["phone"]


@pytest.mark.parametrize("value", ["yes", "y", "on", "ok", 2, -1, 0.5, [], {}, b"true", "true!"])
def test_what_is_no_boolean_subscribes_nobody(value):
    told = read({**YES, "subscribed": value})
    assert short(told) == []
    assert faults(told) == {
        "subscribed": "must be true or false; if it is a yes or a no in your words, name it in values="
    }


@pytest.mark.parametrize(
    ("wrong", "column", "reason"),
    [
        ({"timestamp": None}, "timestamp", "no timestamp"),
        ({"timestamp": "2027-01-01"}, "timestamp", "lies in the future"),
        ({"timestamp": "1970-01-01"}, "timestamp", "lies before 1991"),
        ({"timestamp": "the 7th of Never"}, "timestamp", ""),
        ({"ip": None}, "ip", "no ip"),
        ({"ip": "203.0.113.777"}, "ip", "can't be read"),
        ({"ip": "10.0.0.1"}, "ip", "not one of the internet"),
        ({"phone": "555"}, "phone", "not a valid phone number"),
        ({"phone": None}, "user_id, phone, email", "at least one is needed"),
        ({"phone": None, "user_id": "u"}, "subscribed", "no phone"),
        ({"channel": "fax"}, "channel", ""),
        ({"channel": None}, "channel", ""),
        ({"user_id": 1.5}, "user_id", "fraction"),
    ],
)
def test_an_opt_in_without_its_evidence_is_rejected_with_its_column(wrong, column, reason):
    told = read({**YES, **wrong})
    assert short(told) == []
    assert reason in faults(told)[column]


def test_faults_speak_of_the_columns_of_the_table():
    wide = {"phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": "2026-11-01", "sms_opt_in_ip": "nowhere"}
    assert list(faults(read(wide))) == ["sms_opt_in_ip"]
    assert list(faults(read({**wide, "sms_opt_in_at": "never"}))) == ["sms_opt_in_at"]
    assert list(faults(read({**YES, "from": "nowhere"}, {"ip": None, "from": "ip"}))) == ["from"]
    assert list(faults(read({**wide, "sms_opt_in_ip": None}))) == ["sms_opt_in_ip"]


def test_require_ip_and_max_consent_age_are_kept():
    assert short(read({**YES, "ip": None}, policy=ConsentPolicy(require_ip=False))) == [(PHONE, "sms", True)]
    assert "max_consent_age" in str(faults(read(YES, policy=ConsentPolicy(max_consent_age=timedelta(days=3)))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": "the 7th of Never"}, {"timestamp": "2027-01-01"}, {"ip": "nowhere"}, {"user_id": 1.5},
        {"email": "nobody@@"}, {"text": 7}, {"source": ["x"]}, {"timestamp": float("nan")}, {"text": b"x"},
    ],
)  # fmt: skip
def test_an_opt_out_of_a_row_that_is_wrong_elsewhere_is_taken(wrong):
    assert short(read({**NO, **wrong})) == [(PHONE, "sms", False)]


def test_a_fault_of_one_consent_holds_no_other_back():
    row = {
        "user_id": "u1", "phone": PHONE, "email": "nobody@@", "sms_opt_in": True, "sms_opt_in_at": "2026-11-01",
        "sms_opt_in_ip": IP, "voice_opt_in": True, "email_opt_in": True,
    }  # fmt: skip
    told = read(row)
    assert short(told) == [(PHONE, "sms", True)]
    assert sorted(faults(told)) == ["email", "voice_opt_in_at"], "the column to write to, though the row lacks it"
    assert [one.about for one in told if isinstance(one, Unfit)] == [(PHONE, "voice"), None]


def test_a_row_without_channel_and_subscribed_is_wrong():
    assert list(faults(read({"phone": PHONE, "subscribed": True}))) == ["channel"]
    assert list(faults(read({"phone": PHONE, "channel": "sms"}))) == ["subscribed"]
    assert list(faults(read({}))) == ["channel"]


class TestWhereAnEventStandsForTheOptIn:
    def test_an_opt_in_needs_a_phone_or_a_user_id(self):
        told = read({**YES, "phone": None, "user_id": "u1"}, phone_needed=False)
        assert short(told) == [("user:u1", "sms", True)]
        assert told[0].ip == IP
        assert list(faults(read({**YES, "phone": None}, phone_needed=False))) == ["user_id, phone"]

    def test_it_needs_the_evidence_all_the_same(self):
        assert "no ip" in str(faults(read({**YES, "phone": None, "user_id": "u1", "ip": None}, phone_needed=False)))

    def test_an_opt_out_needs_the_phone(self):
        assert faults(read({**NO, "phone": None, "user_id": "u1"}, phone_needed=False))

    def test_it_cannot_stand_for_email(self):
        told = read({**YES, "email": EMAIL, "channel": "email"}, phone_needed=False)
        assert faults(told) == {"channel": "as_event stands for sms and voice only"}
        assert short(read({**NO, "email": EMAIL, "channel": "email"}, phone_needed=False)) == [(EMAIL, "email", False)]


anything = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.sampled_from([PHONE, EMAIL, IP, "sms", "voice", "email", "true", "false", YES["timestamp"], "2027-01-01"]),
    st.datetimes(), st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip
names = st.sampled_from(
    [*YES, "user_id", "email", "text", "source", "sms_opt_in", "sms_opt_in_at", "email_opt_in", "email_opt_in_ip"]
)


@many
@given(row=st.dictionaries(st.one_of(names, st.text(max_size=4)), anything, max_size=12), phone_needed=st.booleans())
def test_no_row_is_too_odd_and_none_subscribes_without_evidence(row, phone_needed):
    for one in read(row, phone_needed=phone_needed):
        if isinstance(one, Unfit):
            assert one.faults
        elif one.subscribed:
            assert one.at is not None
            assert one.at <= NOW
            assert one.ip
            assert any(value in (True, "true", "t", "1", "T") for value in row.values())


@many
@given(rest=st.dictionaries(st.sampled_from(["user_id", "email", "timestamp", "ip", "text", "source"]), anything))
def test_nothing_holds_an_opt_out_back(rest):
    assert short(read({**rest, **NO})) == [(PHONE, "sms", False)]


def test_an_opt_out_that_closes_all_channels_is_newer_than_an_older_opt_out_of_another_channel():
    """Without its time it counts as given now: a yes of voice since the older one must not stand."""
    row = {"phone": PHONE, "sms_opt_in": False, "voice_opt_in": False, "voice_opt_in_at": "2026-11-01T10:00:00Z"}
    told = read(row, policy=ConsentPolicy(opt_out_scope="person"))
    assert {(one.channel, one.subscribed, one.at) for one in told} == {("sms", False, None), ("voice", False, None)}


class TestOneColumnForSeveral:
    ROW: ClassVar = {
        "phone": PHONE, "email": EMAIL, "sms_opt_in": True, "email_opt_in": True, "updated_at": "2026-11-01T10:00:00Z",
        "ip_address": IP,
    }  # fmt: skip
    BOTH: ClassVar = {
        "ip_address": ["sms_opt_in_ip", "email_opt_in_ip"],
        "updated_at": ["sms_opt_in_at", "email_opt_in_at"],
    }

    def test_a_list_places_it_at_each(self):
        told = read(self.ROW, self.BOTH)
        assert short(told) == [(PHONE, "sms", True), (EMAIL, "email", True)]
        assert [(one.at, one.ip) for one in told] == [(datetime(2026, 11, 1, 10, tzinfo=UTC), IP)] * 2

    def test_another_column_of_one_of_these_places_is_at_fault(self):
        given = faults(read({**self.ROW, "sms_opt_in_at": "2026-11-01"}, self.BOTH))
        assert given == {"sms_opt_in_at": "goes to sms_opt_in_at, as the column updated_at does"}

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"at": ["sms_opt_in_at", "traits.x"]}, r"mapping\['at'\] must be one of .*, a list of such names"),
            ({"at": []}, r"mapping\['at'\]: the list is empty; write None to leave the column out"),
            ({"at": ["sms_opt_in_at", None]}, r"mapping\['at'\]: each entry of the list must be text, not a NoneType"),
            ({"at": ["phone", "phone"]}, r"mapping\['at'\] names phone twice"),
            ({"at": 5}, r"mapping\['at'\] must be text, .* or a list of texts for several places, not a int"),
            ({"at": {"sms_opt_in_at"}}, r"mapping\['at'\] must be text, .* not a set"),
            ({5: "phone"}, r"mapping\[5\]: the name of a column must be text, not a int"),
            (["phone"], r"mapping must be a dictionary, column -> where it goes, not a list"),
        ],
    )
    def test_what_cannot_be_is_refused_at_once_in_words(self, columns, reason):
        with pytest.raises(ValueError, match=reason):
            reader(columns)


class TestATimeThatIsNotOfConsent:
    WIDE: ClassVar = {"phone": PHONE, "sms_opt_in": True, "sms_opt_in_ip": IP}

    @pytest.mark.parametrize("columns", [None, {"updated_at": "timestamp"}])
    def test_is_not_taken_for_it_and_the_column_to_write_to_is_named(self, columns):
        name = "timestamp" if columns is None else "updated_at"
        (told,) = read({**self.WIDE, name: "2026-11-01T10:00:00Z"}, columns)
        assert told.no_evidence
        assert faults([told]) == {
            "sms_opt_in_at": "no timestamp: send the time the person agreed (timestamp is not read as the time of "
            "sms_opt_in: map the column with the time to sms_opt_in_at)"
        }

    @pytest.mark.parametrize("more", [{}, {"timestamp": None}, {"timestamp": " "}])
    def test_a_row_without_any_time_is_told_nothing_of_it(self, more):
        assert faults(read({**self.WIDE, **more})) == {"sms_opt_in_at": "no timestamp: send the time the person agreed"}

    def test_a_row_of_the_long_form_has_its_time_there(self):
        assert short(read(YES)) == [(PHONE, "sms", True)]
        (reason,) = faults(read({**YES, "timestamp": None})).values()
        assert reason == "no timestamp: send the time the person agreed"


def test_a_person_is_known_by_the_names_of_the_mapping():
    columns = {"customer_id": "user_id", "mobile": ["phone"], "mail": "email", "home": None}
    row = {"customer_id": "C010", "mobile": "(212) 555-0147", "mail": "Hidden.Person@Example.com", "phone_2": "x"}
    assert reader(columns).people_in(row) == ("user:C010", PHONE, EMAIL)
    assert reader(columns).people_in({**row, "mobile": "555-ABCD"}) == ("user:C010", EMAIL)
