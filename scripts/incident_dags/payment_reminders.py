"""Start a journey that reminds people of a payment. No one may be called twice: the guarantee is at_most_once."""

from airflow import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

with DAG("payment_reminders", schedule=None, doc_md=__doc__, tags=["incident"]) as dag:
    SqlToRegalOperator(
        task_id="send_reminders",
        sql="SELECT * FROM payments",
        sql_conn_id="regal_warehouse",
        call="track",
        event="Payment Due",
        guarantee="at_most_once",
        rate=100,
        # With retries, Airflow resumes by itself: the square ends up green, and the page says OK, CHECK 32.
        retries=0,
    )
