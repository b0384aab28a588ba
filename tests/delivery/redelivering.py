"""A redelivery without Airflow, for tests: like :class:`RegalRedeliverOperator`."""

from __future__ import annotations

from airflow_provider_regal.ledger.outcomes import Selection
from airflow_provider_regal.sources.dead_letters import Choice, read_dead_letters
from tests.ledger.view import ACCOUNT


def opener(fix=None, *, status="rejected", allow_empty=False, limit=None, restart=False, **selection):
    """Return a function that takes over the letters, for a delivery.

    :param selection: see :class:`Selection`.
    """
    statuses = (status,) if isinstance(status, str) else tuple(status)
    choice = Choice(Selection(ACCOUNT, status=statuses, **selection), fix, allow_empty)
    return lambda held: read_dead_letters(held, choice, limit=limit, restarts=restart)


class Redeliver:
    """Redelivers what the fixture ``deliver`` has left; each run has its own delivery."""

    def __init__(self, deliver, ledger):
        self._deliver = deliver
        self._ledger = ledger

    def __call__(
        self, *runs, fix=None, of_run="again", status="rejected", allow_empty=False, limit=None, restart=False,
        since=None, until=None, reason=None, dag_id=None, task_id=None, run_id=None, **options,
    ):  # fmt: skip
        """:param runs: whose letters; by default those of the run ``run``, unless they are chosen otherwise."""
        chosen = {"since": since, "until": until, "reason": reason}
        chosen |= {"dag_id": dag_id, "task_id": task_id, "run_id": run_id}
        if runs or all(one is None for one in chosen.values()):
            chosen["deliveries"] = [one.id for run in runs or ["run"] for one in self._ledger.deliveries(run)]
        options.setdefault("event", None)
        return self._deliver(
            opener(fix, status=status, allow_empty=allow_empty, limit=limit, restart=restart, **chosen),
            of_run=of_run, source="letters", limit=limit, restart=restart, **options,
        )  # fmt: skip

    @property
    def report(self):
        """Of the last one."""
        return self._deliver.last.report
