"""How the ledger stores identifiers: in plain text, or as an HMAC that identifies no one."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from airflow_provider_regal.ledger.text import short

_MARK: Final = "$ledger_key"
_PLAIN: Final = "plain"


class Identifiers:
    """Stores phones, emails, user ids and message ids.

    :param secret: of the HMAC-SHA256 (``[regal] ledger_key``); None to store them in plain text.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret
        #: Returns the stored form of an identifier.
        self.stored: Callable[[str], str] = short if secret is None else self._hmac

    @property
    def plain(self) -> bool:
        """Whether they are stored in plain text."""
        return self._secret is None

    @property
    def mark(self) -> str:
        """Return a mark that identifies the secret without revealing it."""
        return _PLAIN if self._secret is None else self._hmac(_MARK)[:32]

    def seed(self, seed: bytes) -> bytes:
        """Return the seed for row hashes; without the secret, no phone can be guessed from them."""
        return seed if self._secret is None else hmac.digest(self._secret, seed, "sha256")

    def _hmac(self, text: str) -> str:
        if self._secret is None:
            return ""
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()
