"""A row of a table as an event."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Event, Reading, to_payload
from airflow_provider_regal.events.options import RowMapping, decision_values
from airflow_provider_regal.events.rows.mapping import RowMapper
from tests.events.hostile import NA, SECRETS, emails, ips, many, opt_in_lists, phones, times, truths, values
from tests.events.saying import GIVEN, IP, MAIL, NOW, OTHER, PHONE

NEW_YORK = ZoneInfo("America/New_York")
WIDE = {"phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": GIVEN, "sms_opt_in_ip": IP}


def event(row, call="identify", reading=None, **how):
    return RowMapper(RowMapping(call, **how), reading or Reading()).event(row)


def traits(row, **how):
    return event({"user_id": "1", **row}, **how).traits


def faults(row, call="identify", **how):
    with pytest.raises(InvalidEventError) as caught:
        event(row, call, **how)
    return {fault.field: fault.reason for fault in caught.value.faults}


def test_reserved_columns():
    made = event({"user_id": 7, "phone": "(212) 555-0100", "email": MAIL, "timestamp": GIVEN, "message_id": "m"})
    assert (made.user_id, made.phones[0].number, made.emails[0].address) == ("7", PHONE, MAIL)
    assert made.timestamp == datetime(2026, 3, 2, 14, 5, 9, tzinfo=UTC)
    assert made.traits == {}


def test_other_columns_are_traits_or_properties_and_nested_ones_pass_through():
    row = {"user_id": "1", "plan": "gold", "prefs": {"a": [1, {"b": True}]}}
    assert event(row).traits == {"plan": "gold", "prefs": {"a": [1, {"b": True}]}}
    assert event(row, "track", event="X").properties == event(row).traits


def test_standard_traits():
    row = {"first_name": "A", "last_name": "B", "address_city": "C", "address_postal_code": "02110", "address_": "x"}
    assert traits(row) == {
        "firstName": "A",
        "lastName": "B",
        "address": {"city": "C", "zipcode": "02110"},
        "address_": "x",
    }


def test_the_event_column_names_the_event_unless_the_delivery_does():
    row = {"user_id": "1", "event": "Booked"}
    assert event(row, "track").event == "Booked"
    assert event(row, "track", event="Other").event == "Other"
    assert "event" in faults({"user_id": "1", "event": None}, "track")


def test_wide_consent():
    (one,) = event({**WIDE, "sms_opt_in_text": "yes", "sms_opt_in_source": "form", "voice_opt_in": None}).phones
    (opt_in,) = one.opt_ins
    assert (opt_in.channel, opt_in.subscribed, opt_in.ip, opt_in.text, opt_in.source) == (
        "sms",
        True,
        IP,
        "yes",
        "form",
    )


@pytest.mark.parametrize("unknown", [None, float("nan"), NA, ""])
def test_a_channel_without_a_yes_or_no_says_nothing(unknown):
    assert event({**WIDE, "sms_opt_in": unknown}).phones[0].opt_ins == ()
    assert event({"phone": PHONE, "sms_opt_in_at": GIVEN}).phones[0].opt_ins == ()


@pytest.mark.parametrize(
    "given",
    [
        '[{"channel": "sms", "subscribed": false}]',
        '{"channel": "sms", "subscribed": false}',
        [{"channel": "sms", "subscribed": False}],
    ],
)
def test_opt_ins_as_json_or_as_its_text(given):
    (opt_in,) = event({"phone": PHONE, "opt_in": given}).phones[0].opt_ins
    assert not opt_in.subscribed


def test_opt_ins_as_text_that_is_none():
    assert event({"phone": PHONE, "opt_in": " "}).phones[0].opt_ins == ()
    assert event({"phone": PHONE, "opt_in": "null"}).phones[0].opt_ins == ()
    assert faults({"phone": PHONE, "opt_in": "true"})
    assert faults({"phone": PHONE, "opt_in": "[" * 100_000})


def test_wide_consent_and_a_list_come_together():
    row = {"phone": PHONE, "opt_in": [{"channel": "voice", "subscribed": False}], "sms_opt_in": False}
    assert {opt_in.channel for opt_in in event(row).phones[0].opt_ins} == {"voice", "sms"}
    assert "sms_opt_in" in faults({**row, "sms_opt_in": "perhaps", "sms_opt_in_at": "never"})


class TestMapping:
    def test_targets(self):
        made = event(
            {"id": "1", "x": 1, "gone": 2, "city": "C", "work": OTHER, "message_id": "m"},
            columns={
                "id": "user_id",
                "x": "traits.plan",
                "gone": None,
                "city": "traits.address.city",
                "work": "phones.work",
                "message_id": "traits.message",
            },
        )
        assert made.user_id == "1"
        assert made.traits == {"plan": 1, "address": {"city": "C"}, "message": "m"}
        assert [(phone.number, phone.label) for phone in made.phones] == [(OTHER, "work")]

    @pytest.mark.parametrize("form", [list, tuple])
    def test_a_column_may_go_to_several_places(self, form):
        columns = {"id": form(["user_id", "traits.crm_id"]), "at": form(["sms_opt_in_at", "voice_opt_in_at"])}
        row = {"id": "1", "phone": PHONE, "sms_opt_in": True, "voice_opt_in": True, "at": GIVEN}
        made = event(row, columns=columns)
        assert (made.user_id, made.traits) == ("1", {"crm_id": "1"})
        assert len({one.timestamp for one in made.phones[0].opt_ins} - {None}) == 1
        assert len(made.phones[0].opt_ins) == 2
        assert set(faults({**row, "at": GIVEN, "sms_opt_in_at": GIVEN}, columns=columns)) <= {"at", "sms_opt_in_at"}

    def test_a_type_is_converted_once_however_many_places_it_goes_to(self):
        how = {"columns": {"x": ["traits.a", "traits.b"]}, "types": {"x": "json"}}
        assert event({"user_id": "1", "x": '"[1]"'}, **how).traits == {"a": "[1]", "b": "[1]"}

    @pytest.mark.parametrize("nothing", [None, "", "  ", float("nan"), NA])
    def test_a_phone_that_is_not_there(self, nothing):
        assert event({"user_id": "1", "work": nothing}, columns={"work": "phones.work"}).phones == ()

    @pytest.mark.parametrize(
        "target",
        [
            "",
            "plan",
            "traits",
            "traits.",
            "traits..x",
            "phones",
            "phones.",
            "event",
            5,
            [],
            ["user_id", ""],
            [None],
            ["phone", "phone"],
            {"phone"},
            b"phone",
        ],
    )
    def test_targets_that_are_none(self, target):
        with pytest.raises(ValueError, match=r"mapping\['x'\]"):
            RowMapping("identify", columns={"x": target})

    def test_an_identify_has_no_properties(self):
        with pytest.raises(ValueError, match=r"use 'traits\.x'"):
            RowMapping("identify", columns={"x": "properties.x"})

    @pytest.mark.parametrize("option", [{"columns": {"plan": "traits.tariff"}}, {"types": {"plan": str}}])
    def test_a_row_without_a_column_that_an_option_names_has_null_there(self, option):
        assert event({"user_id": "1", "x": 1}, **option).traits == {"x": 1}

    def test_every_reserved_name_can_be_a_target(self):
        made = event(
            {"id": "1", "tel": PHONE, "ok": "true", "ok_at": GIVEN, "ok_ip": IP, "name": "Ines", "town": "Sample"},
            columns={
                "id": "user_id",
                "tel": "phone",
                "ok": "sms_opt_in",
                "ok_at": "sms_opt_in_at",
                "ok_ip": "sms_opt_in_ip",
                "name": "first_name",
                "town": "address_city",
            },
        )
        ((opt_in,),) = (phone.opt_ins for phone in made.phones)
        assert (opt_in.channel, opt_in.subscribed, opt_in.ip) == ("sms", True, IP)
        assert made.traits == {"firstName": "Ines", "address": {"city": "Sample"}}
        assert event({"user_id": "1", "kind": "Booked"}, "track", columns={"kind": "event"}).event == "Booked"
        assert event({"user_id": "1", "title": "Home"}, "page", columns={"title": "name"}).name == "Home"

    @pytest.mark.parametrize(
        ("row", "columns"),
        [
            ({"user_id": "1", "a": 1, "b": 2}, {"a": "traits.x", "b": "traits.x"}),
            ({"user_id": "1", "address": "x", "address_city": "y"}, {}),
            ({"user_id": "1", "address_zip": "x", "address_postal_code": "y"}, {}),
            ({"user_id": "1", "id": "2"}, {"id": "user_id"}),
        ],
    )
    def test_two_columns_to_one_place(self, row, columns):
        assert any("map one elsewhere" in reason for reason in faults(row, columns=columns).values())


class TestUpperCase:
    ROW: ClassVar = {"USER_ID": "1", "PLAN": "5", "FIRST_NAME": "A"}

    def test_is_lowered_if_all_are(self):
        assert event(self.ROW).traits == {"plan": "5", "firstName": "A"}

    def test_options_name_columns_either_way(self):
        for name in ("plan", "PLAN"):
            assert event(self.ROW, types={name: int}, columns={name: "traits.level"}).traits["level"] == 5

    def test_is_kept_if_one_is_not_or_if_told(self):
        assert event({"user_id": "1", "PLAN": 1}).traits == {"PLAN": 1}
        assert "user_id, phone, email" in faults(self.ROW, lower_upper=False)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (str, 5, "5"),
        (str, Decimal("1.10"), "1.10"),
        (str, 42.0, "42"),
        (str, Decimal("7E+2"), "700"),
        (str, Decimal("1790.0"), "1790"),
        (str, Decimal("1E-7"), "0.0000001"),
        (str, 1e-7, "0.0000001"),
        (int, Decimal("7E+2"), 700),
        (date, 20260302, "2026-03-02"),
        ("json", '{"a": [1, null]}', {"a": [1, None]}),
        ("json", [1], [1]),
        (str, True, "True"),
        (str, "", ""),
        (int, " 5 ", 5),
        (int, "5.0", 5),
        (int, Decimal(5), 5),
        (float, "1.5", 1.5),
        (float, 2, 2.0),
        (bool, "TRUE", True),
        (bool, 0, False),
        (date, "2026-03-02", "2026-03-02"),
        (date, "2026-03-02T23:00:00", "2026-03-02"),
        (date, datetime.fromisoformat("2026-03-02T23:00:00"), "2026-03-02"),
        (datetime, "2026-03-02T00:00:00", "2026-03-02 05:00:00 +00:00"),
        (datetime, 1772409600, "2026-03-02 00:00:00 +00:00"),
    ],
)
def test_types_coerce(kind, value, read):
    made = traits({"x": value}, types={"x": kind}, reading=Reading(timezone=NEW_YORK))["x"]
    assert made == read
    assert type(made) is type(read)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, {}),
        (str, []),
        (str, b"x"),
        (str, object()),
        (int, "5.5"),
        (int, "1_000"),
        (int, True),
        (int, "inf"),
        (int, "1e999999999"),
        (int, "٣"),
        (float, "abc"),
        (float, True),
        (bool, "yes"),
        (bool, 2),
        (date, "soon"),
        (date, "2026-02-31"),
        (datetime, "soon"),
        (datetime, object()),
    ],
)
def test_types_refuse(kind, value):
    assert faults({"user_id": "1", "x": value}, types={"x": kind}) == {"x": f"cannot be read as {kind.__name__}"}


@pytest.mark.parametrize("kind", [str, int, float, bool, date, datetime])
@pytest.mark.parametrize("nothing", [None, float("nan"), Decimal("sNaN"), NA])
def test_nothing_stays_nothing_whatever_the_type(kind, nothing):
    assert traits({"x": nothing}, types={"x": kind}) == {}
    assert traits({"x": nothing}, types={"x": kind}, reading=Reading(send_nulls=True)) == {"x": None}


@pytest.mark.parametrize(
    ("row", "how", "place"),
    [
        (
            {**WIDE, "work": "2125550111", "work_no": "x"},
            {"columns": {"work": "phones.work", "work_no": "phones.work_sms_opt_in"}},
            "work_no",
        ),
        ({**WIDE, "sms_opt_in": "yes"}, {}, "sms_opt_in"),
        ({"user_id": "1", "first_name": 5}, {}, "first_name"),
        ({"user_id": "1", "level": b"x"}, {"columns": {"level": "traits.plan"}}, "level"),
        ({"user_id": "1", "level": {"a": b"x"}}, {"columns": {"level": "traits.plan"}}, "level.a"),
        ({"user_id": "1", "work": "5"}, {"columns": {"work": "phones.work"}}, "work"),
        ({"user_id": "1", "plan": b"x"}, {}, "traits.plan"),
        ({"user_id": "1", 5: "x"}, {}, "the row"),
    ],
)
def test_a_fault_names_the_column(row, how, place):
    assert list(faults(row, **how)) == [place]


@pytest.mark.parametrize("evidence", [{"sms_opt_in_at": "soon"}, {"sms_opt_in_ip": "x"}, {"sms_opt_in_text": 5}])
def test_evidence_that_cannot_be_read_withholds_the_opt_in_and_the_rest_goes(evidence):
    ((column, _),) = evidence.items()
    made = to_payload(event({**WIDE, "plan": "gold", **evidence}), now=NOW)
    assert made.body["traits"]["plan"] == "gold"
    assert [(one.channel, one.subscribed) for one in made.consents if one.channel == "sms"] == []
    name = {"sms_opt_in_at": "timestamp", "sms_opt_in_ip": "ip", "sms_opt_in_text": "text"}[column]
    (withheld,) = (str(one) for one in made.withheld if str(one).startswith("phones[0] sms: "))
    assert withheld.startswith(f"phones[0] sms: the {name} can't be read, so it is not evidence")
    assert ("write ISO 8601" in withheld) == (name == "timestamp")


class TestSeveralPhones:
    """Each may have an opt-in of its own; what is said of one is never said of another."""

    HOW: ClassVar[dict[str, str]] = {
        "home": "phones.home", "home_sms": "phones.home_sms_opt_in", "home_at": "phones.home_sms_opt_in_at",
        "home_ip": "phones.home_sms_opt_in_ip", "work": "phones.work", "work_sms": "phones.work_sms_opt_in",
    }  # fmt: skip
    ROW: ClassVar[dict[str, Any]] = {
        "user_id": "u", "home": "2125550100", "home_sms": True, "home_at": "2026-03-02T14:05:09Z",
        "home_ip": "203.0.113.9", "work": "2125550111", "work_sms": False,
    }  # fmt: skip
    HOME, WORK = "+12125550100", "+12125550111"

    def consents(self, row, **how):
        made = to_payload(event(row, **how), now=NOW)
        return {(one.identifier, one.channel): one.subscribed for one in made.consents}, made

    def test_by_mapping(self):
        consents, made = self.consents(self.ROW, columns=self.HOW)
        assert consents == {(self.HOME, "sms"): True, (self.WORK, "sms"): False}
        assert made.body["traits"]["phones"][self.HOME]["smsOptIn"]["ip"] == "203.0.113.9"

    def test_by_the_names_of_the_columns(self):
        row = {self.HOW.get(name, name): value for name, value in self.ROW.items()}
        assert self.consents(row)[0] == {(self.HOME, "sms"): True, (self.WORK, "sms"): False}

    @pytest.mark.parametrize("nothing", [None, "", float("nan")])
    def test_a_yes_of_a_phone_that_is_empty_is_withheld_and_never_another_phones(self, nothing):
        consents, made = self.consents({**self.ROW, "home": nothing}, columns=self.HOW)
        assert consents == {(self.WORK, "sms"): False}
        assert [str(one) for one in made.withheld] == ["opt_in sms: the phone it belongs to is empty"]

    def test_a_no_of_a_phone_that_is_empty_waits_for_what_the_ledger_knows(self):
        _, made = self.consents({**self.ROW, "work": None}, columns=self.HOW)
        assert made.opt_outs_elsewhere == (("sms", None, {"subscribed": False}),)

    def test_a_no_that_does_not_say_of_which_phone_is_said_of_all(self):
        row = {"user_id": "u", "phones.home": self.HOME, "phones.work": self.WORK, "sms_opt_in": False}
        assert self.consents(row)[0] == {(self.HOME, "sms"): False, (self.WORK, "sms"): False}

    def test_a_yes_that_does_not_say_of_which_phone_is_withheld(self):
        evidence = {"sms_opt_in_at": "2026-03-02T14:05:09Z", "sms_opt_in_ip": "203.0.113.9"}
        row = {"user_id": "u", "phones.home": self.HOME, "phones.work": self.WORK, "sms_opt_in": True, **evidence}
        consents, made = self.consents(row)
        assert consents == {}
        assert "several phones" in made.withheld[0].reason

    @pytest.mark.parametrize("nothing", [None, "", float("nan")])
    def test_a_yes_of_the_phone_column_never_goes_to_a_mapped_phone_where_that_is_null(self, nothing):
        evidence = {"sms_opt_in_at": "2026-03-02T14:05:09Z", "sms_opt_in_ip": "203.0.113.9"}
        row = {"user_id": "u", "phone": nothing, "phones.work": self.WORK, "sms_opt_in": True, **evidence}
        consents, made = self.consents(row)
        assert consents == {}
        assert made.withheld[0].reason == "the phone it belongs to is empty"
        assert self.consents({**row, "sms_opt_in": False})[0] == {(self.WORK, "sms"): False}

    def test_an_opt_in_of_the_wrong_kind_is_said_when_the_dag_is_written(self):
        with pytest.raises(ValueError, match=r"an opt-in for email cannot belong to one of phones"):
            RowMapping("identify", columns={"x": "phones.home_email_opt_in"})


columns = {
    "user_id": st.sampled_from(["u1", 5, None]),
    "phone": phones,
    "email": emails,
    "timestamp": times,
    "sub_brand": values,
    "opt_in": opt_in_lists,
    "sms_opt_in": truths,
    "sms_opt_in_at": times,
    "sms_opt_in_ip": ips,
    "email_opt_in": truths,
    "first_name": values,
    "address_zip": values,
    "work": phones,
    "typed": values,
    "plan": values,
    "event": values,
    "message_id": values,
}
rows = st.builds(
    lambda one, two: {**one, **two},
    st.fixed_dictionaries({"work": columns.pop("work"), "typed": columns.pop("typed")}, optional=columns),
    st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from([None, 5, "address"])), values, max_size=2),
)


@many
@given(
    row=rows, call=st.sampled_from(["identify", "track"]), kind=st.sampled_from([str, int, float, bool, date, datetime])
)
def test_any_row_is_an_event_or_has_faults_without_values(row, call, kind):
    try:
        assert isinstance(event(row, call, columns={"work": "phones.work"}, types={"typed": kind}), Event)
    except InvalidEventError as error:
        assert error.faults
        for secret in SECRETS:
            assert secret not in str(error)


@pytest.mark.parametrize("no", [False, 0, "false"])
def test_a_no_by_default_does_not_refuse_a_contact_without_a_phone(no):
    mapper = RowMapper(RowMapping("identify"), Reading())
    event = mapper.event({"email": "a@example.com", "phone": None, "sms_opt_in": no})
    assert event.phones == ()
    assert event.emails[0].address == "a@example.com"
    assert event.emails[0].opt_ins == ()
    assert [one.subscribed for one in event.unplaced] == [False], "the ledger may know the phone"


def test_a_yes_without_a_phone_is_withheld_and_the_rest_goes():
    mapper = RowMapper(RowMapping("identify"), Reading())
    event = mapper.event({"email": "a@example.com", "phone": None, "sms_opt_in": True, "plan": "gold"})
    assert event.traits == {"plan": "gold"}
    assert [str(one) for one in to_payload(event, now=NOW).withheld] == [
        "opt_in sms: there is no phone that it could belong to"
    ]


def test_what_is_neither_yes_nor_no_is_a_fault_with_and_without_a_phone():
    mapper = RowMapper(RowMapping("identify"), Reading())
    for phone in (None, "+12125550100"):
        with pytest.raises(InvalidEventError, match="sms_opt_in"):
            mapper.event({"email": "a@example.com", "phone": phone, "sms_opt_in": "perhaps"})


class TestValues:
    """What a decision may say, beside what is read anyway."""

    YES_NO: ClassVar = {"values": decision_values({"Yes": True, "No": False, 9: False, "?": None})}

    @pytest.mark.parametrize(
        ("said", "subscribed"),
        [("Yes", True), (" YES", True), ("No", False), (9.0, False), ("STOP", False), (True, True)],
    )
    def test_a_decision_is_what_values_says(self, said, subscribed):
        (opt_in,) = event({**WIDE, "sms_opt_in": said}, **self.YES_NO).phones[0].opt_ins
        assert opt_in.subscribed is subscribed

    def test_a_decision_that_values_calls_unknown_says_nothing(self):
        assert event({**WIDE, "sms_opt_in": "?"}, **self.YES_NO).phones[0].opt_ins == ()

    def test_it_holds_for_lists_of_opt_ins_and_labels_and_for_no_other_column(self):
        listed = {"phone": PHONE, "opt_in": '[{"channel": "sms", "subscribed": "No"}]', "loose": "Yes"}
        made = event(listed, **self.YES_NO)
        assert [one.subscribed for one in made.phones[0].opt_ins] == [False]
        assert made.traits == {"loose": "Yes"}
        labeled = {"user_id": "1", "phones.work": PHONE, "phones.work_sms_opt_in": "No"}
        assert [one.subscribed for one in event(labeled, **self.YES_NO).phones[0].opt_ins] == [False]

    def test_without_it_a_stray_text_subscribes_no_one(self):
        assert faults({**WIDE, "sms_opt_in": "Yes"})["sms_opt_in"].endswith("name it in values=")
