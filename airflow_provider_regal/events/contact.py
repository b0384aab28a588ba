"""A person's phones and emails, each with its own label, primary flag and consent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from airflow_provider_regal.events.consent import OptIn, Truth
from airflow_provider_regal.events.faults import InnerFaultsError, Location
from airflow_provider_regal.events.identifiers import read_email, read_phone
from airflow_provider_regal.events.names import EMAIL_CHANNELS, PHONE_CHANNELS, Channel
from airflow_provider_regal.events.python_values import Text


class ContactPoint(BaseModel):
    """The common fields of phones and emails.

    :param label: a name for it (``Mobile``).
    :param is_primary: whether Regal contacts the person here; if omitted, Regal decides.
    :param opt_ins: what the person agreed to here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    label: Text | None = None
    is_primary: Truth | None = None
    opt_ins: tuple[OptIn, ...] = ()

    def _carries(self, channels: tuple[Channel, ...], kind: str) -> None:
        for opt_in in self.opt_ins:
            if opt_in.channel not in channels:
                raise ValueError(f"an opt-in for {opt_in.channel} cannot belong to {kind}")


class Phone(ContactPoint):
    """A phone number.

    :param number: any spelling that libphonenumber can read (region US), without other text; stored in E.164.
    """

    number: Annotated[str, BeforeValidator(read_phone)]

    @model_validator(mode="after")
    def _has_phone_channels(self) -> Phone:
        self._carries(PHONE_CHANNELS, "a phone")
        return self


class Email(ContactPoint):
    """An email address.

    :param address: stored trimmed and in lower case.
    """

    address: Annotated[str, BeforeValidator(read_email)]

    @model_validator(mode="after")
    def _has_email_channels(self) -> Email:
        self._carries(EMAIL_CHANNELS, "an email")
        return self


def check_phones(phones: tuple[Phone, ...]) -> tuple[Phone, ...]:
    """Check that no number appears twice and at most one phone is primary.

    :raises InnerFaultsError: with the positions at fault.
    """
    _check([phone.number for phone in phones], phones, "phone")
    return phones


def check_emails(emails: tuple[Email, ...]) -> tuple[Email, ...]:
    """Check that no address appears twice and at most one email is primary.

    :raises InnerFaultsError: with the positions at fault.
    """
    _check([email.address for email in emails], emails, "email")
    return emails


def _check(values: list[str], points: Sequence[ContactPoint], kind: str) -> None:
    faults: list[tuple[Location, str]] = []
    primaries = 0
    for position, (value, point) in enumerate(zip(values, points, strict=True)):
        if value in values[:position]:
            faults.append(((position,), f"the event has this {kind} twice; give it once"))
        elif point.is_primary:
            primaries += 1
            if primaries > 1:
                faults.append(((position,), f"primary, and so is another {kind}; a contact has one"))
    if faults:
        raise InnerFaultsError(faults)
