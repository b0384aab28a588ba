"""The contract, restated in our own strict models: what a well-behaved client sends to ``POST /events``.

It accepts exactly what ``StrictEventRequest`` of the OpenAPI description accepts; a test compares the two. Regal itself
is far more lenient: a deviation is a finding, never a bad answer.
"""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from airflow_provider_regal.sandbox.processing.findings import Finding
from airflow_provider_regal.sandbox.processing.wording import breach, type_word

# [0-9], not \d, which would accept digits of every script.
_TIMESTAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?( ?([+-][0-9]{2}:?[0-9]{2})|Z)?)?$"
)


def _refuse(value: object) -> NoReturn:
    raise PydanticCustomError("legacy_form", "the legacy form is not part of the contract")


Text = Annotated[str, Field(min_length=1)]
Timestamp = Annotated[str, Field(pattern=_TIMESTAMP)]
PhoneNumber = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$")]
EmailAddress = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
Forbidden = Annotated[None, BeforeValidator(_refuse)]


class _Strict(BaseModel):
    # Defaults below only mean "may be absent": they are never validated, and an explicit null is refused.
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class OptIn(_Strict):
    """Consent of one phone or email on one channel."""

    subscribed: bool
    timestamp: Timestamp = ""
    ip: str = ""
    text: str = ""
    source: str = ""


_ABSENT = OptIn(subscribed=False)


class PhoneInfo(_Strict):
    """The details of one phone."""

    label: str = ""
    is_primary: bool = False
    voice_opt_in: OptIn = _ABSENT
    sms_opt_in: OptIn = _ABSENT


class EmailInfo(_Strict):
    """The details of one email address."""

    label: str = ""
    is_primary: bool = False
    email_opt_in: OptIn = _ABSENT


class Address(_Strict):
    """A postal address; may have other members."""

    model_config = ConfigDict(extra="allow")
    street: str = ""
    city: str = ""
    state: str = ""
    zipcode: str = ""
    country: str = ""


class Traits(_Strict):
    """A contact's attributes; members not named here are custom attributes."""

    model_config = ConfigDict(extra="allow")
    first_name: str = ""
    last_name: str = ""
    phones: dict[PhoneNumber, PhoneInfo] = {}
    emails: dict[EmailAddress, EmailInfo] = {}
    phone: Forbidden = None
    email: Forbidden = None
    opt_in: Forbidden = None
    address: Address = Address()
    sub_brand: str = ""


class EventRequest(_Strict):
    """One call: upsert a contact, record an event, or both."""

    user_id: Text = ""
    traits: Traits = Traits()
    name: Text = ""
    properties: dict[str, Any] = {}
    original_timestamp: Timestamp = ""
    event_source: str = ""


def deviations(body: object) -> list[Finding]:
    """Return everything in a body that a well-behaved client would not send, one finding each."""
    if not isinstance(body, dict):
        return [Finding("not_an_object", f"the body is {type_word(body)}, not a JSON object")]
    found = []
    try:
        EventRequest.model_validate(body)
    except ValidationError as error:
        found = [breach(problem["loc"], problem["type"], problem["input"]) for problem in error.errors()]
    if not _identifies(body):
        found.append(Finding("no_identifier", "no identifier: neither userId nor a phone nor an email"))
    if "properties" in body and "name" not in body:
        found.append(Finding("properties_without_name", "properties without an event name"))
    return found


def _identifies(body: dict[str, Any]) -> bool:
    # Presence only: a value of the wrong type has its own finding.
    if "userId" in body:
        return True
    traits = body.get("traits")
    if not isinstance(traits, dict):
        return "traits" in body
    return any(traits.get(key, {}) != {} for key in ("phones", "emails")) or "phone" in traits or "email" in traits
