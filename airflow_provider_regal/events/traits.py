"""Traits of a contact and properties of an event: free-form, except the few whose type Regal's API defines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationInfo

from airflow_provider_regal.events import names
from airflow_provider_regal.events.faults import InnerFaultsError, Location
from airflow_provider_regal.events.options import Reading
from airflow_provider_regal.events.values import JsonWriter


def read_traits(given: Any, info: ValidationInfo) -> Any:
    """Convert the traits of a contact to JSON.

    :raises InnerFaultsError: every fault of every trait.
    """
    return _read_object(given, info, standard=True)


def read_properties(given: Any, info: ValidationInfo) -> Any:
    """Convert the properties of an event to JSON.

    :raises InnerFaultsError: every fault of every property.
    """
    return _read_object(given, info, standard=False)


def _read_object(given: Any, info: ValidationInfo, *, standard: bool) -> Any:
    if not isinstance(given, Mapping):
        return given  # pydantic reports the expected type
    writer = JsonWriter(Reading.of(info))
    written = writer.members(given)
    faults = [*writer.faults, *(_check_standard_traits(written) if standard else ())]
    if faults:
        raise InnerFaultsError(faults)
    return written


def _check_standard_traits(traits: dict[str, Any]) -> list[tuple[Location, str]]:
    faults = _check_texts(traits, names.TEXT_TRAITS, ())
    address = _without_null(traits, names.ADDRESS, {})
    if isinstance(address, dict):
        return faults + _check_texts(address, names.TEXT_ADDRESS, (names.ADDRESS,))
    return [*faults, ((names.ADDRESS,), "must be an object with street, city, state, zipcode")]


def _check_texts(values: dict[str, Any], members: Iterable[str], where: Location) -> list[tuple[Location, str]]:
    faults: list[tuple[Location, str]] = []
    for name in members:
        if not isinstance(_without_null(values, name, ""), str):
            hint = " (a number loses its leading zeros)" if name == names.ZIPCODE else ""
            faults.append(((*where, name), f"must be text{hint}"))
    return faults


def _without_null(values: dict[str, Any], name: str, default: Any) -> Any:
    """Return a member; if Regal's API defines its type, omit a null even if nulls are sent."""
    value = values.get(name, default)
    if value is None:
        del values[name]
        return default
    return value
