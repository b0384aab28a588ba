"""A row is ready to send, or has a reason why it can never be sent."""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.prepared import Ready, Rejected
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Identify, Track, to_payload
from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.sources.rows import as_row
from tests.events.hostile import many, written_events
from tests.events.saying import MAIL, NOW, PHONE


def prepare(row, call="track", **options):
    if call == "track":
        options.setdefault("event", "Booked")
    preparer = Preparer(DeliverySettings.of(call=call, **options), event_source="airflow")
    return preparer.prepare(3, decode_row(encode_row(as_row(row))), NOW)


def test_a_row_is_made_ready():
    ready = prepare({"user_id": "u", "phone": PHONE, "email": MAIL, "n": 1})
    assert isinstance(ready, Ready)
    assert ready.identifiers == ("user:u", PHONE, MAIL)
    assert (ready.position, ready.guarantee, ready.has_time) == (3, "at_most_once", False)
    assert b'"Booked"' in ready.body


@many
@given(written=written_events)
def test_an_event_is_sent_from_the_snapshot_as_it_would_be_at_once(written):
    try:
        event = Track.read({**written, "event": "Booked"})
        at_once = to_payload(event, now=NOW, event_source="airflow")
    except InvalidEventError:
        return
    kept = prepare(event, max_event_age=None)
    assert isinstance(kept, Ready), kept
    assert kept.payload.body == at_once.body


@pytest.mark.parametrize("mark", ["$event", "$row"])
def test_a_column_that_is_named_like_a_mark_is_a_column(mark):
    ready = prepare({"user_id": "u", mark: "identify"})
    assert isinstance(ready, Ready)
    assert ready.payload.body["properties"] == {mark: "identify"}


def test_a_named_event_does_not_travel_among_contacts():
    rejected = prepare(Track(user_id="u", event="Booked"), call="identify")
    assert isinstance(rejected, Rejected)
    assert isinstance(prepare(Identify(user_id="u"), call="track"), Ready)


def test_old_named_events_are_rejected_and_old_contacts_are_not():
    old = (NOW - timedelta(days=8)).isoformat()
    rejected = prepare({"user_id": "u", "timestamp": old})
    assert isinstance(rejected, Rejected)
    assert "max_event_age" in str(rejected.faults[0])
    assert isinstance(prepare({"user_id": "u", "timestamp": old}, max_event_age=None), Ready)
    assert isinstance(prepare({"user_id": "u", "timestamp": old}, call="identify"), Ready)


@pytest.mark.parametrize(("value", "word"), [(timedelta(1), "timedelta"), (object(), "object"), ({1: 2}, "not text")])
def test_a_value_that_cannot_be_kept_is_rejected_by_its_type(value, word):
    rejected = prepare({"user_id": "u", "x": value})
    assert isinstance(rejected, Rejected)
    assert word in str(rejected.faults[0])
    assert "0x" not in str(rejected.faults[0])
    assert isinstance(prepare({"user_id": "u", "x": value}, types={"x": str}), Rejected)


def test_rows_that_know_their_columns():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    (row,) = connection.execute("SELECT 'u' AS user_id, 1 AS n").fetchall()
    connection.close()
    for given_row in (row, namedtuple("Row", "user_id n")("u", 1), {"user_id": "u", "n": 1}):
        assert as_row(given_row) == {"user_id": "u", "n": 1}


@pytest.mark.parametrize("row", [("u", 1), None, "u", ["u"], 5, datetime(2026, 3, 2, tzinfo=UTC)])
def test_what_is_no_row_is_rejected(row):
    (fault,) = prepare(as_row(row)).faults
    assert fault.field == "the row"
    assert fault.reason.startswith("must be a dictionary of columns, or an event; a ")


def test_of_a_row_that_is_wrong_the_opt_outs_are_sent():
    ready = prepare({"user_id": 1.5, "phone": PHONE, "sms_opt_in": False, "voice_opt_in": None}, call="identify")
    assert isinstance(ready, Ready)
    assert "user_id" in str(ready.instead_of.faults[0])
    assert ready.payload.body == {
        "traits": {"phones": {PHONE: {"smsOptIn": {"subscribed": False}}}},
        "eventSource": "airflow",
    }
    named = prepare({"user_id": 1.5, "phone": PHONE, "sms_opt_in": False})
    assert (named.payload.call, named.guarantee) == ("identify", "at_least_once")
    assert isinstance(prepare({"user_id": 1.5, "phone": PHONE, "sms_opt_in": True}, call="identify"), Rejected)


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"ref": "C1", "mobile": "(212) 555-0147", "mail": "A@Example.com"},
         {"ref": "user_id", "mobile": "phone", "mail": "email"}),
        ({"ref": "C1", "mobile": "(212) 555-0147", "mail": "A@Example.com"},
         {"ref": ["user_id", "traits.ref"], "mobile": "phones.mobile", "mail": "emails.work"}),
        ({"user_id": "C1", "phones.mobile": "2125550147", "emails.work": "a@example.com"}, {}),
        ({"USER_ID": "C1", "MOBILE": "2125550147", "EMAIL": "a@example.com"}, {"mobile": "phone"}),
    ],
)  # fmt: skip
def test_the_person_of_a_rejected_row_is_read_by_the_mapping(row, mapping):
    decision = "SMS_OPT_IN" if "MOBILE" in row else "sms_opt_in"
    refused = prepare({**row, decision: "perhaps"}, call="identify", mapping=mapping)
    assert isinstance(refused, Rejected)
    assert (refused.user_id, refused.identifiers) == ("C1", ("user:C1", "+12125550147", "a@example.com"))


def test_what_cannot_be_read_of_a_person_is_left_out():
    refused = prepare(
        {"ref": "C1", "mobile": "555-ABCD", "mail": "none@"}, mapping={"ref": "user_id", "mobile": "phone"}
    )
    assert isinstance(refused, Rejected)
    assert (refused.user_id, refused.identifiers) == ("C1", ("user:C1",))
