"""Contracts: JSON Schemas of an account's traits and events, checked before anything is sent.

::

    {"traits": schema, "events": {"Order Placed": schema}, "$defs": {...}}

A contract is checked against what Regal would receive: names and types after mapping. Messages contain no values of a
row. Nothing is fetched, and no part of a contract is ignored: an unsupported keyword is an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.names import EMAILS, NAME, PAGE_NAME, PHONES, PROPERTIES, SCREEN_NAME, TRAITS

if TYPE_CHECKING:
    from jsonschema import ValidationError

Place = tuple[int | str, ...]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EVENTS: Final = "events"
#: Regal defines their form, and consent has its own rules.
NOT_IN_CONTRACTS: Final = frozenset({PHONES, EMAILS})
_DEFS: Final = "$defs"
_NOTES: Final = frozenset({"$schema", "$comment", "title", "description"})
_EVENT_OF_CALL: Final = {"page": PAGE_NAME, "screen": SCREEN_NAME}
_MOST_FAULTS: Final = 50  # per row
_VALUES_SHOWN: Final = 5
# A named event may include traits, but need not.
_OF_WHOLE_CONTACTS: Final = frozenset({"required", "dependentRequired", "minProperties"})
# Keywords that contain one schema, a list of schemas, or an object of schemas.
_WITH_ONE: Final = frozenset(
    {
        *("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
_WITH_MANY: Final = frozenset(
    {"allOf", "anyOf", "oneOf", "prefixItems", "properties", "patternProperties", "dependentSchemas", _DEFS}
)
_WITHOUT: Final = frozenset(
    {
        *("type", "enum", "const", "format", "pattern", "minLength", "maxLength", "multipleOf", "minimum", "maximum"),
        *("exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
        *("minProperties", "maxProperties", "required", "dependentRequired", "$ref"),
        *("default", "examples", "deprecated", "readOnly", "writeOnly"),
        *_NOTES,
    }
)
_KEYWORDS: Final = _WITH_ONE | _WITH_MANY | _WITHOUT
_KINDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "a boolean",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_TYPES: Final = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


class DataContract:
    """A contract, as given in the option ``contract``.

    :param given: the contract itself, or the absolute path or URI of a JSON file that holds it.
    :raises ValueError: it is neither.
    """

    def __init__(self, given: Mapping[str, Any] | str | os.PathLike[str]) -> None:
        self.path: str | None = None
        self._document: Mapping[str, Any] | None = None
        if isinstance(given, Mapping):
            self._take(given)
        elif isinstance(given, (str, os.PathLike)):
            self.path = str(given)
            if not self.path.startswith("/") and "://" not in self.path:
                raise ValueError(
                    "contract must be a dictionary, an absolute path, or a URI such as s3://bucket/contract.json, not "
                    f"{self.path!r}. For a file beside the DAG write Path(__file__).with_name('contract.json')"
                )
        else:
            raise ValueError(f"contract must be a dictionary or the path of a file, not a {type(given).__name__}")

    def load(self, read: Callable[[str], bytes], *, call: str | None = None, event: str | None = None) -> None:
        """Read and validate the contract, before the first row is checked.

        :param read: reads a file.
        :param call: the call that will be sent, if known.
        :param event: the event name, if all events have the same one.
        :raises ValueError: the file can't be read, it is not a contract, or it does not describe what is sent.
        """
        if self._document is None and self.path is not None:
            try:
                text = read(self.path)
            except (FileNotFoundError, IsADirectoryError, PermissionError) as error:  # other failures may be temporary
                raise ValueError(f"The contract {self.path} can't be read: {type(error).__name__}") from None
            try:
                document = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"The contract {self.path} is not JSON: {error}") from None
            self._take(document)
        if call is not None:
            self.check_describes(call, event)
        _ = self._compiled

    def check_describes(self, call: str, event: str | None = None) -> None:
        """Check that the contract covers what is going to be sent, if it has been read.

        :raises ValueError: it does not.
        """
        if self._document is None:
            return
        part = TRAITS if call == "identify" else EVENTS
        if part not in self._document:
            raise self._wrong(
                (), f'has no "{part}", so {call} events cannot be checked. Add "{part}", or remove contract='
            )
        name = _EVENT_OF_CALL.get(call, event)
        if part == EVENTS and name is not None and "{" not in name and name not in self._document[EVENTS]:
            raise self._wrong(
                (EVENTS,), f"have no {name!r}{hint(name, self._document[EVENTS])}. Add it, or correct the name"
            )

    def faults_of(self, body: Mapping[str, Any]) -> list[Fault]:
        """Return everything that violates the contract in what would be sent."""
        traits, events = self._compiled
        name = body.get(NAME)
        found: list[Fault] = []
        if traits is not None:
            given = {key: value for key, value in body.get(TRAITS, {}).items() if key not in NOT_IN_CONTRACTS}
            if name is None:
                found += _faults(traits, given, TRAITS)
            elif given:
                found += _faults(traits, given, TRAITS, leave_out=_OF_WHOLE_CONTACTS)
        if name is not None and events is not None:
            if name in events:
                found += _faults(events[name], body.get(PROPERTIES, {}), PROPERTIES)
            else:
                found.append(Fault("event", f"is not in the contract{hint(name, events)}"))
        return found

    def _take(self, document: Any) -> None:
        """Accept the contract and check its parts, without loading any library."""
        if not isinstance(document, Mapping):
            raise self._wrong((), 'must be an object with "traits", "events", or both')
        if odd := sorted(set(map(str, document)) - {TRAITS, EVENTS, _DEFS, *_NOTES}):
            raise self._wrong((odd[0],), f'is not part of a contract, which has "{TRAITS}", "{EVENTS}" and "{_DEFS}"')
        if TRAITS not in document and EVENTS not in document:
            raise self._wrong((), f'has neither "{TRAITS}" nor "{EVENTS}"')
        for part in (TRAITS, EVENTS, _DEFS):
            if part in document and not isinstance(document[part], Mapping):
                raise self._wrong((part,), "must be an object")
        try:
            self._document = json.loads(json.dumps(document))  # a Python dictionary may contain anything
        except (TypeError, ValueError, RecursionError) as error:
            raise self._wrong((), f"has no JSON form: {error}") from None

    @property
    def document(self) -> Mapping[str, Any]:
        """The contract itself; empty until a file is read."""
        return self._document or {}

    @cached_property
    def _compiled(self) -> tuple[Any, dict[str, Any] | None]:
        """The validators of traits and of each event by its name.

        :raises ValueError: a schema is invalid.
        """
        from jsonschema import Draft202012Validator, SchemaError

        if self._document is None:
            raise ValueError(f"the contract {self.path} was not loaded")
        document = self._document
        schemas: dict[Place, Any] = {(TRAITS,): document[TRAITS]} if TRAITS in document else {}
        for part in (EVENTS, _DEFS):
            schemas |= {(part, name): schema for name, schema in document.get(part, {}).items()}
        for place, schema in schemas.items():
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as error:
                raise self._wrong((*place, *error.absolute_path), error.message) from None
        within = dict(each for place, schema in schemas.items() for each in _within(schema, place))
        self._check(within, document)
        for schema in within.values():  # jsonschema does not report the name of a property whose schema is False
            members = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
            members.update({name: {"not": {}} for name, member in members.items() if member is False})
        whole = Draft202012Validator(document, format_checker=_formats())
        return (
            whole.evolve(schema=document[TRAITS]) if TRAITS in document else None,
            {name: whole.evolve(schema=schema) for name, schema in document[EVENTS].items()}
            if EVENTS in document
            else None,
        )

    def _check(self, schemas: Mapping[Place, Any], document: Mapping[str, Any]) -> None:
        """Check that every schema uses only supported keywords."""
        from urllib.parse import unquote

        pointers = {
            "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place) for place in schemas
        }
        for place, schema in [((), {"$schema": document.get("$schema", DIALECT)}), *schemas.items()]:
            if not isinstance(schema, Mapping):
                continue
            for keyword, value in schema.items():
                here = (*place, keyword)
                if keyword not in _KEYWORDS and not keyword.startswith("x-"):
                    raise self._wrong(here, f"is not checked in contracts{hint(keyword, _KEYWORDS)}")
                if keyword == "$schema" and value.removesuffix("#") != DIALECT:
                    raise self._wrong(here, f"must be {DIALECT}")
                if keyword == "format" and value not in _FORMATS:
                    raise self._wrong(
                        here, f"{value!r} is not checked. Formats are {', '.join(_FORMATS)}; or use pattern"
                    )
                if keyword == "$ref" and (value[:1] != "#" or unquote(value[1:]) not in pointers):
                    raise self._wrong(
                        here, f"{value!r} is not a schema of this contract, and nothing is fetched. Copy it to {_DEFS}"
                    )

    def _wrong(self, place: Place, what: str) -> ValueError:
        where = ".".join(map(str, place))
        return ValueError(f"The contract {f'{self.path} ' if self.path else ''}is wrong: {where or 'it'} {what}")


def _within(schema: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Return a schema and all schemas inside it, each with its place."""
    yield place, schema
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword in _WITH_ONE:
            yield from _within(value, (*place, keyword))
        elif keyword in _WITH_MANY:
            for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
                yield from _within(one, (*place, keyword, key))


