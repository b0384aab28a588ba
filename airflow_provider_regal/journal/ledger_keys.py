"""How the ledger stores what its entries are about: as it is, or as an HMAC that names nobody."""

from __future__ import annotations

import hmac
from typing import Final

from airflow_provider_regal.journal.ledger_text import short

#: Where an account keeps which secret its keys are stored with, among its types.
MARK_NAME: Final = "$ledger_key"
_PLAIN: Final = "plain"


class StoredKeys:
    """Stores keys.

    :param secret: of the HMAC-SHA256; None to store keys as they are.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    @property
    def plain(self) -> bool:
        """Whether keys are stored as they are."""
        return self._secret is None

    @property
    def mark(self) -> str:
        """Tell one secret from another, without telling it."""
        return _PLAIN if self._secret is None else self._hmac(MARK_NAME)[:32]

    def stored(self, key: str) -> str:
        """Say how a key is stored."""
        return short(key) if self._secret is None else self._hmac(key)

    def seed(self, seed: bytes) -> bytes:
        """Give the seed for hashes of rows, which nobody could guess phones from without the secret."""
        return seed if self._secret is None else hmac.digest(self._secret, seed, "sha256")

    def _hmac(self, text: str) -> str:
        if self._secret is None:
            return ""
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()
