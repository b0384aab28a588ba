"""Alerts: a Regal event for the person on call when a sync fails, or, from Airflow 3.1 on, when it is late.

In Regal, start a journey with these events: a text or a call to that person. The notifier never fails a task.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG

try:
    from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
except ImportError:  # before Airflow 3.1 there are no deadlines
    DeadlineAlert = None

from airflow_provider_regal.notifications.regal import RegalNotifier
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

# regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
# The user id is the person on call. Airflow stores it: do not write a phone here.
ON_CALL = {"regal_conn_id": "regal_sandbox", "user_id": "on-call"}

# A message id sends the event once, even if several tasks of the run fail.
FAILED = RegalNotifier(
    event="Sync Failed",
    properties={"dag": "{{ dag.dag_id }}", "task": "{{ ti.task_id }}", "run": "{{ run_id }}"},
    message_id="{{ dag.dag_id }}-{{ run_id }}-failed",
    **ON_CALL,
)

LATE = {}
if DeadlineAlert is not None:
    LATE["deadline"] = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=1),
        callback=AsyncCallback(
            RegalNotifier,
            kwargs={
                "event": "Sync Late",
                "properties": {"run": "{{ dag_run.dag_run_id }}"},
                "message_id": "{{ dag_run.dag_id }}-{{ dag_run.dag_run_id }}-late",
                **ON_CALL,
            },
        ),
    )

with DAG(
    dag_id="regal_alerts",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"regal_conn_id": "regal_sandbox", "retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["regal", "example"],
    doc_md=__doc__,
    **LATE,
) as dag:
    SqlToRegalOperator(
        task_id="contacts",
        sql="SELECT id AS user_id, phone, email, first_name FROM customers ORDER BY id, loaded_at",
        sql_conn_id="regal_warehouse",
        call="identify",
        max_rejected=0.05,
        # An almost empty table is a failed load: the task fails, and the person on call gets the event.
        min_rows=100,
        on_failure_callback=FAILED,
    )
