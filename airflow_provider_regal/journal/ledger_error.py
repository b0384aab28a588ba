"""The one error of the ledger; apart, so that it can be caught without loading SQLAlchemy."""


class LedgerError(OSError):
    """The ledger cannot be read or written. The message holds no values; its cause holds none of a row's."""


class WrongLedgerError(LedgerError):
    """The ledger can be read, but is not for us: no later try would find it otherwise."""
