"""Send the status of each account to Regal."""

from datetime import timedelta

from airflow import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

with DAG("account_status", schedule=None, doc_md=__doc__, tags=["incident"]) as dag:
    SqlToRegalOperator(
        task_id="send_status",
        sql="SELECT * FROM statuses",
        sql_conn_id="regal_warehouse",
        call="identify",
        only_changed=True,
        rate=100,
        # Usual values are 5 minutes, and 3 retries 5 minutes apart: too long to wait in an exercise.
        outage_patience=timedelta(seconds=5),
        retries=1,
        retry_delay=timedelta(seconds=2),
    )
