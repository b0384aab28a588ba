"""Errors, each named by what to do next.

::

    RegalError
    ├── FixConnectionError      mend the connection or the key; nothing else will be accepted before that
    ├── FixEventError           mend the data; this event will never be accepted as it is
    │   ├── InvalidEventError   we found the faults before sending (``faults``)
    │   └── RefusedEventError   Regal refused it (``status``)
    ├── RetryLaterError         surely not applied; send it again when Regal answers
    ├── CheckBeforeResendError  nobody can know whether Regal has it; a repeat may reach a person twice
    ├── CheckSourceError        the source gave what cannot be meant; nothing was sent: look at the query or the files
    ├── ReadDeadLettersError    a delivery ended with more rows rejected or unknown than allowed (``report``)
    └── DecideRestartError      an earlier try may have sent rows, and its memory cannot be used: say what to do

No message holds an API key or personal data: values never enter, only field names, counts and reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A message is for reading; ``faults`` holds all of them.
_FAULTS_SHOWN: Final = 25


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an event.

    :param field: where it is, in the words of whoever wrote the event (``traits.optIn[1].timestamp``).
    :param reason: what is wrong with it, without the value.
    """

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class RegalError(Exception):
    """Anything this package raises on purpose."""


class FixConnectionError(RegalError):
    """The connection is wrong or Regal refuses its key: mend the connection, then run again.

    :param message: what is wrong and what to do.
    :param status: HTTP status, if Regal answered (401 or 403).
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FixEventError(RegalError):
    """The event will never be accepted as it is: mend the data."""


class InvalidEventError(FixEventError):
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
        # An exception is otherwise unpickled from its message; Airflow pickles between processes.
        return type(self), (self.call, self.faults)


class _AnsweredError(RegalError):
    """What is known of the exchange that ended in an error.

    :param message: what happened and what to do.
    :param status: HTTP status of the last answer; None if there was none.
    :param tries: how many HTTP requests were made.
    """

    def __init__(self, message: str, *, status: int | None = None, tries: int = 1) -> None:
        super().__init__(message)
        self.status = status
        self.tries = tries


class RefusedEventError(_AnsweredError, FixEventError):
    """Regal refused the event for good (400, 404, 405, 413, 415, 422)."""


class RetryLaterError(_AnsweredError):
    """Surely not applied: Regal could not be reached or asked us to wait. Sending again is safe.

    :param retry_after_s: seconds Regal asked us to wait, if it said so.
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


class CheckBeforeResendError(_AnsweredError):
    """Sent, and nobody can know whether Regal has it. Look in Regal before sending it again."""


class CheckSourceError(RegalError):
    """The source gave what cannot be meant, such as too few rows; nothing was sent. Look at the query or the files."""


class ReadDeadLettersError(RegalError):
    """A delivery ended, and more of its rows were rejected or are unknown than allowed: look at its dead letters.

    :param message: how many, why, where the dead letters lie, and what to do.
    """


class DecideRestartError(RegalError):
    """An earlier try may have sent rows, and what it remembered cannot be used. Only you can say what to do."""
