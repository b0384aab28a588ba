"""Contacts with their consent, and a sync of a consent table, about the same people at the same time."""

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

OFTEN = {"retries": 3, "retry_delay": timedelta(seconds=1), "sql_conn_id": "source", "regal_conn_id": "regal_slow"}

with DAG("people", schedule=None):
    SqlToRegalOperator(
        task_id="contacts",
        sql="SELECT person AS user_id, phone, id AS row_id, sms_opt_in, sms_opt_in_at, sms_opt_in_ip "
        "FROM people ORDER BY id",
        call="identify",
        **OFTEN,
    )
    RegalOptInSyncOperator(
        task_id="sync",
        sql="SELECT phone, 'sms' AS channel, subscribed, given_at AS timestamp, ip FROM consents ORDER BY id",
        initial="send",
        max_change_ratio=None,
        **OFTEN,
    )
