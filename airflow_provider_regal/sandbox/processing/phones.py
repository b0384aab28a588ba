"""The libphonenumber filter: which texts are phone numbers, and their canonical form."""

from __future__ import annotations

from functools import lru_cache

import phonenumbers

REGION = "US"


@lru_cache(maxsize=100_000)
def e164(text: str) -> str | None:
    """Return a number in E.164 form, read as a US one if it has no country code; ``None`` if it is invalid."""
    try:
        number = phonenumbers.parse(text, REGION)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
