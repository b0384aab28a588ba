"""Whatever a source returns becomes a row of Python types, or a rejected row with a reason."""

from __future__ import annotations

import warnings
from collections import OrderedDict, UserDict
from types import MappingProxyType

import pytest

from airflow_provider_regal.events import Identify, Track
from airflow_provider_regal.events.options import Reading
from airflow_provider_regal.sources.marks import EVENT_MARK, REJECT_MARK, ROW_MARK, Marked, columns_of
from airflow_provider_regal.sources.rows import as_row
from tests.events.hostile import doubling
from tests.hostile_objects import CANARY, HOSTILE, EndlessList, HostileError, KeysOnly, OddMapping, Raising, RaisingText

PLAIN = {"user_id": "anne", "plan": "gold"}


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType, OddMapping, KeysOnly])
def test_a_row_of_any_class_is_a_dictionary_of_plain_values(kind):
    row = as_row(kind({**PLAIN, "name": RaisingText("Anne")}))
    assert type(row) is dict
    assert row == {**PLAIN, "name": "Anne"}
    assert type(row["name"]) is str


@pytest.mark.parametrize("name", [*sorted(HOSTILE.keys() - {"GrowingDict"}), "int", "KeysOnly", "dict_items"])
def test_what_can_not_be_read_as_a_row_is_rejected(name):
    more = {"int": lambda: 5, "KeysOnly": lambda: KeysOnly(PLAIN, HostileError), "dict_items": PLAIN.items}
    row = as_row((HOSTILE | more)[name]())
    assert columns_of(row) == {}
    assert row[REJECT_MARK] == [
        ["the row", f"must be a dictionary of columns, or an event; a {name} can't be read as one"]
    ]


def test_names_that_are_marks_are_columns_like_others():
    assert columns_of(as_row({"$skip": "x", "user_id": "anne"})) == {"$skip": "x", "user_id": "anne"}


def test_a_row_of_ours_stays_as_it_is():
    row = Marked({REJECT_MARK: [["the line", "is not JSON"]], ROW_MARK: {}})
    assert as_row(row) is row


@pytest.mark.parametrize("endless", [EndlessList([1]), doubling(60)], ids=["endless", "doubling"])
def test_an_event_with_an_endless_trait_is_read(endless):
    row = columns_of(as_row(Track.model_construct(event="Seen", user_id="anne", properties={"tags": endless})))
    assert type(row["properties"]).__name__ == "value with more than 100,000 parts"
    assert row["user_id"] == "anne"


def test_an_event_is_read_with_all_that_it_holds():
    event = Identify.read(
        {"user_id": "anne", "phones": {"+12125550100": {"smsOptIn": {"subscribed": False}}}, "email": "no address"},
        Reading(on_invalid_email="drop"),
    )
    row = columns_of(as_row(event))
    assert row["phones"][0]["opt_ins"][0]["channel"] == "sms"
    assert row["left_out"][0][1].keys() == {"field", "reason"}
    assert Identify.read(row) == event


def test_an_event_whose_members_are_of_other_types_warns_of_none_of_their_values():
    event = Track.model_construct(event=Raising(), user_id=[CANARY], traits={"a": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = as_row(event)
    assert (row[EVENT_MARK], type(row)) == ("track", Marked)
    assert columns_of(row)["user_id"] == [CANARY]
