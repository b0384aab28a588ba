"""Errors, each named by what to do next.

::

    RegalError
    ├── FixConnectionError        fix the connection or the key; nothing else is accepted before that
    │   └── WrongLedgerError      the ledger is not for this account, key, version or executor
    ├── InvalidEventError         fix the data: we found the faults before sending (``faults``)
    ├── RefusedEventError         fix the data: Regal refused it (``status``)
    ├── PlanError                 there is no such plan to send: plan again
    ├── FixSourceError            the source is not plausible; at most opt-outs were sent: check the query or the files
    │   └── StoppedByGuardError   a guard stopped the delivery, and its unsent rows are kept (in ``delivery.guards``)
    ├── RetryLaterError           not applied, or rows are left; run it again: it resumes
    │   ├── LedgerError           the ledger's database can't be reached or written
    │   └── TakenOverError        another try of this task delivers now
    ├── CheckRegalError           it can't be known whether Regal received it; a repeat may reach a person twice
    ├── TooManyFailedRowsError    a delivery ended with more rows rejected or unknown than allowed (``report``)
    └── ResumeError               an earlier try may have sent rows, and it can't be resumed: decide

Messages contain no API keys and no personal data: only field names, counts and reasons, never values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

# The message shows only the first faults; ``faults`` has all of them.
_FAULTS_SHOWN: Final = 25


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an event.

    :param field: its place, in the terms of whoever wrote the event (``traits.optIn[1].timestamp``).
    :param reason: what is wrong with it, without the value.
    """

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class RegalError(Exception):
    """Base class of all errors that this package raises deliberately."""


class FixConnectionError(RegalError):
    """The connection is wrong or Regal refuses its key: fix the connection, then run again.

    :param message: what is wrong and what to do.
    :param status: HTTP status, if Regal answered (401 or 403).
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WrongLedgerError(FixConnectionError):
    """The ledger can be read, but this process must not use it. A retry would not help."""


class InvalidEventError(RegalError):
    """The event has faults; it was not sent.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param faults: every fault of the event, one per field.
    """

    def __init__(self, call: str, faults: Sequence[Fault]) -> None:
        self.call = call
        self.faults = tuple(faults)
        number = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = "".join(f"\n  - {fault}" for fault in self.faults[:_FAULTS_SHOWN])
        if (more := len(self.faults) - _FAULTS_SHOWN) > 0:
            lines += f"\n  - and {more} more"
        super().__init__(f"This {call} event is invalid and was not sent ({number}):{lines}")

    def __reduce__(self) -> tuple[type[InvalidEventError], tuple[str, tuple[Fault, ...]]]:
        # By default, an exception is unpickled from its message only; Airflow pickles between processes.
        return type(self), (self.call, self.faults)


class _AnsweredError(RegalError):
    """An error with details of the failed exchange.

    :param message: what happened and what to do.
    :param status: HTTP status of the last answer; None if there was none.
    :param tries: how many HTTP requests were made.
    """

    def __init__(self, message: str, *, status: int | None = None, tries: int = 1) -> None:
        super().__init__(message)
        self.status = status
        self.tries = tries


class RefusedEventError(_AnsweredError):
    """Regal refused the event for good (400, 404, 405, 413, 415, 422)."""


class FixSourceError(RegalError):
    """The source is not plausible, such as too few rows. Check the query or the files.

    Nothing was sent but opt-outs; and, if ``max_refused`` stopped the delivery, the rows before that.
    """


class PlanError(RegalError):
    """The plan can't be sent: it does not exist, or was sent, replaced or expired. Nothing was sent; plan again."""


class RetryLaterError(_AnsweredError):
    """Not applied, or rows are left. Running it again is safe.

    :param retry_after_s: seconds Regal asked us to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        tries: int = 1,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, tries=tries)
        self.retry_after_s = retry_after_s


class LedgerError(RetryLaterError):
    """The ledger can't be read or written. Neither the message nor its cause contains values of a row."""


class TakenOverError(RetryLaterError):
    """Another try of this task has taken over the delivery; this one has stopped."""


class CheckRegalError(_AnsweredError):
    """Sent, and it can't be known whether Regal received it. Look in Regal before sending it again."""


class TooManyFailedRowsError(RegalError):
    """A delivery ended with more rows rejected or unknown than allowed.

    :param message: how many, why, and what to do.
    :param report: the :class:`~airflow_provider_regal.delivery.report.DeliveryReport` of all rows.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class ResumeError(RegalError):
    """An earlier try may have sent rows, and it can't be resumed. Only you can decide what to do."""
