"""From a warehouse to Regal: first who the customers are, then what they did on the day that ended.

The column names are the mapping, so SQL does the mapping. Each run sends the events of its own day, its data interval.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

# user_id, phone, email, first_name, last_name and *_opt_in* have a meaning in Regal; the rest become traits.
# A customer who was loaded twice has two rows here. They are sent in this order, so the last one counts.
CONTACTS = """
SELECT id AS user_id, phone, email, first_name, last_name, plan, balance, born,
       sms_ok AS sms_opt_in, sms_at AS sms_opt_in_at, sms_ip AS sms_opt_in_ip, wording AS sms_opt_in_text,
       voice_ok AS voice_opt_in, voice_at AS voice_opt_in_at, voice_ip AS voice_opt_in_ip,
       wording AS voice_opt_in_text
FROM customers
ORDER BY id, loaded_at
"""

# datetime() converts times with and without a zone to UTC. An event without a time belongs to no day.
EVENTS = """
SELECT customer_id AS user_id, name AS event, happened_at AS timestamp, id AS event_id, amount, currency, course
FROM events
WHERE datetime(happened_at) >= datetime(:start) AND datetime(happened_at) < datetime(:end)
ORDER BY datetime(happened_at), id
"""

with DAG(
    dag_id="regal_contacts_and_events",
    # Not "@daily": on Airflow 3 the data interval of such a run is empty, so the query would find nothing.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    # A retry resumes where the last try stopped, so it may come soon.
    default_args={
        "regal_conn_id": "regal_sandbox",
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
    },
    tags=["regal", "example"],
    doc_md=__doc__,
) as dag:
    contacts = SqlToRegalOperator(
        task_id="contacts",
        sql=CONTACTS,
        sql_conn_id="regal_warehouse",
        call="identify",
        types={"balance": float},
        # About one customer in forty has an invalid phone number. Those rows are kept as dead letters, and the others
        # are sent. If there are twice as many, something else is wrong, and the task fails.
        max_rejected=0.05,
    )

    events = SqlToRegalOperator(
        task_id="events",
        sql=EVENTS,
        sql_conn_id="regal_warehouse",
        parameters={"start": "{{ data_interval_start }}", "end": "{{ data_interval_end }}"},
        call="track",
        types={"amount": float},
        # About two events in a hundred have no customer, or an amount that is not a number.
        max_rejected=0.05,
    )

    contacts >> events
