"""Our errors in Airflow's terms: fail for good what cannot succeed, let Airflow retry the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.errors import (
    CheckBeforeResendError,
    CheckSourceError,
    DecideRestartError,
    FixConnectionError,
    FixEventError,
    ReadDeadLettersError,
)


@contextmanager
def failing_for_good(guarantee: Guarantee | None = None) -> Iterator[None]:
    """Fail without retry what cannot succeed; an outage passes through, and Airflow retries it.

    :param guarantee: under ``at_least_once`` an event that may have arrived is retried, too.
    """
    try:
        yield
    except (FixConnectionError, FixEventError, CheckSourceError, ReadDeadLettersError, DecideRestartError) as error:
        raise AirflowFailException(str(error)) from error
    except CheckBeforeResendError as error:
        if guarantee == "at_least_once":
            raise
        raise AirflowFailException(str(error)) from error
