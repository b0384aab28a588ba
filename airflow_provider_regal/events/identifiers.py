"""A person's identifiers (phone numbers, email addresses, user ids), each in one canonical spelling."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Final
from uuid import UUID

from airflow_provider_regal.events.python_values import is_missing, plain, sendable, trimmed, whole

# Regal is a US product; numbers of other countries need their "+".
_REGION: Final = "US"
# Usual US spellings; libphonenumber's pattern then judges the number itself.
_USUAL = re.compile(r"(?:\+?1[-. ]?)?\(?([0-9]{3})\)?[-. ]?([0-9]{3})[-. ]?([0-9]{4})")
_NOTHING: Final = r"(?!)"
_FRACTION = re.compile(r"[^.]*\d\.0{0,2}|\+?\d+\.\d{1,3}")
_EXPONENT = re.compile(r"\+?\d+(\.\d*)?[eE][+-]?\d{1,3}")
_NUMBERS_LOSE: Final = "a phone number that became a fraction or got an exponent; read the column as text"
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
# Most addresses look like this; the others are checked part by part.
_USUAL_EMAIL = re.compile(r"[a-z0-9_+\-]{1,32}(?:\.[a-z0-9_+\-]{1,31})?@(?:[a-z0-9]{1,63}\.){1,3}[a-z]{2,24}")
_LOCAL_PART = re.compile(r"[^\s@\"(),:;<>\[\\\]]{1,64}")
_LABEL: Final = r"(?!-)[^\s@.!-,/:-@\[-`{-\x7f]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?P<last>{_LABEL})")
_LONGEST_EMAIL: Final = 254


def read_phone(value: Any) -> str:
    """Read a phone number (libphonenumber, region US) and return it in E.164.

    Regal answers 200 to an invalid number and then drops it, so it is rejected here.

    :raises ValueError: not a valid number, or one with an extension or other text.
    """
    value = plain(value)
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        if isinstance(value, Decimal) and value.as_tuple().exponent != 0:
            raise ValueError(_NUMBERS_LOSE)
        value = _digits(value, "a phone number")
    if isinstance(value, float):
        raise ValueError(_NUMBERS_LOSE)
    if not isinstance(value, str):
        raise ValueError(f"a phone number cannot be a {type(value).__name__}; write text such as +12125550100")
    return _parse_phone(trimmed(value))


def _parse_phone(text: str) -> str:
    # Most numbers match: checking the library's own pattern takes 1 us, a full parse 30 us.
    if (usual := _USUAL.fullmatch(text)) and _us_lines().fullmatch(national := "".join(usual.groups())):
        return f"+1{national}"
    return _parse_any_phone(text)


@lru_cache(maxsize=20_000)
def _parse_any_phone(text: str) -> str:
    if _EXPONENT.fullmatch(text):
        raise ValueError(_NUMBERS_LOSE)
    # Takes 50 ms to load and is not needed for parsing a DAG file.
    import phonenumbers

    try:
        number = phonenumbers.parse(text, _REGION)
    except phonenumbers.NumberParseException:
        raise ValueError("not a phone number; write it in E.164, such as +12125550100") from None
    if number.extension:
        raise ValueError("has an extension, which E.164 cannot carry; send the number without it")
    if _FRACTION.fullmatch(text):
        raise ValueError(_NUMBERS_LOSE)  # libphonenumber would take the zero for a digit of the number
    if any(character.isalpha() for character in text):
        # libphonenumber finds the number in "do not call 2125550100"; we must not.
        raise ValueError("holds letters; send the number alone, such as +12125550100")
    if not phonenumbers.is_valid_number(number):
        digits = len(str(number.national_number))
        raise ValueError(
            f"not a valid phone number (country code {number.country_code}, {digits} national digits); "
            "Regal would drop it without an error"
        )
    written: str = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if not _E164.fullmatch(written):
        raise ValueError("not a phone number that E.164 can carry (7 to 15 digits)")
    return written


@cache
def _us_lines() -> re.Pattern[str]:
    """Return libphonenumber's pattern for ordinary numbers of the region: ten digits without a prefix."""
    from phonenumbers import PhoneMetadata

    known = PhoneMetadata.metadata_for_region(_REGION)
    lines = known.fixed_line if known else None
    return re.compile((lines.national_number_pattern if lines else None) or _NOTHING)


def read_email(value: Any) -> str:
    """Read an email address: trimmed, in lower case, with its syntax checked.

    :raises ValueError: not an email address.
    """
    if type(value) is str and _USUAL_EMAIL.fullmatch(value):
        return value
    value = plain(value)
    if not isinstance(value, str):
        raise ValueError(f"an email address cannot be a {type(value).__name__}")
    address = trimmed(value).lower()
    local, at, domain = address.partition("@")
    well_formed = (
        bool(at)
        and len(address) <= _LONGEST_EMAIL
        and address.isprintable()  # text copied from web pages may contain zero-width characters
        and _LOCAL_PART.fullmatch(local) is not None
        and not local.startswith(".")
        and not local.endswith(".")
        and ".." not in local
        and (named := _DOMAIN.fullmatch(domain)) is not None
        and not named["last"].isdigit()
    )
    if not well_formed:
        raise ValueError("not an email address")
    return address


def read_user_id(value: Any) -> str:
    """Read a user id as text, trimmed: whole numbers of any type become their digits, UUIDs get their usual form.

    :raises ValueError: not an id (a fraction, a boolean, a structure).
    """
    return _read_id(value, "a user id")


def read_message_id(value: Any) -> str | None:
    """Read a message id in the same way; return None for a missing one.

    :raises ValueError: not an id.
    """
    return None if is_missing(value) else _read_id(value, "a message id")


def _read_id(value: Any, what: str) -> str:
    value = plain(value)
    if isinstance(value, str):
        if is_missing(value):
            raise ValueError(f"{what} cannot be what looks like a missing value")
        return sendable(trimmed(value))
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _digits(value, what)
    raise ValueError(f"{what} cannot be a {type(value).__name__}; send text")


def _digits(number: float | Decimal, what: str) -> str:
    if (digits := whole(number)) is None:
        raise ValueError(f"{what} cannot be a fraction, or a number of more digits than its type keeps; send text")
    return str(digits)
