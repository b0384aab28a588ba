"""Faults and their places: the field in the writer's terms, the reason without the value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.privacy import shown_key

# A place in an event: names of members and positions in lists, from the top down.
Location = tuple[int | str, ...]

_REASONS = MappingProxyType(
    {
        "missing": "is missing",
        "string_type": "must be text",
        "extra_forbidden": "is not a field of this event; remove it, or put it into traits or properties",
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "tuple_type": "must be a list",
        "literal_error": "must be sms, voice or email",
        "invalid_key": "the name of a member is not text",
        "string_unicode": "the name of a member is not valid Unicode (half of a surrogate pair)",
    }
)


class InnerFaultsError(ValueError):
    """Several faults inside one field, such as several traits.

    :param faults: the place of each below the field, and its reason.
    """

    def __init__(self, faults: Sequence[tuple[Location, str]]) -> None:
        super().__init__("; ".join(f"{path_of(where)}: {reason}" for where, reason in faults[:5]))
        self.faults = tuple(faults)


def path_of(location: Location) -> str:
    """Format a place as ``traits.optIn[1].timestamp``; keys that look like personal data are masked."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" for part in location)
    return "".join(parts).removeprefix(".") or "the event"


def as_faults(error: ValidationError, origin: Callable[[Location], Location]) -> list[Fault]:
    """Convert all of pydantic's errors into faults.

    :param origin: returns where the writer had put the value that is now at a place.
    """
    faults: list[Fault] = []
    for details in error.errors(include_url=False, include_input=False):
        raised = details.get("ctx", {}).get("error")
        found = raised.faults if isinstance(raised, InnerFaultsError) else [((), _reason(details, raised))]
        faults += [Fault(path_of(origin((*details["loc"], *below))), reason) for below, reason in found]
    return faults


def _reason(details: ErrorDetails, raised: object) -> str:
    if isinstance(raised, ValueError):
        return str(raised)
    return _REASONS.get(details["type"]) or details["msg"]
