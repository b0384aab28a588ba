"""A redelivery inside a task instance: it takes dead letters, delivers them, and says beside each what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_regal.delivery.redelivering import Redelivering
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.sources.letters import Choice
from airflow_provider_regal.hooks._delivering import Connected, TaskDelivery
from airflow_provider_regal.hooks._ledger import has_ledger_file
from airflow_provider_regal.hooks._letters import find_letters, full_name
from airflow_provider_regal.hooks._place import Place, place_at

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.journal.report import DeliveryReport


class Redelivery:
    """Delivers dead letters for a task instance, or outside of one.

    :param paths: of run folders, or globs; relative ones lie below ``[regal] storage_path``; also ``s3://...``.
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
        has_ledger = ledger_conn_id is not None or has_ledger_file()
        redelivering = Redelivering(
            lambda: find_letters(paths),
            choice,
            at=place_at,
            restarts=settings.restart,
            has_ledger=has_ledger,
            limit=settings.limit,
        )
        self._delivery = TaskDelivery(
            hook,
            context=context,
            settings=settings,
            rows=redelivering.rows,
            source=source_of(paths, choice),
            ledger_conn_id=ledger_conn_id,
            ledger_file=has_ledger,
            place=place,
            around=redelivering.around,
        )

    def run(self) -> DeliveryReport:
        """Deliver.

        :raises RegalError: as :meth:`airflow_provider_regal.delivery.run.Delivery.run`.
        :raises FileNotFoundError: a path names nothing.
        """
        return self._delivery.run()

    def stop(self) -> None:
        """Stop soon; called from Airflow's signal handler."""
        self._delivery.stop()


def source_of(paths: Sequence[str], choice: Choice) -> tuple[str, ...]:
    """Name what is redelivered: if that changes between tries, rows cannot be told apart."""
    return ("dead letters", *map(full_name, paths), *sorted(set(choice.status)))
