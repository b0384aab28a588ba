"""Many mapped tasks that send one event each, and a delivery of many rows, on one account."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_regal.operators.track import RegalTrackOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

SINGLES = int(os.environ["REGAL_TEST_SINGLES"])
OFTEN = {"regal_conn_id": "regal_slow", "retries": 3, "retry_delay": timedelta(seconds=1)}

with DAG("singles", schedule=None, max_active_tasks=SINGLES + 1):
    RegalTrackOperator.partial(task_id="single", event="Single Event", **OFTEN).expand(
        user_id=[f"single-{number}" for number in range(SINGLES)]
    )
    SqlToRegalOperator(
        task_id="rows",
        sql="SELECT person AS user_id, id AS row_id FROM source_rows WHERE dag = 'singles' ORDER BY id",
        sql_conn_id="source",
        call="track",
        event="Row Read",
        priority_weight=10,
        **OFTEN,
    )
