"""A person's phones and emails, each with a label, the primary flag and consent of its own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from airflow_provider_regal.events.consent import OptIn, Truth
from airflow_provider_regal.events.identifiers import read_email, read_phone
from airflow_provider_regal.events.names import EMAIL_CHANNELS, PHONE_CHANNELS, Channel


class ContactPoint(BaseModel):
    """What phones and emails have in common.

    :param label: a name for it (``Mobile``).
    :param is_primary: whether Regal reaches the person here; left out, Regal decides.
    :param opt_ins: what the person agreed to here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    label: str | None = None
    is_primary: Truth | None = None
    opt_ins: tuple[OptIn, ...] = ()

    def _carries(self, channels: tuple[Channel, ...], kind: str) -> None:
        for opt_in in self.opt_ins:
            if opt_in.channel not in channels:
                raise ValueError(f"an opt-in for {opt_in.channel} cannot belong to {kind}")


class Phone(ContactPoint):
    """A phone number.

    :param number: any spelling libphonenumber reads (region US); kept in E.164.
    """

    number: Annotated[str, BeforeValidator(read_phone)]

    @model_validator(mode="after")
    def _has_phone_channels(self) -> Phone:
        self._carries(PHONE_CHANNELS, "a phone")
        return self


class Email(ContactPoint):
    """An email address.

    :param address: kept trimmed and in lower case.
    """

    address: Annotated[str, BeforeValidator(read_email)]

    @model_validator(mode="after")
    def _has_email_channels(self) -> Email:
        self._carries(EMAIL_CHANNELS, "an email")
        return self


def one_of_each(addresses: tuple[Any, ...], key: str, name: str) -> None:
    """Check that no number or address stands twice and at most one is primary.

    :raises ValueError: saying which, by position.
    """
    seen: dict[str, int] = {}
    for position, address in enumerate(addresses):
        value = getattr(address, key)
        if value in seen:
            raise ValueError(f"{name}[{position}] is the same as {name}[{seen[value]}]; give it once")
        seen[value] = position
    primaries = [position for position, address in enumerate(addresses) if address.is_primary]
    if len(primaries) > 1:
        both = " and ".join(f"{name}[{position}]" for position in primaries)
        raise ValueError(f"{both} are both primary; a contact has one")
