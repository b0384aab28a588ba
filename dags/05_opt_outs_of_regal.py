"""Opt-outs that Regal knows and your tables do not: replies of STOP, and what agents enter.

Regal reports them by its webhook ``contact.unsubscribed``. Something of yours has to receive it and write each call
into a table; here that is ``regal_webhooks``. The first task reads this table into the ledger and sends nothing. From
then on, no sync, contact or event of the account sends an opt-in that is older. The second task is the sync of your own
consents: without the first, a yes that it has not sent yet could undo a reply of STOP.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator

# The webhook's time is in seconds since 1970, as text. A call without a phone or email is about no consent.
OPT_OUTS_OF_REGAL = """
SELECT phone, email, channel, name = 'contact.subscribed' AS subscribed,
       datetime(CAST(original_timestamp AS INTEGER), 'unixepoch') AS timestamp
FROM regal_webhooks
WHERE name IN ('contact.subscribed', 'contact.unsubscribed') AND coalesce(phone, email) IS NOT NULL
ORDER BY id
"""

CONSENTS = """
SELECT lead AS user_id, phone, email, lower(channel) AS channel, subscribed,
       said_at AS timestamp, ip, wording AS text, form AS source
FROM consents
ORDER BY id
"""

with DAG(
    dag_id="regal_opt_outs_of_regal",
    # As in 03: both queries read a whole table and need no interval.
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    default_args={
        "regal_conn_id": "regal_sandbox",
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
    },
    tags=["regal", "example", "consent"],
    doc_md=__doc__,
) as dag:
    opt_outs_of_regal = RegalOptInSyncOperator(
        task_id="opt_outs_of_regal",
        sql=OPT_OUTS_OF_REGAL,
        sql_conn_id="regal_warehouse",
        known_to_regal=True,
    )

    opt_ins = RegalOptInSyncOperator(
        task_id="opt_ins",
        sql=CONSENTS,
        sql_conn_id="regal_warehouse",
        initial="send",
        min_rows=100,
        # As in 03: about one row in ten has no evidence.
        max_rejected=0.2,
    )

    opt_outs_of_regal >> opt_ins
