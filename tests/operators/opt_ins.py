"""Consents for the tests of the opt-in sync, and a way to run it in a DAG."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator

EVIDENCE = {"ip": "203.0.113.9", "text": "Yes, text me.", "source": "signup_form"}


def consent(number: int, subscribed: object = True, *, day: int = 1, **more: Any) -> dict[str, Any]:
    """One consent to texts, given or withdrawn on a day of January 2026."""
    return {
        "phone": f"+1212555{number:04d}",
        "channel": "sms",
        "subscribed": subscribed,
        "timestamp": f"2026-01-{day:02d}T10:00:00Z",
        **EVIDENCE,
        **more,
    }


def phone(number: int) -> str:
    """The number a consent is about."""
    return f"+1212555{number:04d}"


@dataclass
class Ran:
    """The results of one run."""

    state: str
    report: dict[str, Any] | None
    tries: int
    run: Any


def a_dag(name: str, *, retries: int = 0, **more: Any) -> DAG:
    """Make an empty DAG."""
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
        **more,
    )


def sync(run_dag: Any, name: str, *, retries: int = 0, **options: Any) -> Ran:
    """Run the operator in a DAG."""
    with a_dag(name, retries=retries) as dag:
        RegalOptInSyncOperator(task_id="opt_ins", **options)
    return ran(run_dag(dag), "opt_ins")


def ran(run: Any, task_id: str) -> Ran:
    """Return the final state of a task."""
    (ti,) = (ti for ti in run.get_task_instances() if ti.task_id == task_id)
    report = ti.xcom_pull(task_ids=task_id, key="regal_report")
    return Ran(str(run.state), report, ti.try_number, run)


def status(regal: Any, number: int, channel: str = "sms") -> str:
    """Return Regal's record of a phone."""
    contact = regal.contact(phone=phone(number))
    return contact["phones"][phone(number)][channel]["status"]


#: Two who agreed and one who did not.
EVERYBODY = [consent(100), consent(101), consent(102, False)]
