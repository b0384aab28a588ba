"""A redelivery inside a task instance: it takes dead letters, delivers them, and says beside each what became of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from airflow_provider_regal.delivery.opening import Rows
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.sources.letters import Choice, Claimant, read_letters
from airflow_provider_regal.hooks._delivering import Connected, TaskDelivery
from airflow_provider_regal.hooks._ledger import has_ledger_file
from airflow_provider_regal.hooks._place import Place, storage
from airflow_provider_regal.journal.redelivery import Taken, find_run_folders

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.journal.report import DeliveryReport

_log = logging.getLogger(__name__)
_STATUSES: Final = ("rejected", "unknown")


class Redelivery:
    """Delivers dead letters for a task instance, or outside of one.

    :param paths: of run folders, or globs; relative ones lie below ``[regal] storage_path``.
    :param choice: which letters, and how they are mended.
    :param ledger_conn_id: the database of the ledger; without it the file beside the run folders, if there is one.
    :param place: where to work, outside of a task instance.
    """

    def __init__(
        self,
        hook: Connected,
        *,
        context: Context | None,
        paths: Sequence[str],
        choice: Choice,
        settings: DeliverySettings,
        ledger_conn_id: str | None,
        place: Place | None = None,
    ) -> None:
        self._paths = paths
        self._choice = choice
        self._restarts = settings.restart
        self._has_ledger = ledger_conn_id is not None or has_ledger_file()
        self._goes_on = False
        self._delivery = TaskDelivery(
            hook,
            context=context,
            settings=settings,
            rows=self._rows,
            source=source_of(paths, choice),
            ledger_conn_id=ledger_conn_id,
            ledger_file=self._has_ledger,
            place=place,
        )

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises RegalError: as :meth:`airflow_provider_regal.delivery.run.Delivery.run`.
        :raises FileNotFoundError: a path names nothing.
        """
        if self._delivery.dry_run:
            return self._delivery.run()
        folder = self._delivery.folder
        self._goes_on = (folder / "marker.json").exists()
        taken = Taken(folder)
        taken.settle()  # what a killed try could not say
        try:
            return self._delivery.run()
        finally:
            try:
                taken.settle()
            except OSError as error:
                _log.warning("What became of the dead letters could not be written beside them: %s", error.strerror)

    def stop(self) -> None:
        """Stop soon; called from Airflow's signal handler."""
        self._delivery.stop()

    def _rows(self) -> Rows:
        mine = self._delivery.folder
        folders = [folder for folder in find_run_folders(self._paths, storage()) if folder != mine.resolve()]
        _log.info("Looking for dead letters in %s run folders", f"{len(folders):,}")
        return read_letters(
            folders,
            self._choice,
            by=Claimant(mine, self._goes_on, self._restarts),
            has_ledger=self._has_ledger,
            dry_run=self._delivery.dry_run,
        )


def source_of(paths: Sequence[str], choice: Choice) -> tuple[str, ...]:
    """Name what is redelivered: if that changes between tries, rows cannot be told apart."""
    return ("dead letters", *(str(storage() / path) for path in paths), *sorted(set(choice.status)))