# -- what is wrong with a row ---------------------------------------------------------------------------------------


def _faults(validator: Any, given: Any, part: str, *, leave_out: frozenset[str] = frozenset()) -> list[Fault]:
    from airflow_provider_regal.events.faults import path_of

    found: dict[Fault, None] = {}
    try:
        for error in islice(validator.iter_errors(given), _MOST_FAULTS):
            if error.validator not in leave_out or error.absolute_path:
                place = (part, *error.absolute_path)
                found |= {Fault(path_of((*place, *below)), reason): None for below, reason in _reasons(error)}
    except RecursionError:
        return [Fault(part, "can't be checked: the contract refers to itself without end")]
    return list(found)


def _reasons(error: ValidationError) -> Iterator[tuple[Place, str]]:
    """Return what is wrong and where, relative to the error's place; jsonschema's own messages quote values."""
    given: Any = error.instance
    keyword: Any = error.validator
    wanted: Any = error.validator_value
    schema: Any = error.schema
    match keyword:
        case "required":
            yield from (((name,), "required by the contract, missing") for name in wanted if name not in given)
        case "dependentRequired":
            needed = {name for key, names in wanted.items() if key in given for name in names}
            yield from (((name,), "required by the contract, missing") for name in sorted(needed - given.keys()))
        case "additionalProperties" if wanted is False:
            known = schema.get("properties", {})
            patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", ())]
            for name in given:
                if name not in known and not any(pattern.search(name) for pattern in patterns):
                    yield (name,), f"is not in the contract{hint(name, known)}"
        case "type":
            kinds = [_KINDS[kind] for kind in ([wanted] if isinstance(wanted, str) else wanted)]
            yield (), f"is {_TYPES.get(type(given), 'null')}, but the contract requires {' or '.join(kinds)}"
        case "enum" if len(wanted) <= _VALUES_SHOWN:
            yield (), f"is not one of the values in the contract: {', '.join(map(json.dumps, wanted))}"
        case "const" | "enum":
            yield (), "is not one of the values in the contract"
        case "format":
            yield (), f"is not {_FORMATS[wanted][0]}, as the contract requires"
        case "not" if not wanted:
            yield (), "is forbidden by the contract"
        case _:
            shown = f" {json.dumps(wanted)}" if isinstance(wanted, (str, int, float)) else ""
            yield (), f"violates {keyword}{shown} of the contract"


