"""Traits of a contact and properties of an event: free-form, but for the few whose type Regal's contract fixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events import names
from airflow_provider_regal.events.faults import ManyFaults
from airflow_provider_regal.events.values import JsonWriter, Reading


def read_traits(given: Any, info: ValidationInfo) -> dict[str, Any]:
    """Convert the traits of a contact to JSON.

    :raises ManyFaults: every fault of every trait.
    """
    traits = _read_object(given, "traits", info, _check_standard_traits)
    return traits


def read_properties(given: Any, info: ValidationInfo) -> dict[str, Any]:
    """Convert the properties of an event to JSON.

    :raises ManyFaults: every fault of every property.
    """
    return _read_object(given, "properties", info, lambda _: [])


def _read_object(given: Any, path: str, info: ValidationInfo, check: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ManyFaults([Fault(path, f"must be an object, not a {type(given).__name__}")])
    writer = JsonWriter(Reading.of(info))
    written = writer.members(given, path)
    faults = [*writer.faults, *check(written)]
    if faults:
        raise ManyFaults(faults)
    return written


def _check_standard_traits(traits: Mapping[str, Any]) -> list[Fault]:
    faults = [
        Fault(f"traits.{name}", "must be text")
        for name in names.TEXT_TRAITS
        if not isinstance(traits.get(name, ""), str)
    ]
    address = traits.get(names.ADDRESS, {})
    if not isinstance(address, Mapping):
        return [*faults, Fault(f"traits.{names.ADDRESS}", "must be an object with street, city, state, zipcode")]
    for name in names.TEXT_ADDRESS:
        if not isinstance(address.get(name, ""), str):
            hint = " (a number loses its leading zeros)" if name == names.ZIPCODE else ""
            faults.append(Fault(f"traits.{names.ADDRESS}.{name}", f"must be text{hint}"))
    return faults
