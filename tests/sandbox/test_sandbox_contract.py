"""The strict models match the OpenAPI description, and each deviation is described in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_regal.sandbox.processing.contract import deviations

DESCRIPTION = yaml.safe_load((Path(__file__).parents[1] / "regal-events.openapi.yaml").read_text(encoding="utf-8"))
STRICT = Draft202012Validator(
    {"$ref": "#/components/schemas/StrictEventRequest", "components": DESCRIPTION["components"]}
)
EXAMPLES = DESCRIPTION["paths"]["/events"]["post"]["requestBody"]["content"]["application/json"]["examples"]

# Python's patterns also match a final line break and digits of other scripts; those of JSON Schema don't.
# So the generated text has neither.
LETTERS = st.text(st.characters(codec="ascii", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85"), max_size=8)
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), LETTERS, st.just(""), st.just([]),
    st.just({}), st.lists(LETTERS, max_size=2), st.dictionaries(LETTERS, LETTERS, max_size=2),
)  # fmt: skip
GOOD_TIMESTAMPS = st.sampled_from(
    ["2026-03-02 14:05:09 +00:00", "2026-03-02T14:05:09Z", "2026-03-02", "2026-03-02 14:05:09",
     "2026-03-02T14:05:09.123+0000", "2026-03-02 14:05:09.123456789-04:00"]
)  # fmt: skip
BAD_TIMESTAMPS = st.sampled_from(["2026-3-2", "2026-03-02 14:05", "2026-03-02T14:05:09.1234567890Z", "yesterday", ""])
GOOD_NUMBERS = st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True)
BAD_NUMBERS = st.sampled_from(["12125550100", "+0123456", "(212) 555-0100", "+1", "+" + "9" * 16])
GOOD_ADDRESSES = st.sampled_from(["a@b", "ines@example.com"])
BAD_ADDRESSES = st.sampled_from(["a@b@c", "a b@c", "@b", "a@", "nobody"])


class Bodies:
    """Bodies of every shape the contract knows.

    :param noise: of a hundred places, how many hold something that may not belong there.
    """

    def __init__(self, noise: int) -> None:
        self.noise = noise

    def mostly(self, good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any] = JUNK) -> st.SearchStrategy[Any]:
        if not self.noise:
            return good
        return st.integers(0, 99).flatmap(lambda dice: bad if dice < self.noise else good)

    def members(self, required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
        known = st.fixed_dictionaries(
            {name: self.mostly(value) for name, value in (required or {}).items()},
            optional={name: self.mostly(value) for name, value in optional.items()},
        )
        surplus = self.mostly(st.just({}), st.dictionaries(LETTERS, JUNK, max_size=1))
        return st.tuples(known, surplus).map(lambda both: both[1] | both[0])

    def opt_ins(self) -> st.SearchStrategy[dict[str, Any]]:
        timestamps = self.mostly(GOOD_TIMESTAMPS, BAD_TIMESTAMPS)
        evidence = {"timestamp": timestamps, "ip": LETTERS, "text": LETTERS, "source": LETTERS}
        return self.mostly(self.members({"subscribed": st.booleans()}, **evidence), self.members(**evidence))

    def traits(self, **required: Any) -> st.SearchStrategy[dict[str, Any]]:
        phone = self.members(label=LETTERS, isPrimary=st.booleans(), voiceOptIn=self.opt_ins(), smsOptIn=self.opt_ins())
        email = self.members(label=LETTERS, isPrimary=st.booleans(), emailOptIn=self.opt_ins())
        known = self.members(
            firstName=LETTERS,
            lastName=LETTERS,
            phones=st.dictionaries(self.mostly(GOOD_NUMBERS, BAD_NUMBERS), self.mostly(phone), max_size=2),
            emails=st.dictionaries(self.mostly(GOOD_ADDRESSES, BAD_ADDRESSES), self.mostly(email), max_size=2),
            address=self.members(street=LETTERS, city=LETTERS, state=LETTERS, zipcode=LETTERS, country=LETTERS),
            subBrand=LETTERS,
            plan=JUNK,
        )
        legacy = st.sampled_from(["phone", "email", "optIn"]).flatmap(lambda key: st.fixed_dictionaries({key: JUNK}))
        return st.tuples(known, self.mostly(st.just({}), legacy)).map(lambda both: both[0] | both[1])

    def whole(self) -> st.SearchStrategy[Any]:
        names = st.text("abc ", min_size=1)
        rest = {
            "traits": self.traits(),
            "originalTimestamp": self.mostly(GOOD_TIMESTAMPS, BAD_TIMESTAMPS),
            "eventSource": LETTERS,
        }
        properties = st.dictionaries(LETTERS, JUNK, max_size=2)
        update = self.members({"userId": names}, **rest)
        event = self.members({"userId": names, "name": names}, properties=properties, **rest)
        loose = self.members(userId=names, name=names, properties=properties, **rest)
        return st.one_of(update, event, loose) if self.noise else st.one_of(update, event)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(Bodies(noise=0).whole())
def test_our_models_accept_whatever_is_in_order_and_so_does_the_description(body):
    assert deviations(body) == []
    assert STRICT.is_valid(body)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(Bodies(noise=2).whole(), Bodies(noise=12).whole(), JUNK))
@example({"userId": "a", "traits": {"phones": {"+12125550100": None}}})
@example({"userId": None})
@example({"traits": {"phones": {}, "emails": {}}})
@example({"traits": {"phones": []}})
@example({"traits": None})
@example({"userId": "a", "traits": {"model_config": 1, "first_name": 2, "is_primary": 3, "copy": None}})
@example({"user_id": "a"})
@example({"userId": "a", "traits": {"phones": {"+12125550100": {"sms_opt_in": {"subscribed": True}}}}})
@example({"userId": "a", "traits": {"phones": {"+12125550100": {"isPrimary": 1}}}})
def test_our_models_and_the_description_agree_on_every_body(body):
    assert (deviations(body) == []) is STRICT.is_valid(body)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_description_pass_except_the_legacy_form(name):
    found = {finding.kind for finding in deviations(EXAMPLES[name]["value"])}
    assert found == ({"legacy_form"} if name == "legacyForm" else set())


def with_sms(**opt_in: Any) -> dict[str, Any]:
    return {"traits": {"phones": {"+12125550100": {"smsOptIn": opt_in}}}}


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ({"userId": "a", "messageId": "m"}, "unknown_top_level_key", "top-level key not in the contract: messageId"),
        ({"userId": "a", "traits": {"phones": []}}, "list_for_map", "phones is an array, not a map"),
        ({"userId": "a", "traits": {"emails": ["a@b"]}}, "list_for_map", "emails is an array, not a map"),
        (
            with_sms(subscribed="true"),
            "subscribed_not_boolean",
            "sms opt-in: subscribed is text, not a boolean",
        ),
        (with_sms(timestamp="2026-01-01"), "no_subscribed", "sms opt-in without subscribed"),
        (
            with_sms(subscribed=True, timestamp="soon"),
            "bad_timestamp",
            "traits.phones.+12125550100.smsOptIn.timestamp is in no documented form: soon",
        ),
        (
            with_sms(subscribed=True, at="2026-01-01"),
            "unknown_key",
            "key not in the contract: traits.phones.+12125550100.smsOptIn.at",
        ),
        (
            {"traits": {"phones": {"2125550100": {}}}},
            "number_not_e164",
            "phone key not in E.164 form: 2125550100",
        ),
        ({"traits": {"emails": {"nobody": {}}}}, "address_malformed", "email key is not an address: nobody"),
        (
            {"traits": {"phone": "+12125550100"}},
            "legacy_form",
            "legacy form: traits.phone instead of the phones or emails map",
        ),
        ({"userId": 7}, "wrong_type", "userId is a number, not text"),
        ({"userId": ""}, "empty_text", "userId is empty"),
        ({"userId": "a", "traits": None}, "wrong_type", "traits is null, not an object"),
        ({"name": "Seen"}, "no_identifier", "no identifier: neither userId nor a phone nor an email"),
        ({"userId": "a", "properties": {}}, "properties_without_name", "properties without an event name"),
        (["a"], "not_an_object", "the body is a list, not a JSON object"),
        ({"userId": "\ud800"}, "other_breach", "userId: string unicode"),
    ],
)
def test_each_deviation_is_one_finding_in_plain_words(body, kind, text):
    assert [(finding.kind, finding.text) for finding in deviations(body)] == [(kind, text)]


def test_several_deviations_are_several_findings():
    body = {"userId": "a", "messageId": "m", "type": "identify", "traits": {"phones": []}}
    assert len(deviations(body)) == 3


def test_contract_findings_are_counted_apart_from_behaviour_findings(regal):
    regal.post({"userId": "a", "messageId": "m", "traits": {"phones": {"+12125550100": {}}}})
    regal.post({"userId": "a", "messageId": "m", "traits": {"phones": {"+15555550100": {}}}})
    stats = regal.sandbox.stats()
    assert stats["contract_findings"] == {
        "unknown_top_level_key": {"count": 2, "text": "2 top-level keys not in the contract", "events": [1, 2]}
    }
    assert stats["behaviour_findings"]["number_dropped"] == {
        "count": 1,
        "text": "1 number dropped: not a valid phone number",
        "events": [2],
    }
    assert {finding["group"] for finding in regal.sandbox.events()[1]["findings"]} == {"contract", "behaviour"}


def test_a_body_in_perfect_order_has_no_findings_at_all(regal):
    for item in EXAMPLES.values():
        if "optIn" not in item["value"].get("traits", {}):
            regal.post(item["value"])
    assert regal.sandbox.stats()["contract_findings"] == {}
