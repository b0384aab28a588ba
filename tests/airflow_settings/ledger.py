"""Read the ledger of the running Airflow over a plain connection."""

from __future__ import annotations

from typing import Any

from tests.ledger_file import deliveries, outcomes
from tests.running_airflow import Airflow

NOTHING_YET = {"state": "nothing yet"}


def deliveries_of(airflow: Airflow, dag: str, task: str = "deliver") -> list[dict[str, Any]]:
    """Return the deliveries of a task, oldest first."""
    return [line for line in deliveries(airflow.ledger) if (line["dag_id"], line["task_id"]) == (dag, task)]


def last_delivery(airflow: Airflow, dag: str, task: str = "deliver") -> dict[str, Any]:
    """Return the last delivery of a task."""
    return (deliveries_of(airflow, dag, task) or [NOTHING_YET])[-1]


def reasons_of(airflow: Airflow, delivery: int) -> set[str]:
    """Return the reasons why rows of a delivery were not delivered."""
    return {line["message"] for line in outcomes(airflow.ledger, delivery) if line["status"] != "acknowledged"}
