"""The four events: Identify, Track, Page, Screen.

Each is normalized from what people write (``reading``), validated once, and frozen; ``payload`` converts it into
Regal's format. One :class:`~airflow_provider_regal.errors.InvalidEventError` lists all faults of an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import names
from airflow_provider_regal.events.consent import OptIn, Time
from airflow_provider_regal.events.contact import Email, Phone, check_emails, check_phones
from airflow_provider_regal.events.faults import as_faults
from airflow_provider_regal.events.identifiers import read_message_id, read_user_id
from airflow_provider_regal.events.options import Reading
from airflow_provider_regal.events.python_values import Text, is_missing, trimmed
from airflow_provider_regal.events.reading import draft_of
from airflow_provider_regal.events.traits import read_properties, read_traits


def event_name(value: str) -> str:
    """Return the name of an event, trimmed.

    :raises ValueError: Regal would not accept the name.
    """
    name = trimmed(value)
    if not name:
        raise ValueError("is empty; Regal needs the name of the event")
    if is_missing(name):
        raise ValueError("looks like a missing value that became text; Regal needs the name of the event")
    if name.lower() == "identify":
        raise ValueError("'identify' is not an event to Regal; use Identify to update a contact")
    return name


Properties = Annotated[dict[str, Any], BeforeValidator(read_properties)]


class Event(BaseModel):
    """The fields of every event: who it is about, and when it happened.

    At least one of user id, phone and email is needed. An event may be written with these names, in Regal's own format
    (``userId``, ``traits.phones`` as a map) or in Segment's (``traits.phone``, ``traits.optIn[]``).

    :param user_id: your own id of the person; text, numbers keep their digits.
    :param phones: phones as a map (``{number: {...}}``) or a list; ``phone=`` sets a single one.
    :param emails: emails as a map or a list; ``email=`` sets a single one.
    :param traits: attributes of the contact; times, Decimals, UUIDs, numpy and pandas scalars are converted.
    :param timestamp: when it happened; a time without a zone is in the time zone of the reading (UTC).
    :param event_source: where the event comes from; by default the connection's ``event_source``.
    :param message_id: your own id of this message, which a delivery sends only once; not sent to Regal.
    :param unplaced: opt-ins that can't be assigned to a phone or email of the event.
    :param left_out: invalid phones and emails that were dropped: kind, place and reason.
    :raises InvalidEventError: with every fault of the event.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    call: ClassVar[str]
    promotes: ClassVar[bool] = False
    aliases: ClassVar[Mapping[str, str]] = names.EVENT_ALIASES

    user_id: Annotated[str, BeforeValidator(read_user_id)] | None = None
    phones: Annotated[tuple[Phone, ...], AfterValidator(check_phones)] = ()
    emails: Annotated[tuple[Email, ...], AfterValidator(check_emails)] = ()
    traits: Annotated[dict[str, Any], BeforeValidator(read_traits)] = Field(default_factory=dict)
    timestamp: Time = None
    event_source: Text | None = None
    message_id: Annotated[str | None, BeforeValidator(read_message_id)] = None
    unplaced: tuple[OptIn, ...] = Field(default=(), repr=False)
    left_out: tuple[tuple[str, Fault], ...] = Field(default=(), repr=False)

    if TYPE_CHECKING:  # more may be written than is stored

        def __init__(self, **written: Any) -> None: ...

    @classmethod
    def read(cls, written: Mapping[str, Any], reading: Reading | None = None) -> Self:
        """Read a written event with a custom reading (time zone, nulls)."""
        return cls.model_validate(written, context=reading)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, written: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(written, cls):
            return handler(written)
        if not isinstance(written, Mapping):
            reason = f"must be an object, not a {type(written).__name__}"
            raise InvalidEventError(cls.call, [Fault("the event", reason)])
        draft = draft_of(written, cls.aliases, promotes=cls.promotes, drops=Reading.of(info).drops)
        faults = draft.faults
        try:
            event = handler(draft.fields)
        except ValidationError as error:
            faults += as_faults(error, draft.origin)
        # Raised outside the handler: pydantic's error contains values, and the faults say everything without them.
        if faults:
            raise InvalidEventError(cls.call, faults)
        return event


class Identify(Event):
    """Create a contact or update its attributes and consent.

    .. code-block:: python

        Identify(traits={"phone": "+19175554444", "firstName": "Anne", "lastName": "Smith"})

    A single ``phone`` or ``email`` becomes the contact's primary one, as with Regal's Segment destination.
    """

    call: ClassVar[str] = "identify"
    promotes: ClassVar[bool] = True


class Track(Event):
    """Record that a person did something. In Regal this can start a journey, and therefore a call.

    :param event: the name of the event, case sensitive in Regal's triggers.
    :param properties: details of the event.
    """

    call: ClassVar[str] = "track"
    aliases: ClassVar[Mapping[str, str]] = MappingProxyType({**names.EVENT_ALIASES, names.NAME: "event"})

    event: Annotated[Text, AfterValidator(event_name)]
    properties: Properties = Field(default_factory=dict)


class Page(Event):
    """Record that a person saw a web page; Regal receives the event ``pageview``.

    :param name: the page's name; sent as a property.
    :param category: the page's category; sent as a property.
    :param properties: such as ``url``, ``path``, ``referrer``, ``title``.
    """

    call: ClassVar[str] = "page"
    regal_name: ClassVar[str] = names.PAGE_NAME

    name: Text | None = None
    category: Text | None = None
    properties: Properties = Field(default_factory=dict)


class Screen(Page):
    """Record that a person saw a screen of your app; Regal receives the event ``screen``.

    :param name: the screen's name; sent as a property.
    :param category: the screen's category; sent as a property.
    :param properties: details of the event.
    """

    call: ClassVar[str] = "screen"
    regal_name: ClassVar[str] = names.SCREEN_NAME


EVENTS: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {kind.call: kind for kind in (Identify, Track, Page, Screen)}
)
