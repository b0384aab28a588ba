"""Why a delivery stops with rows left, and what to do then: the errors a later try goes on from."""

from __future__ import annotations

from typing import Final

from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.journal.bucket import StorageError
from airflow_provider_regal.journal.ledger_error import LedgerError
from airflow_provider_regal.journal.run_folder import FolderReplacedError

# What is under way may still be answered. Airflow kills a task 5 s after it told it to stop.
GRACE_S: Final = 3.0
GRACE_WITHOUT_HURRY_S: Final = 10.0
_KEPT: Final = "Everything not settled is kept: run the task again to go on from there."


def told_to_stop() -> RetryLaterError:
    """Make the error of a task that was told to stop."""
    return RetryLaterError(f"The task was told to stop. {_KEPT}")


def outage(patience_s: float, last: str) -> RetryLaterError:
    """Make the error of an outage that outlasted our patience.

    :param last: what came of the last request, in words.
    """
    return RetryLaterError(
        f"Regal could not be reached, or asked to wait, for longer than outage_patience ({patience_s:g} s). The last "
        f"request: {last}. {_KEPT}"
    )


def own_failure(error: BaseException) -> RetryLaterError:
    """Wrap what went wrong on our side; its own words may hold a value, so only its kind is named."""
    if isinstance(error, FolderReplacedError):
        wrapped = RetryLaterError(f"{error}. Nothing more is sent: the next try has to find out what is left.")
    elif isinstance(error, LedgerError | StorageError):
        wrapped = RetryLaterError(f"{error} {_KEPT}")
    else:
        what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        wrapped = RetryLaterError(f"The delivery failed on this side, not at Regal ({what}). Mend that. {_KEPT}")
    wrapped.__cause__ = error
    return wrapped
