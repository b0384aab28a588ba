"""Whatever is written becomes a valid payload or an InvalidEventError, and no error contains a value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import (
    ConsentPolicy,
    Event,
    Identify,
    Page,
    Payload,
    Reading,
    Screen,
    Track,
    to_payload,
)
from tests.events import hostile
from tests.events.contract import as_sent, breaches
from tests.events.saying import NOW, PHONE

EVENTS = (Identify, Track, Page, Screen)


def outcome(event: type[Event], written: Any, policy: ConsentPolicy, reading: Reading) -> Payload | InvalidEventError:
    try:
        payload = to_payload(event.read(written, reading), now=NOW, policy=policy)
        payload.encoded  # noqa: B018
    except InvalidEventError as error:
        return error
    return payload


def all_texts(error: BaseException | None) -> str:
    """Everything an error and those behind it say."""
    said = ""
    while error is not None:
        said += f"{error}\n{error!r}\n{error.args!r}\n{getattr(error, 'faults', '')!r}\n"
        assert error.__cause__ is None
        error = error.__context__
    return said


def assert_no_secret(error: InvalidEventError) -> None:
    said = all_texts(error)
    said.encode()  # can be logged
    for secret in hostile.SECRETS:
        assert secret.strip() not in said
        assert secret.strip().lower() not in said


def assert_consent_has_evidence(payload: Payload, policy: ConsentPolicy) -> None:
    traits = payload.body.get("traits", {})
    for info in (*traits.get("phones", {}).values(), *traits.get("emails", {}).values()):
        for opt_in in (value for value in info.values() if isinstance(value, dict)):
            assert isinstance(opt_in["subscribed"], bool)
            if opt_in["subscribed"]:
                assert "1991" <= opt_in["timestamp"] <= "2026-11-23 12:00:00 +00:00"
                assert "ip" in opt_in or not policy.require_ip


@hostile.many
@given(st.sampled_from(EVENTS), hostile.written_events, st.booleans(), st.booleans())
@pytest.mark.slow
def test_any_event_becomes_a_valid_payload_or_is_invalid(event, written, require_ip, send_nulls):
    policy = ConsentPolicy(require_ip=require_ip)
    result = outcome(event, written, policy, Reading(send_nulls=send_nulls))
    if isinstance(result, InvalidEventError):
        assert result.faults
        assert_no_secret(result)
    else:
        as_sent(result)
        assert_consent_has_evidence(result, policy)


@hostile.many
@given(st.sampled_from(EVENTS), hostile.values)
def test_anything_can_be_read_without_another_error(event, written):
    result = outcome(event, written, ConsentPolicy(), Reading())
    assert isinstance(result, (InvalidEventError, Payload))
    if isinstance(result, InvalidEventError):
        assert_no_secret(result)


@hostile.many
@given(
    st.fixed_dictionaries(
        {"phone": st.sampled_from([PHONE, hostile.SECRET_PHONES[0]])},
        optional={
            "user_id": st.just("cust-0042"),
            "email": st.sampled_from(["ines@example.com", "bad", ""]),
            "opt_in": hostile.opt_in_lists,
            "traits": st.dictionaries(st.sampled_from(["firstName", "plan", "seen"]), hostile.values, max_size=2),
            "timestamp": hostile.times,
        },
    ),
    st.booleans(),
)
def test_nearly_valid_events_stay_within_the_contract(written, require_ip):
    policy = ConsentPolicy(require_ip=require_ip)
    result = outcome(Identify, written, policy, Reading())
    if isinstance(result, InvalidEventError):
        assert_no_secret(result)
    else:
        as_sent(result)
        assert_consent_has_evidence(result, policy)


@hostile.many
@given(st.dictionaries(hostile.keys, hostile.values, max_size=4), st.booleans())
def test_any_properties_become_json_or_are_invalid(properties, send_nulls):
    written = {"user_id": "1", "event": "Seen", "properties": properties}
    result = outcome(Track, written, ConsentPolicy(), Reading(send_nulls=send_nulls))
    if isinstance(result, InvalidEventError):
        assert_no_secret(result)
    else:
        as_sent(result)


@pytest.mark.parametrize("event", EVENTS)
def test_personal_data_in_every_field_stays_out_of_the_error(event):
    personal = [hostile.NAME, hostile.SECRET_PHONES[3], hostile.SECRET_EMAILS[2], hostile.SECRET_IPS[1]]
    fields = [*event.model_fields, "phone", "email", "opt_in", "sub_brand", "unknown", *personal[1:3]]
    for value in personal:
        entry = {"channel": "sms", "subscribed": True, "timestamp": value, "ip": value, "text": [value]}
        for written in (
            dict.fromkeys(fields, value),
            {field: [value] for field in fields},
            {field: {value.strip(): {value.strip(): b""}} for field in fields if value != hostile.NAME},
            {"phones": {value: {"smsOptIn": entry, "label": [value]}}, "traits": {"a": [value.encode()]}},
            {"phone": value, "email": value, "opt_in": [entry, {**entry, "channel": value}, value]},
        ):
            with pytest.raises(InvalidEventError) as caught:
                event.read(written)
            assert_no_secret(caught.value)


def test_the_judge_itself_finds_breaches():
    assert breaches({"userId": "1", "traits": {"phone": PHONE}})
    assert breaches({"traits": {"phones": {"2125550100": {}}}})
    assert breaches({"userId": "1", "extra": 1})
    assert not breaches({"userId": "1"})
