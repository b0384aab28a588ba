"""Rejected rows of a cleared task, tried again - but not those a redelivery has taken: it would be done twice."""

from __future__ import annotations

import logging

from airflow_provider_regal.journal.progress import Outcome, Skip
from airflow_provider_regal.journal.redelivery import claims_of
from airflow_provider_regal.journal.run_folder import RunFolder

_log = logging.getLogger(__name__)


def open_rejected(folder: RunFolder) -> None:
    """Open the rejected rows again.

    A row that a redelivery has dealt with is skipped, whatever came of it; one that a redelivery has taken and not
    dealt with yet stays rejected.
    """
    progress, claims = folder.progress, claims_of(folder)
    done = waiting = 0
    for position in progress.positions(Outcome.REJECTED):
        claim = claims.get(position)
        if claim is None:
            progress.release(position)
        elif claim.outcome is None:
            waiting += 1
        else:
            done += 1
            progress.settle(position, Skip.REDELIVERED)
    progress.flush()
    if done:
        _log.info("%s rejected rows are left out: redeliveries have dealt with them", f"{done:,}")
    if waiting:
        _log.warning(
            "%s rows stay rejected: redeliveries have taken them, and are not done. %s/redelivered says which",
            f"{waiting:,}",
            folder.name,
        )
