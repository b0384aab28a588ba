"""Send leads from a partner to Regal. Up to 2 % bad phones are normal."""

from airflow import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

with DAG("partner_leads", schedule=None, doc_md=__doc__, tags=["incident"]) as dag:
    SqlToRegalOperator(
        task_id="send_leads",
        sql="SELECT * FROM leads",
        sql_conn_id="regal_warehouse",
        call="identify",
        only_changed=True,
        max_rejected=0.02,
        rate=100,
    )
