"""The errors of a delivery that stops with rows left and can be resumed by a later try.

::

    on_kill, SIGTERM ─▶ Stop.request ─▶ checked by the reader of the source and by the engine, twice a second
"""

from __future__ import annotations

from typing import Final

from airflow_provider_regal.errors import RegalError, RetryLaterError

# Requests in flight may still be answered. Airflow kills a task 5 s after the signal to stop.
GRACE_S: Final = 3.0
GRACE_WITHOUT_HURRY_S: Final = 10.0
SAVED: Final = "Remaining rows are saved; the next try resumes with them."


class Stop:
    """Asks a delivery to stop soon; unsettled rows are kept.

    The caller of the delivery creates it and passes it down.
    """

    requested = False

    def request(self, *_: object) -> None:
        """Request a stop. Safe to call from signal handlers and from any thread."""
        self.requested = True

    def check(self) -> None:
        """Raise if a stop was requested.

        :raises RetryLaterError: a stop was requested.
        """
        if self.requested:
            raise told_to_stop()


def told_to_stop() -> RetryLaterError:
    """Make the error of a task that was asked to stop."""
    return RetryLaterError(f"The task was told to stop. {SAVED}")


def outage(patience_s: float, last: str) -> RetryLaterError:
    """Make the error of an outage that outlasted our patience.

    :param last: the result of the last request, in words.
    """
    return RetryLaterError(
        f"Regal could not be reached, or asked to wait, for longer than outage_patience ({patience_s:g} s). The last "
        f"request: {last}. {SAVED}"
    )


def own_failure(error: BaseException) -> RegalError:
    """Wrap an error on our side. Its message may contain a value, so only its type is named."""
    if isinstance(error, RegalError):
        return error
    what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    wrapped = RetryLaterError(f"The delivery failed on this side, not at Regal ({what}). {SAVED}")
    wrapped.__cause__ = error
    return wrapped
