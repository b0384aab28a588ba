"""Plays the upstream team: corrects whatever is wrong with the rows of the warehouse."""

from airflow import DAG
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

with DAG("upstream_repair", schedule=None, doc_md=__doc__, tags=["incident"]) as dag:
    for table in ("customers", "leads"):
        SQLExecuteQueryOperator(
            task_id=f"repair_{table}",
            conn_id="regal_warehouse",
            sql=[f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM {table}_right"],  # noqa: S608
            split_statements=False,
        )
