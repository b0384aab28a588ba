"""A process that has imported what any operator needs of Airflow, and does nothing: the baseline for memory."""

from __future__ import annotations

from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Import Airflow, and report that everything was sent: there is nothing to do."""
    from airflow.providers.common.compat.sdk import BaseHook, BaseOperator  # noqa: F401

    return work.count
