"""When contacts are synced: a DAG that runs each time another one has brought Regal's contacts up to date.

The first DAG names the contacts of the account as what it changes (an outlet). Airflow runs the second one whenever
that succeeded, with the counts of the delivery at hand.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG

try:
    from airflow.sdk import Asset, get_current_context, task
except ImportError:  # Airflow 2.11
    from airflow.datasets import Dataset as Asset
    from airflow.decorators import task
    from airflow.operators.python import get_current_context

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

# regal://ACCOUNT/contacts or regal://ACCOUNT/events/NAME; the account is the connection's, by default its id.
CONTACTS = Asset("regal://regal_sandbox/contacts")

OPTIONS = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    "default_args": {"regal_conn_id": "regal_sandbox", "retries": 3, "retry_delay": timedelta(minutes=1)},
    "tags": ["regal", "example"],
    "doc_md": __doc__,
}

with DAG(dag_id="regal_contacts", schedule="@daily", **OPTIONS) as contacts_dag:
    SqlToRegalOperator(
        task_id="contacts",
        sql="SELECT id AS user_id, phone, email, first_name, last_name FROM customers ORDER BY id, loaded_at",
        sql_conn_id="regal_warehouse",
        call="identify",
        max_rejected=0.05,
        outlets=[CONTACTS],
    )

with DAG(dag_id="regal_when_contacts_are_synced", schedule=[CONTACTS], **OPTIONS) as dag:

    @task
    def count_contacts() -> int:
        """Add up what the syncs since the last run have sent; a run by hand has none."""
        context = get_current_context()
        events = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        of_contacts = [event for key in events for event in events[key]]
        return sum(event.extra.get("acknowledged", 0) for event in of_contacts)

    # The message id sends the event once per customer, however often this runs.
    welcome = SqlToRegalOperator(
        task_id="welcome",
        sql="SELECT DISTINCT id AS user_id, 'welcome-' || id AS message_id FROM customers WHERE phone IS NOT NULL",
        sql_conn_id="regal_warehouse",
        call="track",
        event="Welcome",
        max_rejected=0.05,
    )

    count_contacts() >> welcome
