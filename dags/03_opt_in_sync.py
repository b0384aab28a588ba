"""Consent from a warehouse to Regal, every hour: only what changed is sent, all opt-outs before the first opt-in.

The table is a history: who said yes or no to texts, calls or emails, when, and where. Each run reads all of it and
compares the newest decision of each phone and email with the ledger, which records what Regal acknowledged. So nothing
is sent twice, and an old yes that arrives late never undoes a newer no.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator

# A row is one decision of one person on one channel; the operator looks for these column names. Spellings of phones and
# emails, repeated rows and the order of the rows do not matter: the newest decision counts.
CONSENTS = """
SELECT lead AS user_id, phone, email, lower(channel) AS channel, subscribed,
       said_at AS timestamp, ip, wording AS text, form AS source
FROM consents
ORDER BY id
"""

with DAG(
    dag_id="regal_opt_in_sync",
    # As in 02: on Airflow 3 a run of "@hourly" has no interval. This query needs none: it reads the whole table.
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    # The next run finds whatever this one could not send; retries only do it sooner.
    default_args={
        "regal_conn_id": "regal_sandbox",
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
    },
    tags=["regal", "example", "consent"],
    doc_md=__doc__,
) as dag:
    opt_ins = RegalOptInSyncOperator(
        task_id="opt_ins",
        sql=CONSENTS,
        sql_conn_id="regal_warehouse",
        # The first run finds an empty ledger and sends everything. If Regal already has your consents, use "baseline".
        initial="send",
        # An almost empty table is a failed load.
        min_rows=100,
        # A yes without its time or the person's IP address is not sent, but kept as a dead letter and counted here.
        # About one row in ten is like that; many more mean that a form has stopped recording them.
        max_rejected=0.2,
        # What Regal acknowledged is in the ledger: an SQLite file on one machine. Workers on several machines need a
        # database, named by [regal] ledger_conn_id. All tasks that send to the same account share it.
    )
