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
        _log.error("%s", error)
        raise AirflowFailException(str(error)) from None
    except CheckRegalError as error:
        _log.error("%s", error)
        if guarantee == "at_least_once":
            raise AirflowException(str(error)) from None
        raise AirflowFailException(str(error)) from None
    except RegalError as error:
        _log.error("%s", error)
        raise
