"""Redeliver: the rows of one delivery that were not delivered, sent again as they were read.

The button on the page of a delivery (Airflow 3.1 and later: Browse -> Regal) triggers this DAG, with the connection of
that delivery. You can also trigger it by hand: then enter the connection; regal_sandbox leads to a local Regal (make
demo). Every rule applies again: consent, age, rate. To fix rows before they are sent, write a task of your own with
RegalRedeliverOperator(fix=...).
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG

try:
    from airflow.sdk import Param
except ImportError:  # Airflow 2.11
    from airflow.models.param import Param

from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator

with DAG(
    dag_id="regal_redeliver",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "delivery": Param(None, type=["null", "integer"], title="Delivery", description="Its id, such as 17."),
        "status": Param(
            "rejected",
            enum=["rejected", "unknown", "both"],
            title="Rows",
            description="Unknown rows may have reached Regal: people may be reached twice.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description="Only rows with this reason, or whose message begins with it. Empty: all.",
        ),
        "positions": Param(
            "", type="string", title="Positions", description="Only these rows, such as 212, 215. Empty: all."
        ),
        "regal_conn_id": Param("regal_sandbox", type="string", title="Connection to Regal"),
    },
    tags=["regal", "example"],
    doc_md=__doc__,
) as dag:
    RegalRedeliverOperator(
        task_id="redeliver",
        delivery="{{ params.delivery }}",
        status="{{ params.status }}",
        reason="{{ params.reason or '' }}",
        positions="{{ params.positions }}",
        regal_conn_id="{{ params.regal_conn_id }}",
    )
