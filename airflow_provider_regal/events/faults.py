"""pydantic's findings as faults: the field in the writer's words, the reason without the value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from airflow_provider_regal.errors import Fault

_REASONS = MappingProxyType(
    {
        "missing": "is missing",
        "string_type": "must be text",
        "extra_forbidden": "is not a field of this event; remove it, or put it into traits or properties",
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "tuple_type": "must be a list",
        "literal_error": "must be sms, voice or email",
    }
)


class ManyFaults(ValueError):
    """Faults found inside one field, such as several traits at once."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = tuple(faults)


def as_faults(error: ValidationError, origin: Callable[[tuple[int | str, ...]], str]) -> list[Fault]:
    """Turn everything pydantic found into faults.

    :param origin: names a location in the words of whoever wrote the event.
    """
    faults: list[Fault] = []
    for details in error.errors(include_url=False, include_input=False):
        raised = details.get("ctx", {}).get("error")
        if isinstance(raised, ManyFaults):
            faults += raised.faults
        else:
            faults.append(Fault(origin(details["loc"]) or "the event", _reason(details, raised)))
    return faults


def _reason(details: ErrorDetails, raised: object) -> str:
    if isinstance(raised, ValueError):
        return str(raised)
    return _REASONS.get(details["type"]) or details["msg"]
