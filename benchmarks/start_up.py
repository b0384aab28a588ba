"""How soon a task's first event is on the wire, and the cost of that: for ten rows of SQLite, and for one event.

``python -m benchmarks.start_up [rounds]`` prints medians, and stores the raw results in ``benchmarks/results``. A round
runs a fresh process for each candidate, on its own core; the server has another. The process loads Airflow's task
runner, collects garbage and freezes the rest, so that no collection of Airflow's own heap (about 130 ms) affects the
measurement; imports and creates the operator, as a task's process does by parsing its DAG file; and calls ``execute``.
Measured are

- the CPU of importing and creating the operator;
- from ``execute`` until the first event, by the server's clock, which is the machine's; and the CPU until the first
  connection opens;
- until ``execute`` returns; and its total CPU.

``HttpOperator`` is that of Airflow's HTTP provider: it imports its HTTP client with the DAG file, posts one ready-made
body, and neither validates nor remembers anything. It and ours read their connections from the environment.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from benchmarks.dag_parse import COMPILED
from benchmarks.running import Server, run_on_a_core, server, spread, write_results
from benchmarks.sink import KEY

ROWS = 10
MEASURES = {
    "import and make, CPU s": "import_cpu_s",
    "first event, s": "first_s",
    "CPU until the connection, s": "cpu_before_s",
    "execute, s": "whole_s",
    "its CPU, s": "whole_cpu_s",
}


def sql_to_regal() -> Any:
    """Create the operator for ten rows."""
    from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

    sql = "SELECT id AS user_id, phone, first_name, plan FROM customers ORDER BY id"
    return SqlToRegalOperator(task_id="task", sql=sql, sql_conn_id="warehouse", call="identify")


def track() -> Any:
    """Create the operator for one event."""
    from airflow_provider_regal.operators.track import RegalTrackOperator

    return RegalTrackOperator(
        task_id="task", event="Lesson Booked", phone="+1 917 555 4444", properties={"subject": "Maths", "lessons": 3}
    )


def http() -> Any:
    """Create the operator of the HTTP provider that sends the same event."""
    from airflow.providers.http.operators.http import HttpOperator

    phones = {"+19175554444": {"isPrimary": False}}
    body = {"name": "Lesson Booked", "traits": {"phones": phones}, "properties": {"subject": "Maths", "lessons": 3}}
    headers = {"Authorization": KEY, "Content-Type": "application/json"}
    return HttpOperator(
        task_id="task", http_conn_id="plain", endpoint="events", method="POST", data=json.dumps(body), headers=headers
    )


CANDIDATES: dict[str, Callable[[], Any]] = {
    f"SqlToRegalOperator, {ROWS} rows": sql_to_regal,
    "RegalTrackOperator": track,
    "HttpOperator": http,
}


def context() -> dict[str, Any]:
    """Return the parts of Airflow's task context that are used."""
    ti = SimpleNamespace(
        dag_id="bench",
        run_id="run",
        task_id="task",
        map_index=-1,
        try_number=1,
        max_tries=0,
        xcom_push=lambda **_: None,
    )
    return {"ti": ti, "task": SimpleNamespace(retries=0)}


def measure(candidate: str, port: int) -> dict[str, float]:
    """Execute in this process; return the machine's clock at the start, and seconds since then."""
    from airflow import sdk

    import_module("airflow.sdk.execution_time.task_runner")
    _ = sdk.BaseOperator, sdk.BaseHook, sdk.DAG("warm"), sdk.task
    gc.collect()
    gc.freeze()
    imported, here = time.process_time(), context()
    operator = CANDIDATES[candidate]()
    connected: list[float] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][1] == port:
            connected.append(time.process_time())

    sys.addaudithook(watch)
    begun, cpu = time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):  # Airflow's log
        operator.execute(here)
    return {
        "begun": begun,
        "import_cpu_s": round(cpu - imported, 4),
        "cpu_before_s": round(connected[0] - cpu, 4),
        "whole_s": round(time.monotonic() - begun, 4),
        "whole_cpu_s": round(time.process_time() - cpu, 4),
    }


def run_once(name: str, sink: Server, environment: dict[str, str]) -> dict[str, float]:
    """Run a candidate in its own process, and check that the server received everything."""
    sink.reset()
    arguments = ["benchmarks.start_up", "--once", name, str(urlsplit(sink.url).port)]
    with tempfile.TemporaryDirectory() as folder:
        found = run_on_a_core(arguments, environment={**environment, "AIRFLOW_HOME": folder})
    arrivals, counts = sink.arrivals(), sink.stats()
    if counts["bad"] or counts["ok"] != (ROWS if "rows" in name else 1):
        raise RuntimeError(f"{name}: the server counted {counts}")
    return {"first_s": round(arrivals[0] - found.pop("begun"), 4), **found}


def main(rounds: int = 10) -> None:
    """Measure, print and store."""
    with server() as sink, tempfile.TemporaryDirectory() as folder:
        where = urlsplit(sink.url)
        database = Path(folder) / "warehouse.db"
        fill(database)
        regal = {"conn_type": "regal", "host": sink.url, "password": KEY, "extra": {"rate_limit": 300}}
        plain = {"conn_type": "http", "host": where.hostname, "port": where.port}
        environment = COMPILED | {
            "AIRFLOW_CONN_REGAL_DEFAULT": json.dumps(regal),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(database)}),
            "AIRFLOW_CONN_PLAIN": json.dumps(plain),
        }
        found = [{name: run_once(name, sink, environment) for name in CANDIDATES} for _ in range(rounds + 1)][1:]
    for name in CANDIDATES:
        print(name)
        for measured, key in MEASURES.items():
            print(f"  {measured:<30}{spread([one[name][key] for one in found], 3)}")
    print(write_results("start_up", found, rows=ROWS))  # without the first round, which compiles


def fill(database: Path) -> None:
    """Create a table of customers."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE customers (id TEXT, phone TEXT, first_name TEXT, plan TEXT)")
        rows = [(f"customer-{n}", f"+1212555{n:04d}", "Anne", "gold") for n in range(100, 100 + ROWS)]
        connection.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
