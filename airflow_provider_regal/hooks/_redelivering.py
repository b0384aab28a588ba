"""A redelivery inside a task instance: it takes dead letters, delivers them, and says beside each what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_regal.delivery.opening import Rows
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.sources.letters import Choice, read_letters
from airflow_provider_regal.errors import CheckSourceError
from airflow_provider_regal.hooks._delivering import Connected, TaskDelivery
from airflow_provider_regal.hooks._place import storage
from airflow_provider_regal.journal.redelivery import Taken, find_run_folders

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.journal.report import DeliveryReport


class Redelivery:
    """Delivers dead letters for a task instance, or outside of one.

    :param paths: of run folders, or globs; relative ones lie below ``[regal] storage_path``.
    :param choice: which letters, and how they are mended.
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
    ) -> None:
        self._paths = [str(storage() / path) for path in paths]
        self._choice = choice
        self._delivery = TaskDelivery(
            hook,
            context=context,
            settings=settings,
            rows=self._rows,
            source=("dead letters", *self._paths, *sorted(choice.status)),
            ledger_conn_id=ledger_conn_id,
        )

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises RegalError: as :meth:`airflow_provider_regal.delivery.run.Delivery.run`.
        """
        if self._delivery.dry_run:
            return self._delivery.run()
        taken = Taken(self._delivery.folder)
        try:
            return self._delivery.run()
        except CheckSourceError:
            taken.give_back()
            raise
        finally:
            taken.record()

    def stop(self) -> None:
        """Stop soon; called from Airflow's signal handler."""
        self._delivery.stop()

    def _rows(self) -> Rows:
        mine = None if self._delivery.dry_run else self._delivery.folder
        folders = [folder for folder in find_run_folders(self._paths) if folder != _resolved(mine)]
        return read_letters(folders, self._choice, mine)


def _resolved(folder: Path | None) -> Path | None:
    return None if folder is None else folder.resolve()
