"""Opening what a delivery works on: its run folder, and its source or what a sync of opt-ins makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.marks import SKIP_MARK, WEIGHT_MARK, as_row
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.events import Event
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.run_folder import SYNC_FILE, RunFolder

if TYPE_CHECKING:
    from airflow_provider_regal.journal.ledger import Ledger

Rows = Iterable[Mapping[str, Any] | Event]


def open_folder(
    where: Path | Bucket,
    this: Try,
    *,
    settings: DeliverySettings,
    timeout_s: float,
    clock: Clock,
    stopped: Callable[[], bool],
) -> RunFolder:
    """Open the run folder, which is on a file system or on object storage.

    :param timeout_s: how long a request may be under way.
    :param stopped: whether the task was told to stop, while an earlier try is waited for.
    :raises FolderInUseError: another try sends from it.
    """
    if isinstance(where, Path):
        return RunFolder(where)

    from airflow_provider_regal.journal.mirrored_folder import MirroredFolder
    from airflow_provider_regal.journal.segment import Rank

    return MirroredFolder(
        where,
        rank=Rank(this.epoch, this.number),
        checkpoint_interval_s=settings.checkpoint_interval_s,
        timeout_s=timeout_s,
        clock=clock,
        stopped=stopped,
    )


@contextmanager
def open_source(
    given: Iterable[Any],
    *,
    settings: DeliverySettings,
    preparer: Preparer,
    folder: Path,
    ledger: Ledger | None,
    plan: dict[str, int],
    clock: Clock,
    dry_run: bool = False,
) -> Iterator[Iterable[Mapping[str, Any]]]:
    """Give the rows of a delivery: those of the source, or what a sync has found out of them.

    :param folder: where a sync keeps its working file.
    :param plan: gets the counts of a sync.
    """
    limited = islice(given, settings.limit)
    if settings.sync is None or ledger is None:
        yield map(as_row, limited)
        return

    from airflow_provider_regal.delivery.reconcile import Reconciliation

    reconciliation = Reconciliation(
        folder / SYNC_FILE,
        settings=settings,
        sync=settings.sync,
        preparer=preparer,
        ledger=ledger,
        plan=plan,
        clock=clock,
        dry_run=dry_run,
    )
    with closing(reconciliation):
        yield reconciliation.rows(limited)


def take_in(rows: Iterable[Mapping[str, Any]], folder: RunFolder, plan: Mapping[str, int]) -> None:
    """Read rows into the folder's snapshot, with what was found out on the way."""
    left_out = Counter[str]()

    def noting() -> Iterator[Mapping[str, Any]]:
        for row in rows:
            if (why := row.get(SKIP_MARK)) is not None:
                left_out[why] += row.get(WEIGHT_MARK, 1)
            yield row
        folder.keep_notes(plan=plan, left_out=left_out)  # before the snapshot counts as complete

    folder.take_snapshot(noting(), weight_of=lambda row: row.get(WEIGHT_MARK, 1))
