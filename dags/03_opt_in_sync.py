"""Consent from a warehouse to Regal, every hour: only what changed is sent, all opt-outs before the first opt-in.

The table is a history: who said yes or no to texts, calls or emails, when, and where. Each run reads all of it and
compares the newest word of each phone and email with the ledger, which knows what Regal acknowledged. So nothing is
sent twice, and an old yes that turns up late never undoes a newer no.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator

# A row is one word of one person on one channel; these column names are what the operator looks for. Spellings of
# phones and emails, repeated rows and the order of the rows do not matter: the newest word holds.
CONSENTS = """
SELECT lead AS user_id, phone, email, lower(channel) AS channel, subscribed,
       said_at AS timestamp, ip, wording AS text, form AS source
FROM consents
ORDER BY id
"""

with DAG(
    dag_id="regal_opt_in_sync",
    # As in 02: on Airflow 3 a run of "@hourly" has no interval. This query needs none, since it reads the whole state.
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # The next run finds whatever this one could not send; retries only make it sooner.
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5), "retry_exponential_backoff": True},
    tags=["regal", "example", "consent"],
    doc_md=__doc__,
) as dag:
    opt_ins = RegalOptInSyncOperator(
        task_id="opt_ins",
        sql=CONSENTS,
        sql_conn_id="regal_warehouse",
        # The first run finds an empty ledger and sends everything. If Regal has your consents already: "baseline".
        initial="send",
        # An empty table is a load that failed, not a world without consents.
        min_rows=100,
        # A yes without its time or the person's address is no evidence: it is never sent, kept as a dead letter, and
        # counted here. About one row in ten is like that; many more mean that a form has stopped recording them.
        max_rejected=0.2,
        # The ledger is a file beside the run folders. Workers on several machines need a database for it, and tasks
        # that send consent of the same people need the same one: ledger_conn_id names its connection.
    )
