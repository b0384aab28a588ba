"""Plan, approve, send: an event that makes Regal call people waits until somebody has looked at it.

The first task reads the query, checks every row and keeps what it would send; it sends nothing but opt-outs. Then
Airflow asks somebody (Browse -> Required Actions), with the counts and a few rows without their values. The last task
sends what was approved, and no other rows: the table may change meanwhile.
"""

from datetime import UTC, datetime, timedelta
from inspect import signature

from airflow import DAG
from airflow.exceptions import AirflowException

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
except (ImportError, AirflowException):  # before Airflow 3.1, no one can be asked: a check of yours approves
    from airflow.operators.python import ShortCircuitOperator

    ApprovalOperator = None

from airflow_provider_regal.operators.plan import RegalSendPlanOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

# Customers with the basic plan, as they were loaded last.
OFFERS = """
SELECT id AS user_id, phone, first_name, plan AS current_plan
FROM customers AS customer
WHERE plan = 'basic' AND loaded_at = (SELECT max(loaded_at) FROM customers WHERE id = customer.id)
ORDER BY id
"""

# What the person who approves sees. The report has counts and reasons, and no personal data.
BODY = """
{% set plan = ti.xcom_pull('plan') %}
{{ plan['left'] }} of {{ plan['read'] }} rows would be sent; {{ plan['rejected'] }} are rejected.

{% for reason, rows in plan['reasons'].items() %}
- {{ rows }} rejected: {{ reason }}
{% endfor %}
{% for sample in plan['samples'] %}
- `{{ sample }}`
{% endfor %}
"""

with DAG(
    dag_id="regal_plan_and_approve",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    default_args={"regal_conn_id": "regal_sandbox", "retries": 3, "retry_delay": timedelta(seconds=5)},
    tags=["regal", "example"],
    doc_md=__doc__,
) as dag:
    # About one customer in forty has an invalid phone number. If there are twice as many, no one is asked.
    query = {"sql": OFFERS, "sql_conn_id": "regal_warehouse", "max_rejected": 0.05}
    plan = SqlToRegalOperator(task_id="plan", call="track", event="Upgrade Offered", plan=True, **query)

    if ApprovalOperator is not None:
        renamed = "response_timeout" in signature(HITLOperator.__init__).parameters  # not yet in Airflow 3.1
        approve = ApprovalOperator(
            task_id="approve",
            subject="Send 'Upgrade Offered' to {{ ti.xcom_pull('plan')['left'] }} customers?",
            body=BODY,
            # A plan expires after 7 days ([regal] plan_days). Without an answer nothing is sent.
            **{"response_timeout" if renamed else "execution_timeout": timedelta(days=2)},
            retries=0,
        )
    else:
        approve = ShortCircuitOperator(
            task_id="approve",
            python_callable=lambda ti: ti.xcom_pull("plan")["left"] <= 1_000,
        )

    send = RegalSendPlanOperator(task_id="send", plan=plan.output)

    plan >> approve >> send
