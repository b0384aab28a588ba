"""Send each loan approval once."""

from airflow import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

with DAG("loan_approvals", schedule=None, doc_md=__doc__, tags=["incident"]) as dag:
    SqlToRegalOperator(
        task_id="send_approvals",
        sql="SELECT * FROM approvals",
        sql_conn_id="regal_warehouse",
        call="track",
        event="Loan Approved",
        rate=100,
    )
