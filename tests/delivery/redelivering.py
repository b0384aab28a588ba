"""A redelivery without Airflow, for tests: what :class:`airflow_provider_regal.hooks._redelivering.Redelivery` does."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_regal.delivery.redelivering import Redelivering
from airflow_provider_regal.delivery.sources.letters import Choice
from airflow_provider_regal.journal.dead_letters import read_dead_letters
from airflow_provider_regal.journal.redelivery import find_in_bucket, find_run_folders


class Redeliver:
    """Redelivers what the fixture ``deliver`` has left; each run has a folder of its own beside the others.

    :param root: where they lie, on a file system or in a bucket.
    """

    def __init__(self, deliver, root):
        self.deliver = deliver
        self.root = root
        self.report = None

    def __call__(
        self, *paths, status="rejected", fix=None, of_run="again", ledger=None, patience_s=0.0, restart=False, **options
    ):
        redelivering = Redelivering(
            lambda: self.find(paths or ["run"]),
            Choice((status,) if isinstance(status, str) else status, fix),
            at=self.at,
            restarts=restart,
            has_ledger=ledger is not None,
            limit=options.get("limit"),
            patience_s=patience_s,
        )
        options.setdefault("event", None)
        try:
            return self.deliver(
                redelivering.rows, of_run=of_run, ledger=ledger, restart=restart, around=redelivering.around, **options
            )
        finally:
            self.report = self.deliver.last.report

    def find(self, paths):
        if isinstance(self.root, Path):
            return find_run_folders(paths, self.root)
        return {str(found): found for path in paths for found in find_in_bucket(path, self.root)}.values()

    def at(self, name):
        return Path(name) if isinstance(self.root, Path) else self.root.below(name.removeprefix(f"{self.root}/"))

    def letters(self, of_run="again"):
        return list(read_dead_letters(self.root / of_run / "dead_letters.jsonl"))
