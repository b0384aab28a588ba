"""The DAGs of these tests, one for one or two settings: run by a scheduler, read from their own folder.

Every row's user id begins with the DAG's id, so that arrivals can be assigned. Events are named like their DAG, unless
their task has its own name.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensor, DateTimeSensorAsync
from airflow.sdk import DAG, CronDataIntervalTimetable, task

HOME = Path(os.environ["SETTINGS_TEST_HOME"])
SOON = "{{ dag_run.start_date + macros.timedelta(seconds=2) }}"
TWO_DAYS = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))


def dag_of(dag_id, **options):
    options = {"schedule": None, "catchup": False, "is_paused_upon_creation": False, **options}
    return DAG(dag_id, **options)


def deliver(dag_id, rows, *, task_id="deliver", call="track", event=None, each=lambda number: {}, **options):
    """Make a task that sends this many rows.

    :param dag_id: the prefix of user ids, and of events without a name.
    :param each: returns further columns of a row, given its number.
    """
    options = {"retries": 2, "retry_delay": timedelta(seconds=1), **options}
    if call == "track":
        options["event"] = event or dag_id

    @task.regal(task_id=task_id, call=call, **options)
    def rows_of(**context):
        with (HOME / f"{dag_id}.pids").open("a") as out:
            out.write(f"{os.getpid()} {os.getppid()}\n")
        for number in range(rows):
            yield {"user_id": f"{dag_id}-{number}", **each(number)}

    return rows_of()


def deliver_by_run(dag_id, rows, **options):
    """Make a task whose rows name the date of its run."""
    options = {"task_id": "deliver", "retries": 0, "event": dag_id, **options}

    @task.regal(call="track", **options)
    def rows_of(logical_date=None):
        for number in range(rows):
            yield {"user_id": f"{dag_id}-{logical_date:%d}-{number}", "timestamp": logical_date}

    return rows_of()


def with_message_id(of):
    return lambda number: {"message_id": f"{of} {number}"}


def phone(number):
    return {"phone": f"+1212555{number:04d}"}


# -- a task that is interrupted while it sends

LONG = {"rows": 600, "rate": 60, "max_unknown": 1.0}

with dag_of("execution_timeout"):
    deliver("execution_timeout", **LONG | {"retries": 9, "rate": 40}, execution_timeout=timedelta(seconds=12))

    @task.regal(task_id="slow_source", call="track", event="slow", retries=1, retry_delay=timedelta(seconds=1),
                execution_timeout=timedelta(seconds=3))  # fmt: skip
    def slow_source():
        for number in range(8):
            time.sleep(0.5)
            yield {"user_id": f"slow_source-{number}"}

    slow_source()

with dag_of("dagrun_timeout", dagrun_timeout=timedelta(seconds=20)):
    deliver("dagrun_timeout", **LONG | {"rate": 24})

for name in (
    "cleared_while_running",
    "marked_success",
    "marked_failed",
    "worker_killed",
    "scheduler_stopped",
    "all_stopped",
):
    with dag_of(name):
        deliver(name, **LONG)

with dag_of("supervisor_killed"):  # long enough for the retry to find it sending
    deliver("supervisor_killed", **LONG | {"rate": 16})

with dag_of("contacts_cleared"):
    deliver("contacts_cleared", 600, call="identify", rate=60)

# -- tries

with dag_of("marked_after"):
    deliver("marked_after", 20)
    deliver("marked_after_failing", 20, task_id="failing")

with dag_of("no_retries"):
    deliver("no_retries", 60, retries=0, max_connections=1)

with dag_of("backoff"):
    deliver(
        "backoff", 40, max_connections=1, retries=3,
        retry_exponential_backoff=True, max_retry_delay=timedelta(seconds=4),
    )  # fmt: skip

# -- runs

with dag_of("depends_on_past"):
    deliver_by_run("depends_on_past", 20, max_event_age=None, depends_on_past=True)

with dag_of(
    "backfilled", schedule=CronDataIntervalTimetable("0 0 * * *", "UTC"), start_date=TWO_DAYS[0],
    end_date=TWO_DAYS[1],
):  # fmt: skip
    deliver_by_run("backfilled", 5, max_event_age=None)
    deliver_by_run("too_old", 5, task_id="default")

with dag_of(
    "caught_up",
    schedule=CronDataIntervalTimetable("0 0 * * *", "UTC"),
    start_date=TWO_DAYS[0], end_date=TWO_DAYS[1], catchup=True, max_active_runs=1,
):  # fmt: skip
    deliver("caught_up", 5)
    deliver("caught_up_once", 5, task_id="once", each=with_message_id("caught up"))

with dag_of("two_runs", max_active_runs=2):
    deliver("two_runs", 60, rate=15)
    deliver("two_runs_once", 60, task_id="once", rate=15, each=with_message_id("two runs"))

for name in ("old_name", "new_name"):
    with dag_of(name):
        deliver("renamed", 10)
        deliver("renamed_once", 10, task_id="once", each=with_message_id("renamed"))
        deliver("renamed_changed", 10, task_id="contacts", call="identify", only_changed=True, each=phone)

with dag_of("tested"):
    deliver("tested", 10)

# -- tasks

with dag_of("mapped"):

    @task.regal(task_id="deliver", call="track", retries=0)
    def shard(number):
        for row in range(10):
            yield {"user_id": f"mapped-{number}-{row}", "event": f"mapped {number}"}

    shard.expand(number=[0, 1, 2])

with dag_of("one_at_a_time"):
    for name, weight in (("low", 1), ("middle", 5), ("high", 10)):
        deliver(f"one_at_a_time-{name}", 30, task_id=name, rate=30, pool="one_slot", priority_weight=weight)

with dag_of("trigger_rule"):
    first = deliver("trigger_rule_first", 10, task_id="first")
    first >> deliver("trigger_rule_second", 10, task_id="second")
    first >> deliver("trigger_rule_third", 10, task_id="third", trigger_rule="all_done")

with dag_of("after_waiting"):
    # On a busy machine, Airflow 3.3 treats a deferral as a failure if the trigger fires at once, so it has retries.
    again = {"target_time": SOON, "retries": 3, "retry_delay": timedelta(seconds=1)}
    [
        DateTimeSensorAsync(task_id="deferred", **again),
        DateTimeSensor(task_id="rescheduled", mode="reschedule", poke_interval=2, **again),
    ] >> deliver("after_waiting", 10)

with dag_of("setup_teardown"):

    @task
    def work():
        raise RuntimeError("the work failed")

    prepare = deliver("setup_teardown_setup", 5, task_id="prepare").as_setup()
    report = deliver("setup_teardown_teardown", 5, task_id="report").as_teardown(setups=prepare)
    prepare >> work() >> report

with dag_of("teardown_fails"):
    EmptyOperator(task_id="work") >> deliver("teardown_fails", 5, task_id="report").as_teardown()

with dag_of("teardown_counts"):
    EmptyOperator(task_id="work") >> deliver(
        "teardown_counts", 5, task_id="report", event="teardown_fails"
    ).as_teardown(on_failure_fail_dagrun=True)
