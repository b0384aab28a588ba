"""``@task.regal``: a Python function yields rows, and its task delivers them.

Use it where SQL does not suffice, such as for rows of an API. Everything else is as with the other operators: the
ledger, retries that resume, rejected rows, the rate limit.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

from airflow import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

try:
    from airflow.sdk import BaseHook, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.hooks.base import BaseHook

ATTENDED = """
SELECT customer_id
FROM events
WHERE name = 'Lesson Attended' AND customer_id IS NOT NULL
  AND datetime(happened_at) >= datetime(?) AND datetime(happened_at) < datetime(?)
ORDER BY customer_id
"""

with DAG(
    dag_id="regal_task_regal",
    # As in 02: on Airflow 3 a run of "@daily" has no interval.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    # All rows are read before the first is sent, so a retry resumes with them and does not call the function again.
    default_args={"regal_conn_id": "regal_sandbox", "retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["regal", "example"],
    doc_md=__doc__,
) as dag:

    @task.regal(call="track", event="Busy Day")
    def busy_days(data_interval_start=None, data_interval_end=None):
        """Yield one row per customer who attended two or more lessons that day."""
        warehouse = BaseHook.get_connection("regal_warehouse").get_hook()
        day = (data_interval_start.isoformat(), data_interval_end.isoformat())
        lessons = Counter(customer for (customer,) in warehouse.get_records(ATTENDED, parameters=day))
        for customer, count in lessons.items():
            if count >= 2:
                # The message id sends the event once per customer and day, however often this runs.
                message_id = f"busy-{customer}-{data_interval_start:%Y-%m-%d}"
                yield {"user_id": customer, "lessons": count, "message_id": message_id}

    busy_days()
