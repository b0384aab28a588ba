"""Guards: checks of the source before anything is sent, and of Regal's refusals while sending. Pure.

=============  ==============================================================  =====================================
guard          stops when                                                      remaining rows
=============  ==============================================================  =====================================
min_rows       the source has fewer rows                                       kept: see below
max_rows       it has more                                                     kept: see below
volume         the number is too far from that of the last finished runs       kept: see below
max_refused    too many of the last 100 answers are refusals                   kept: a clear resumes
=============  ==============================================================  =====================================

The first three stop before anything is sent. After a clear, the guards check the kept rows with the task's current
options: if they pass, the rows are sent as read; if not, the source is read again. This applies to named events only.
Contacts and consents are read again after any clear, and dead letters stay in the ledger, so their rows are not kept.

No guard holds back a contact's opt-out that the source states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Final

from airflow_provider_regal.errors import FixSourceError

if TYPE_CHECKING:
    from airflow_provider_regal.delivery.settings import DeliverySettings

#: How many finished runs ``volume`` compares, at most and at least.
RUNS_COMPARED: Final = 14
RUNS_NEEDED: Final = 5
_ANSWERS: Final = 100


class StoppedByGuardError(FixSourceError):
    """A guard stopped the delivery. The remaining rows are kept, and a clear resumes with them."""


def why_stopped(read: int, settings: DeliverySettings, runs: Sequence[int], *, what: str = "row") -> str | None:
    """Return why only opt-outs are sent; None if the source passes all guards.

    :param read: number of rows in the source.
    :param runs: row counts of the last finished runs of the task.
    :param what: the unit the source counts, in the singular.
    """
    found = f"The source has {_counted(read, what)}"
    if read < settings.min_rows:
        return f"{found}, fewer than min_rows={settings.min_rows:,}. Check the query or the files."
    if settings.max_rows is not None and read > settings.max_rows:
        return (
            f"{found}, more than max_rows={settings.max_rows:,}. A broken join looks like this: check the query or the "
            "files. If it is meant, raise max_rows and clear the task."
        )
    if settings.volume is None or len(runs) < RUNS_NEEDED:
        return None
    low, high = settings.volume
    usual = median(runs)
    if low * usual <= read <= high * usual:
        return None
    return (
        f"{found}. Normal here are {_counted(round(usual), what)} (the median of the last {len(runs)} finished runs, "
        f"{min(runs):,} to {max(runs):,}), and volume=({low:g}, {high:g}) allows {ceil(low * usual):,} to "
        f"{int(high * usual):,}. Check the query or the files. If it is meant, set volume=None for one run and clear "
        "the task."
    )


def too_few_runs(settings: DeliverySettings, runs: Sequence[int]) -> str | None:
    """Return a message if ``volume`` can't be checked yet; None if it can, or is not set."""
    if settings.volume is None or len(runs) >= RUNS_NEEDED:
        return None
    return f"volume is not checked yet: it needs {RUNS_NEEDED} finished runs of this task, and there are {len(runs)}"


class Refusals:
    """Tracks the share of refusals among the last answers.

    :param allowed: ``max_refused``, of the last 100 answers; None for no limit.
    """

    def __init__(self, allowed: float | None) -> None:
        self._allowed = allowed
        self._most = None if allowed is None else max(ceil(allowed * _ANSWERS - 1e-9), 1)
        self._last: deque[bool] = deque(maxlen=_ANSWERS)

    def note(self, *, refused: bool) -> None:
        """Record an answer."""
        if self._most is not None:
            self._last.append(refused)

    def why_stopped(self, reason: str) -> StoppedByGuardError | None:
        """Return the error that stops the sending once there are too many refusals.

        :param reason: of the last refusal.
        """
        if self._most is None or (count := sum(self._last)) < self._most:
            return None
        return StoppedByGuardError(
            f"Regal refused {count} of the last {_counted(len(self._last), 'event')} (the last: {reason}), and "
            f"max_refused={self._allowed:g} stops at {self._most} of {_ANSWERS}. Remaining rows are saved. Fix the "
            "data or the mapping, then clear the task; if it is meant, raise max_refused as well."
        )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
