"""Contacts of several brands: one mapped task per brand, each with a connection of its own.

Each brand has its own account at Regal, so it has its own connection: API key, rate limit and the part of the ledger
that records what was sent. To add a brand, add its name here and a connection ``regal_sandbox_NAME``.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

BRANDS = ["north", "south"]

CONTACTS = """
SELECT id AS user_id, phone, email, first_name, last_name
FROM customers
WHERE brand = :brand
ORDER BY id, loaded_at
"""

with DAG(
    dag_id="regal_every_brand",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["regal", "example"],
    doc_md=__doc__,
) as dag:
    SqlToRegalOperator.partial(
        task_id="contacts",
        sql=CONTACTS,
        sql_conn_id="regal_warehouse",
        call="identify",
        # About one customer in forty has an invalid phone number.
        max_rejected=0.05,
        # Airflow's grid shows "north" and "south" instead of 0 and 1.
        map_index_template="{{ task.parameters['brand'] }}",
    ).expand_kwargs(
        # These connections lead to a local Regal (make demo). Put your own here to send to Regal.
        [{"regal_conn_id": f"regal_sandbox_{brand}", "parameters": {"brand": brand}} for brand in BRANDS]
    )
