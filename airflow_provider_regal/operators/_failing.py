"""Our errors in Airflow's terms: fail for good what a retry cannot fix, let Airflow retry the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_regal._compat import AirflowException, AirflowFailException
from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.errors import (
    CheckRegalError,
    FixConnectionError,
    FixSourceError,
    InvalidEventError,
    PlanError,
    RefusedEventError,
    RegalError,
    ResumeError,
    TooManyFailedRowsError,
)

_log = logging.getLogger(__name__)
_FOR_GOOD = (
    FixConnectionError,
    FixSourceError,
    InvalidEventError,
    PlanError,
    RefusedEventError,
    TooManyFailedRowsError,
    ResumeError,
    ValueError,  # of an option, a missing column, a file that is not what its format says
)


@contextmanager
def failing_for_good(guarantee: Guarantee | None = None) -> Iterator[None]:
    """Fail without retry what cannot succeed; an outage is left to Airflow's retries. One line says why, before it.

    :param guarantee: under ``at_least_once`` an event that may have arrived is retried, too.
    """
    try:
        yield
    except _FOR_GOOD as error:
        _log.error("%s", told(error))
        raise AirflowFailException(told(error)) from None
    except CheckRegalError as error:
        _log.error("%s", told(error))
        if guarantee == "at_least_once":
            raise AirflowException(told(error)) from None
        raise AirflowFailException(told(error)) from None
    except RegalError as error:
        _log.error("%s", told(error))
        raise error from None  # the text says what caused it, and one traceback is enough


def told(error: Exception) -> str:
    """Write what an error says, what was added of its delivery (rows left, what to do next), and where to read more."""
    lines = [str(error), *getattr(error, "__notes__", ())]
    if isinstance(error, RegalError):
        lines.append(f"Documentation: docs/errors.md#{type(error).__name__.lower()}")
    return "\n".join(lines)
