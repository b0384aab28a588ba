"""A process that has imported what any operator needs of Airflow, and does nothing: what memory is compared with."""

from __future__ import annotations

from benchmarks.senders.work import Work


def send(work: Work) -> int:
    """Import Airflow, and say that all was sent: there is nothing to do."""
    from airflow.providers.common.compat.sdk import BaseHook, BaseOperator  # noqa: F401

    return work.count
