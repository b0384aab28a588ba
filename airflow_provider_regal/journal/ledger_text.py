"""Text as every database can keep and compare it. Apart from the tables, so that it costs no import of SQLAlchemy."""

from __future__ import annotations

import hashlib
from typing import Final

LONGEST_KEY: Final = 200
LONGEST_NAME: Final = 500


def short(text: str, longest: int = LONGEST_KEY) -> str:
    """Give a text as every database can keep and compare it; a hash of one that some could not."""
    encoded = text.encode("utf-8", "surrogatepass")
    if len(text) <= longest and text == text.strip() and "\0" not in text and encoded.decode("utf-8", "ignore") == text:
        return text
    return hashlib.sha256(encoded).hexdigest()
