"""The first events: a contact, her consent, and three things she did.

The data is in this file because it is the example of Regal's documentation. Airflow stores DAG files and shows them in
its UI: read your customers from a source instead.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG

from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.page import RegalPageOperator
from airflow_provider_regal.operators.screen import RegalScreenOperator
from airflow_provider_regal.operators.track import RegalTrackOperator

ANNE = "anne-smith"
WORDING = "By clicking the 'Submit' button below, I agree to receive automated marketing SMS and calls."
CONSENT = {"subscribed": True, "timestamp": "2020-08-25T21:23:43Z", "ip": "198.51.100.54", "text": WORDING}

with DAG(
    dag_id="regal_first_events",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    default_args={"regal_conn_id": "regal_sandbox", "retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["regal", "example"],
    doc_md=__doc__,
) as dag:
    # Regal creates a contact as soon as it receives a phone or an email.
    create_contact = RegalIdentifyOperator(
        task_id="create_contact",
        user_id=ANNE,
        traits={"phone": "+19175554444", "firstName": "Anne", "lastName": "Smith"},
    )

    # Consent needs evidence: when, from which IP address, and to which wording.
    opt_in = RegalIdentifyOperator(
        task_id="opt_in",
        user_id=ANNE,
        traits={
            "phone": "+19175554444",
            "age": 30,
            "firstName": "Anne",
            "lastName": "Smith",
            "optIn": [{"channel": "sms", **CONSENT}, {"channel": "voice", **CONSENT}],
        },
    )

    # In Regal this can start a journey, and with it a call. It is never sent twice.
    approved = RegalTrackOperator(
        task_id="loan_application_approved",
        event="Loan Application Approved",
        user_id=ANNE,
        properties={"loanType": "Personal loan", "amount": 30000, "currency": "USD", "term": 12},
        timestamp="{{ dag_run.start_date }}",
    )

    saw_page = RegalPageOperator(
        task_id="saw_pricing_page",
        user_id=ANNE,
        name="Pricing",
        properties={"path": "/pricing", "url": "https://example.com/pricing"},
    )

    saw_screen = RegalScreenOperator(task_id="saw_home_screen", user_id=ANNE, name="Home")

    create_contact >> opt_in >> [approved, saw_page, saw_screen]
