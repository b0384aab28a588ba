"""A redelivery around one delivery: it takes dead letters, and says beside each what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.marks import Marked
from airflow_provider_regal.delivery.sources.letters import PATIENCE_S, Choice, Claimant, read_letters
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.progress import CorruptProgressError
from airflow_provider_regal.journal.run_folder import FolderReplacedError, RunFolder
from airflow_provider_regal.journal.taken import Taken

_log: Final = logging.getLogger(__name__)


class Redelivering:
    """Gives a :class:`~airflow_provider_regal.delivery.run.Delivery` its rows, and is told how they ended.

    :param find: finds the run folders whose letters are wanted.
    :param at: finds one of them again by its name.
    :param restarts: all that this redelivery ever took is sent again.
    :param has_ledger: whether the delivery has one.
    :param limit: how many letters to take at most.
    :param patience_s: seconds to wait for a run folder that somebody works in.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[Path | Bucket]],
        choice: Choice,
        *,
        at: Callable[[str], Path | Bucket] = Path,
        restarts: bool = False,
        has_ledger: bool = False,
        limit: int | None = None,
        clock: Clock | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._find = find
        self._choice = choice
        self._at = at
        self._restarts = restarts
        self._has_ledger = has_ledger
        self._limit = limit
        self._clock = clock or Clock()
        self._patience_s = patience_s
        self._folder: RunFolder | None = None
        self._goes_on = False

    def rows(self) -> Iterator[Marked]:
        """Take letters, and give them as rows; outside of :meth:`around` only look at them."""
        folder = self._folder
        mine = "" if folder is None else folder.name
        others = [found for found in self._find() if str(found) not in (mine, str(Path(mine).resolve()))]
        _log.info("Looking for dead letters in %s run folders", f"{len(others):,}")
        return read_letters(
            others,
            self._choice,
            by=Claimant(mine, self._goes_on, self._restarts),
            taken=None if folder is None else Taken(folder, self._at, self._clock),
            has_ledger=self._has_ledger,
            clock=self._clock,
            limit=self._limit,
            patience_s=self._patience_s,
        )

    @contextmanager
    def around(self, folder: RunFolder) -> Iterator[None]:
        """Say what became of letters: before, what a killed try could not say, and in the end the rest.

        :param folder: run folder of the redelivery, open.
        """
        self._folder, self._goes_on = folder, folder.marker is not None
        self._settle(folder)
        try:
            yield
        finally:
            self._settle(folder)
            self._folder = None

    def _settle(self, folder: RunFolder) -> None:
        try:
            Taken(folder, self._at, self._clock).settle()
        except (FolderReplacedError, CorruptProgressError):  # the next try does it, or somebody has to decide
            pass
        except OSError as error:
            _log.warning(
                "What became of the dead letters could not be written beside them (%s); the next try does it",
                error.strerror or error,
            )
