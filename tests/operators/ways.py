"""The five ways to deliver many rows, each of which must support every option."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from types import SimpleNamespace

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_regal.decorators.regal import regal_task
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

try:
    from airflow.sdk.execution_time.context import set_current_context
except ImportError:  # Airflow 2
    from airflow.models.taskinstance import set_current_context


class TaskInstance(SimpleNamespace):
    """The attributes of a task instance that are used; keeps the report it pushes."""

    def xcom_push(self, key, value):
        self.report = value

    def xcom_pull(self, **asked):
        """No earlier run has left anything."""


def context(*, try_number=1, max_tries=0, run_id="r"):
    ti = TaskInstance(
        dag_id="d", run_id=run_id, task_id="t", map_index=-1, try_number=try_number, max_tries=max_tries, report=None
    )
    return {"ti": ti, "task": SimpleNamespace(retries=0)}


def by_sql(rows, here, *, warehouse, **options):
    """Deliver a table of these rows."""
    columns = list(rows[0])
    names = ", ".join(f'"{column}"' for column in columns)
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute(f"CREATE TABLE t ({names})")
        places = ", ".join("?" for _ in columns)
        connection.executemany(f"INSERT INTO t VALUES ({places})", [tuple(row.values()) for row in rows])
    sql = f"SELECT {names} FROM t ORDER BY rowid"
    SqlToRegalOperator(task_id="t", sql=sql, sql_conn_id="warehouse", **options).execute(here)


def by_file(rows, here, *, warehouse, **options):
    """Deliver a file of these rows."""
    path = warehouse.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    FileToRegalOperator(task_id="t", path=path, **options).execute(here)


def by_rows(rows, here, *, warehouse, **options):
    """Deliver these rows directly."""
    RegalRowsOperator(task_id="t", rows=rows, **options).execute(here)


def by_decorator(rows, here, *, warehouse, **options):
    """Deliver what a decorated function yields."""

    def give():
        yield from rows

    with DAG("d", schedule=None):
        task = regal_task(give, **options)().operator
    task.execute(here)


def by_hook(rows, here, *, warehouse, **options):
    """Deliver from a user's own task."""
    with set_current_context(here):
        RegalHook().deliver(rows, **options)


WAYS = {
    "SqlToRegalOperator": by_sql,
    "FileToRegalOperator": by_file,
    "RegalRowsOperator": by_rows,
    "task.regal": by_decorator,
    "hook.deliver": by_hook,
}
