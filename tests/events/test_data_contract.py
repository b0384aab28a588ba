"""A contract: the violations it finds in an event, and errors in a contract itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_regal.events.data_contract import DataContract

PHONE = "+12125550100"


def no_file(path):
    raise AssertionError(f"{path} was read")


def loaded(given, read=no_file, **what):
    contract = DataContract(given)
    contract.load(read, **what)
    return contract


def faults(given, body):
    return {fault.field: fault.reason for fault in loaded(given).faults_of(body)}


def of_traits(schema, traits, **more):
    return faults({"traits": schema, **more}, {"traits": traits})


ORDERS = {
    "events": {
        "Order Placed": {
            "required": ["order_id", "total"],
            "properties": {
                "order_id": {"type": "string"},
                "total": {"type": "number"},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
            },
            "additionalProperties": False,
        },
        "pageview": {},
    },
    "$defs": {"line": {"required": ["sku"], "properties": {"sku": {"type": "string"}}}},
}


class TestFaults:
    def test_all_that_is_wrong_is_said_at_once_each_with_its_place(self):
        properties = {"orderId": 7, "total": "12", "lines": [{"sku": "a"}, {}, {"sku": 3}]}
        assert faults(ORDERS, {"name": "Order Placed", "properties": properties}) == {
            "properties.order_id": "required by the contract, missing",
            "properties.orderId": "is not in the contract (did you mean 'order_id'?)",
            "properties.total": "is text, but the contract requires a number",
            "properties.lines[1].sku": "required by the contract, missing",
            "properties.lines[2].sku": "is a number, but the contract requires text",
        }

    def test_what_meets_it_has_none(self):
        properties = {"order_id": "7", "total": 12, "lines": [{"sku": "a"}]}
        assert faults(ORDERS, {"name": "Order Placed", "properties": properties}) == {}

    def test_an_event_without_properties_lacks_them(self):
        assert set(faults(ORDERS, {"name": "Order Placed"})) == {"properties.order_id", "properties.total"}

    @pytest.mark.parametrize(
        ("name", "hint"), [("Order placed", " (did you mean 'Order Placed'?)"), ("screen", ""), ("x", "")]
    )
    def test_an_event_that_is_not_in_it_is_wrong(self, name, hint):
        assert faults(ORDERS, {"name": name}) == {"event": f"is not in the contract{hint}"}

    @pytest.mark.parametrize(
        ("schema", "value", "reason"),
        [
            ({"type": "integer"}, 1.5, "is a number, but the contract requires a whole number"),
            ({"type": ["string", "null"]}, True, "is a boolean, but the contract requires text or null"),
            ({"type": "string"}, None, "is null, but the contract requires text"),
            ({"type": "array"}, {"a": 1}, "is an object, but the contract requires a list"),
            ({"enum": ["gold", "silver"]}, "Jane", 'is not one of the values in the contract: "gold", "silver"'),
            ({"enum": [1, 2, 3, 4, 5, 6]}, 7, "is not one of the values in the contract"),
            ({"const": 5}, 7, "is not one of the values in the contract"),
            ({"minimum": 10}, 7, "violates minimum 10 of the contract"),
            ({"pattern": "^A"}, "Jane", 'violates pattern "^A" of the contract'),
            ({"maxLength": 2}, "Jane", "violates maxLength 2 of the contract"),
            ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 7, "violates anyOf of the contract"),
            (False, "Jane", "is forbidden by the contract"),
            ({"format": "date"}, "02/03/2026", "is not a date such as 2026-03-02, as the contract requires"),
            ({"format": "date"}, "2026-02-30", "is not a date such as 2026-03-02, as the contract requires"),
            ({"format": "email"}, "Jane", "is not an email address, as the contract requires"),
            ({"format": "uuid"}, "Jane", "is not a UUID, as the contract requires"),
            (
                {"format": "date-time"},
                "2026-03-02",
                "is not a time with its zone, such as 2026-03-02 14:05:09 +00:00, as the contract requires",
            ),
        ],
    )
    def test_each_kind_of_fault_says_what_is_expected_and_no_value(self, schema, value, reason):
        assert of_traits({"properties": {"plan": schema}}, {"plan": value}) == {"traits.plan": reason}

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("date", "2026-03-02"),
            ("date-time", "2026-03-02 14:05:09 +00:00"),
            ("date-time", "2026-03-02T14:05:09.5Z"),
            ("email", "anne@example.com"),
            ("uuid", "00000000-0000-0000-0000-000000000005"),
            ("date", 5),
        ],
    )
    def test_a_format_lets_through_what_is_of_it_and_what_is_no_text(self, kind, value):
        assert of_traits({"properties": {"plan": {"format": kind}}}, {"plan": value}) == {}

    def test_what_one_name_needs_of_another(self):
        schema = {"dependentRequired": {"plan": ["since", "price"]}}
        assert set(of_traits(schema, {"plan": "gold", "price": 5})) == {"traits.since"}

    def test_a_name_that_a_pattern_allows_is_known(self):
        schema = {"patternProperties": {"^x_": {}}, "additionalProperties": False}
        assert set(of_traits(schema, {"x_a": 1, "y": 2})) == {"traits.y"}

    def test_a_name_that_looks_personal_is_masked(self):
        found = of_traits({"additionalProperties": False}, {"anne@example.com": 1, PHONE: 2})
        assert found == {"traits.***": "is not in the contract"}

    def test_no_row_has_more_faults_than_people_read(self):
        assert len(of_traits({"properties": {"a": {"items": {"type": "null"}}}}, {"a": ["x"] * 10_000})) == 50

    def test_one_that_refers_to_itself_without_end_rejects_what_can_not_be_checked(self):
        found = of_traits({"$ref": "#/$defs/a"}, {"plan": 1}, **{"$defs": {"a": {"$ref": "#/$defs/a"}}})
        assert found == {"traits": "can't be checked: the contract refers to itself without end"}


PLAN = {"required": ["plan"], "properties": {"plan": {"type": "string"}}, "additionalProperties": False}


class TestTraits:
    def test_phones_and_emails_are_regals_own(self):
        body = {"traits": {"plan": "gold", "phones": {PHONE: {}}, "emails": {"anne@example.com": {}}}}
        assert faults({"traits": PLAN}, body) == {}

    def test_a_contact_without_traits_lacks_them(self):
        assert set(faults({"traits": PLAN}, {"userId": "anne"})) == {"traits.plan"}

    def test_traits_of_an_event_are_checked_but_none_is_required_there(self):
        contract = {"traits": PLAN, "events": {"A": {}}}
        assert faults(contract, {"name": "A", "traits": {"phones": {PHONE: {}}}}) == {}
        assert set(faults(contract, {"name": "A", "traits": {"plan": 5, "tariff": 1}})) == {
            "traits.plan", "traits.tariff",
        }  # fmt: skip

    def test_what_is_required_within_a_trait_is_required_in_an_event_as_well(self):
        contract = {"traits": {"properties": {"car": {"required": ["make"]}}}, "events": {"A": {}}}
        assert set(faults(contract, {"name": "A", "traits": {"car": {}}})) == {"traits.car.make"}

    def test_a_contract_of_contacts_says_nothing_of_events(self):
        assert faults({"traits": PLAN}, {"name": "A", "properties": {"x": 1}}) == {}


class TestAWrongContract:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, 'it has neither "traits" nor "events"'),
            ({"trait": {}}, 'trait is not part of a contract, which has "traits", "events" and "$defs"'),
            ({"events": []}, "events must be an object"),
            ({"traits": {"enum": {1, 2}}}, "it has no JSON form: Object of type set is not JSON serializable"),
        ],
    )
    def test_a_dictionary_that_can_be_none_is_refused_when_it_is_written(self, given, message):
        with pytest.raises(ValueError, match="The contract is wrong") as caught:
            DataContract(given)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            ({"type": "strng"}, "traits.type 'strng' is not valid"),
            ({"properties": {"plan": {"required": "a"}}}, "traits.properties.plan.required 'a' is not of type 'array'"),
            ({"properties": {"plan": {"pattern": "("}}}, "traits.properties.plan.pattern '(' is not a 'regex'"),
            ({"plan": {"type": "string"}}, "traits.plan is not checked in contracts"),
            (
                {"anyOf": [{"additionalproperties": False}]},
                "additionalproperties is not checked in contracts (did you mean 'additionalProperties'?)",
            ),
            ({"items": {"format": "hostname"}}, "traits.items.format 'hostname' is not checked. Formats are date,"),
            ({"$schema": "http://json-schema.org/draft-07/schema#"}, "traits.$schema must be https://json-schema.org"),
            ({"$id": "https://example.com/a"}, "traits.$id is not checked in contracts"),
            (
                {"$ref": "https://example.com/a.json"},
                "traits.$ref 'https://example.com/a.json' is not a schema of this",
            ),
            ({"$ref": "other.json#/traits"}, "traits.$ref 'other.json#/traits' is not a schema of this contract, and"),
            ({"$ref": "#/$defs/none"}, "traits.$ref '#/$defs/none' is not a schema of this contract, and nothing is"),
            ({"$ref": "#/traits/properties"}, "traits.$ref '#/traits/properties' is not a schema of this contract"),
        ],
    )
    def test_a_schema_that_would_be_misread_or_ignored_is_refused_before_a_row_is(self, schema, message):
        contract = DataContract({"traits": schema})
        with pytest.raises(ValueError, match="The contract is wrong") as caught:
            contract.load(no_file)
        assert message in str(caught.value)

    def test_a_contract_of_another_draft_is_refused(self):
        with pytest.raises(ValueError, match=r"\$schema must be https://json-schema.org/draft/2020-12/schema"):
            loaded({"$schema": "http://json-schema.org/draft-04/schema#", "traits": {}})

    def test_a_name_with_signs_of_pointers_can_be_referred_to(self):
        given = {"traits": {"properties": {"a": {"$ref": "#/$defs/x~1y%20z"}}}, "$defs": {"x/y z": {"type": "null"}}}
        assert set(faults(given, {"traits": {"a": 1}})) == {"traits.a"}

    @pytest.mark.parametrize("path", ["contract.json", "./contract.json", ""])
    def test_a_relative_path_is_refused_with_what_to_write(self, path):
        with pytest.raises(ValueError, match=r"absolute path.*Path\(__file__\).with_name"):
            DataContract(path)

    @pytest.mark.parametrize("given", [5, True, ["a"], b"/c.json"])
    def test_what_is_neither_is_refused(self, given):
        with pytest.raises(ValueError, match="must be a dictionary or the path of a file, not a "):
            DataContract(given)


class TestAFile:
    def test_it_is_read_once_when_it_is_loaded(self):
        asked = []
        contract = DataContract("/c.json")
        assert asked == []
        contract.load(lambda path: asked.append(path) or json.dumps(ORDERS).encode())
        contract.load(no_file)
        assert (asked, len(contract.faults_of({"name": "Order Placed"}))) == (["/c.json"], 2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"{", r"The contract /c.json is not JSON: Expecting property name"),
            (b"\xff\xfe\xff", r"The contract /c.json is not JSON"),
            (b"[]", r"The contract /c.json is wrong: it must be an object"),
            (b'{"traits": {"type": 5}}', r"The contract /c.json is wrong: traits.type 5 is not valid"),
        ],
    )
    def test_one_that_is_no_contract_is_named_with_the_place(self, text, message):
        with pytest.raises(ValueError, match=message):
            loaded("/c.json", lambda path: text)

    def test_one_that_is_missing_is_named(self):
        def missing(path):
            raise FileNotFoundError(path)

        with pytest.raises(ValueError, match=r"The contract /c.json can't be read: FileNotFoundError"):
            loaded("/c.json", missing)

    def test_a_storage_that_does_not_answer_can_be_tried_again(self):
        def times_out(path):
            raise TimeoutError

        with pytest.raises(TimeoutError):
            loaded("/c.json", times_out)


class TestWhatItDescribes:
    @pytest.mark.parametrize(
        ("given", "what", "message"),
        [
            ({"events": {}}, {"call": "identify"}, 'it has no "traits", so identify events cannot be checked'),
            ({"traits": {}}, {"call": "track"}, 'it has no "events", so track events cannot be checked'),
            ({"events": {}}, {"call": "page"}, "events have no 'pageview'"),
            ({"events": {}}, {"call": "screen"}, "events have no 'screen'"),
            (
                ORDERS,
                {"call": "track", "event": "Order Plced"},
                "events have no 'Order Plced' (did you mean 'Order Placed'?)",
            ),
        ],
    )
    def test_one_that_does_not_describe_what_is_sent_is_an_error_and_not_one_a_row(self, given, what, message):
        with pytest.raises(ValueError, match="The contract is wrong") as caught:
            loaded(given, **what)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        "what",
        [
            {"call": "track", "event": "Order Placed"},
            {"call": "track"},
            {"call": "page"},
            {"call": "track", "event": "{{ params.event }}"},
        ],
    )
    def test_one_that_does_is_taken(self, what):
        loaded(ORDERS, **what)


def test_nothing_is_loaded_before_a_contract_is():
    code = (
        "import sys; from airflow_provider_regal.events.data_contract import DataContract as C; "
        "c = C({'traits': {}}); before = 'jsonschema' in sys.modules; c.load(None); "
        "assert (before, 'jsonschema' in sys.modules) == (False, True)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
