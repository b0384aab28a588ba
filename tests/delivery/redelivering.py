"""A redelivery without Airflow, for tests: what :class:`airflow_provider_regal.hooks._redelivering.Redelivery` does."""

from __future__ import annotations

from airflow_provider_regal.delivery.sources.letters import Choice, Claimant, read_letters
from airflow_provider_regal.journal.dead_letters import read_dead_letters
from airflow_provider_regal.journal.redelivery import Taken, find_run_folders


class Redeliver:
    """Redelivers what the fixture ``deliver`` has left; each run has a folder of its own beside the others."""

    def __init__(self, deliver, root):
        self.deliver = deliver
        self.root = root
        self.report = None

    def __call__(
        self, *paths, status="rejected", fix=None, of_run="again", ledger=None, patience_s=0.0, restart=False, **options
    ):
        mine = self.root / of_run
        goes_on = (mine / "marker.json").exists()
        statuses = (status,) if isinstance(status, str) else status

        def rows():
            folders = [folder for folder in find_run_folders(paths or ["run"], self.root) if folder != mine]
            return read_letters(
                folders,
                Choice(statuses, fix),
                by=Claimant(mine, goes_on, restart),
                has_ledger=ledger is not None,
                patience_s=patience_s,
            )

        options.setdefault("event", None)
        taken = Taken(mine)
        taken.settle()
        try:
            return self.deliver(rows, of_run=of_run, ledger=ledger, restart=restart, **options)
        finally:
            self.report = self.deliver.last.report
            taken.settle()

    def letters(self, of_run="again"):
        return list(read_dead_letters(self.root / of_run / "dead_letters.jsonl"))
