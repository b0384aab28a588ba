"""A DAG of which a test removes the second task while Airflow runs."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_regal.operators.rows import RegalRowsOperator

with DAG("removed", schedule=None, is_paused_upon_creation=False):
    RegalRowsOperator(task_id="stays", call="track", event="stays", rows=[{"user_id": "stays-0"}])
    # to be removed
    RegalRowsOperator(
        task_id="goes", call="track", event="removed", rows=[{"user_id": f"removed-{n}"} for n in range(3)]
    )
