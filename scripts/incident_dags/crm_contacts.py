"""Keep Regal's contacts in line with the CRM."""

from airflow import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

with DAG("crm_contacts", schedule=None, doc_md=__doc__, tags=["incident"]) as dag:
    SqlToRegalOperator(
        task_id="send_contacts",
        sql="SELECT * FROM customers",
        sql_conn_id="regal_warehouse",
        call="identify",
        only_changed=True,
        rate=100,
    )
