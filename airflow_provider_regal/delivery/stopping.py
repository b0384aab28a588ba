"""Why a delivery stops with rows left, and what to do then: the errors a later try resumes from.

::

    on_kill, SIGTERM ─▶ Stop.request ─▶ looked at by whoever reads the source and by the engine, twice a second
"""

from __future__ import annotations

from typing import Final

from airflow_provider_regal.errors import RegalError, RetryLaterError

# What is under way may still be answered. Airflow kills a task 5 s after it told it to stop.
GRACE_S: Final = 3.0
GRACE_WITHOUT_HURRY_S: Final = 10.0
SAVED: Final = "Remaining rows are saved; the next try resumes with them."


class Stop:
    """Asks a delivery to stop soon, with everything unsettled kept.

    Whoever runs the delivery makes one and passes it down.
    """

    requested = False

    def request(self, *_: object) -> None:
        """Ask for it. Safe to call from a signal handler, as one, and from any thread."""
        self.requested = True

    def check(self) -> None:
        """Return unless it was asked for.

        :raises RetryLaterError: it was.
        """
        if self.requested:
            raise told_to_stop()


def told_to_stop() -> RetryLaterError:
    """Make the error of a task that was told to stop."""
    return RetryLaterError(f"The task was told to stop. {SAVED}")


def outage(patience_s: float, last: str) -> RetryLaterError:
    """Make the error of an outage that outlasted our patience.

    :param last: what came of the last request, in words.
    """
    return RetryLaterError(
        f"Regal could not be reached, or asked to wait, for longer than outage_patience ({patience_s:g} s). The last "
        f"request: {last}. {SAVED}"
    )


def own_failure(error: BaseException) -> RegalError:
    """Wrap what went wrong on our side; its own words may hold a value, so only its kind is named."""
    if isinstance(error, RegalError):
        return error
    what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    wrapped = RetryLaterError(f"The delivery failed on this side, not at Regal ({what}). {SAVED}")
    wrapped.__cause__ = error
    return wrapped
