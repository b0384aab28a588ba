"""Rows of a table in shards, one mapped task each: events are sent at most once, contacts at least once."""

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

SQL = """
    SELECT person AS user_id, id AS row_id FROM source_rows
    WHERE dag = %(dag)s AND task = %(task)s AND shard = %(shard)s ORDER BY id
"""
RATE = 50  # of one task, so that it is still sending when the last of them has started
CALLS = {"events": {"call": "track", "event": "Row Read"}, "contacts": {"call": "identify"}}


def deliver(dag, task, shards, regal_conn_id, rate=None):
    return SqlToRegalOperator.partial(
        task_id=task,
        sql=SQL,
        sql_conn_id="source",
        regal_conn_id=regal_conn_id,
        rate=rate,
        retries=3,
        retry_delay=timedelta(seconds=1),
        **CALLS[task],
    ).expand(parameters=[{"dag": dag, "task": task, "shard": shard} for shard in range(shards)])


with DAG("eight_shards", schedule=None):
    deliver("eight_shards", "events", 8, "regal_fast")

for name in ("killed_task", "killed_worker", "frozen_worker", "restarted_ledger"):
    with DAG(name, schedule=None):
        deliver(name, "events", 2, "regal_slow", RATE)
        deliver(name, "contacts", 2, "regal_slow", RATE)

with DAG("killed_scheduler", schedule=None):
    events = deliver("killed_scheduler", "events", 2, "regal_slow", RATE)
    events >> deliver("killed_scheduler", "contacts", 2, "regal_slow", RATE)

with DAG("cleared", schedule=None):
    deliver("cleared", "events", 1, "regal_fast")
    deliver("cleared", "contacts", 1, "regal_fast")

for name, task in (("one_of_two", "events"), ("other_of_two", "contacts")):
    with DAG(name, schedule=None):
        deliver(name, task, 2, "regal_slow")
