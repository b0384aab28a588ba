"""How the ledger stores identifiers: as they are, or as an HMAC that names no one."""

from __future__ import annotations

import hmac
from typing import Final

from airflow_provider_regal.ledger.text import short

_MARK: Final = "$ledger_key"
_PLAIN: Final = "plain"


class Identifiers:
    """Stores phones, emails, user ids and message ids.

    :param secret: of the HMAC-SHA256 (``[regal] ledger_key``); None to store them as they are.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    @property
    def plain(self) -> bool:
        """Whether they are stored as they are."""
        return self._secret is None

    @property
    def mark(self) -> str:
        """Return a mark of the secret that reveals nothing of it, to compare secrets."""
        return _PLAIN if self._secret is None else self._hmac(_MARK)[:32]

    def stored(self, identifier: str) -> str:
        """Return how an identifier is stored."""
        return short(identifier) if self._secret is None else self._hmac(identifier)

    def seed(self, seed: bytes) -> bytes:
        """Return the seed for hashes of rows, from which no phone can be guessed without the secret."""
        return seed if self._secret is None else hmac.digest(self._secret, seed, "sha256")

    def _hmac(self, text: str) -> str:
        if self._secret is None:
            return ""
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()
