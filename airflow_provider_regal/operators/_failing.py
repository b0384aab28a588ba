"""Translate our errors for Airflow: fail without retry what a retry can't fix, let Airflow retry the rest."""

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
    ValueError,  # an invalid option, a missing column, a file in the wrong format
)


@contextmanager
def failing_for_good(guarantee: Guarantee | None = None) -> Iterator[None]:
    """Fail without retry what a retry can't fix, and leave outages to Airflow's retries. Logs one line before raising.

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
        raise error from None  # the message includes the cause; one traceback is enough


def told(error: Exception) -> str:
    """Format an error with the notes from its delivery (rows left, next step), and where to read more."""
    lines = [str(error), *getattr(error, "__notes__", ())]
    if isinstance(error, RegalError):
        lines.append(f"Documentation: docs/errors.md#{type(error).__name__.lower()}")
    return "\n".join(lines)