def hint(name: str, known: Iterable[str]) -> str:
    """Suggest the intended name, if one is close."""
    from difflib import get_close_matches

    bare = {"".join(filter(str.isalnum, one.casefold())): one for one in known}
    near = get_close_matches("".join(filter(str.isalnum, name.casefold())), bare, n=1, cutoff=0.8)
    return f" (did you mean {bare[near[0]]!r}?)" if near else ""


# -- formats --------------------------------------------------------------------------------------------------------


def _is_date(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None and bool(date.fromisoformat(text))


def _is_time(text: str) -> bool:
    shape = r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,6})? ?(Z|[+-]\d\d:\d\d)"
    found = re.fullmatch(shape, text)
    return found is not None and bool(datetime.fromisoformat(f"{found[1]} {found[2]}"))


def _is_email(text: str) -> bool:
    from airflow_provider_regal.events.identifiers import read_email

    return bool(read_email(text))


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"[\da-fA-F]{8}(-[\da-fA-F]{4}){3}-[\da-fA-F]{12}", text) is not None


_FORMATS: Final[Mapping[str, tuple[str, Callable[[str], bool]]]] = {
    "date": ("a date such as 2026-03-02", _is_date),
    "date-time": ("a time with its zone, such as 2026-03-02 14:05:09 +00:00", _is_time),
    "email": ("an email address", _is_email),
    "uuid": ("a UUID", _is_uuid),
}


def _formats() -> Any:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, (_, fits) in _FORMATS.items():
        checker.checks(name, raises=ValueError)(lambda value, fits=fits: not isinstance(value, str) or fits(value))
    return checker
