"""The libphonenumber filter: which texts are phone numbers, and in which one spelling."""

from __future__ import annotations

from functools import lru_cache

import phonenumbers

REGION = "US"


@lru_cache(maxsize=100_000)
def e164(text: str) -> str | None:
    """Write a number in E.164 form, read as a US one when it has no country code; ``None`` if it is not valid."""
    try:
        number = phonenumbers.parse(text, REGION)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
