"""The cost of importing our operators, transfers and decorators in a DAG file, beyond ``airflow.sdk``.

``python -m benchmarks.dag_parse [rounds]`` prints medians, and stores the raw results in ``benchmarks/results``. A
round runs a fresh process for each candidate, on its own core. The process imports what every DAG file imports,
collects garbage and disables the collector - a collection of Airflow's own heap takes about 130 ms, and would be
charged to the next import - then imports the candidate. The result is CPU milliseconds, user and system. An earlier
process has compiled everything, as in an installation. ``ours, tasks made`` also creates a task of each operator, as a
DAG file does. For comparison, the operator of Airflow's HTTP provider loads its HTTP clients with the DAG file.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.running import PROJECT, run_on_a_core, spread, write_results

GOAL_MS = 30.0
ROOMS = ("operators", "transfers", "decorators")
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(PROJECT / ".cache" / "bytecode")}


def import_ours() -> None:
    """Import everything."""
    for room in ROOMS:
        for path in sorted((PROJECT / "airflow_provider_regal" / room).glob("[!_]*.py")):
            import_module(f"airflow_provider_regal.{room}.{path.stem}")


def make_tasks() -> None:
    """Import everything, and create a task of each operator."""
    from datetime import timedelta

    from airflow.sdk import DAG

    from airflow_provider_regal.decorators.regal import regal_task
    from airflow_provider_regal.operators.identify import RegalIdentifyOperator
    from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
    from airflow_provider_regal.operators.page import RegalPageOperator
    from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
    from airflow_provider_regal.operators.rows import RegalRowsOperator
    from airflow_provider_regal.operators.screen import RegalScreenOperator
    from airflow_provider_regal.operators.track import RegalTrackOperator
    from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
    from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

    with DAG("dag_parse"):
        RegalIdentifyOperator(task_id="identify", traits={"phone": "{{ params.phone }}", "plan": "gold"})
        RegalTrackOperator(task_id="track", event="Lesson Booked", user_id="anne-1", properties={"amount": 1})
        RegalPageOperator(task_id="page", user_id="anne-1", name="Pricing")
        RegalScreenOperator(task_id="screen", user_id="anne-1", name="Home")
        RegalRowsOperator(task_id="rows", call="identify", rows=[])
        RegalOptInSyncOperator(task_id="opt_ins", sql="SELECT 1", sql_conn_id="warehouse", mapping={"a": "sms_opt_in"})
        RegalRedeliverOperator(task_id="again", from_dag="contacts")
        FileToRegalOperator(task_id="file", path="/data/*.csv", format="csv", call="track", types={"amount": int})
        SqlToRegalOperator(
            task_id="sql",
            sql="SELECT 1",
            sql_conn_id="warehouse",
            call="identify",
            mapping={"plan": "traits.plan"},
            max_consent_age=timedelta(days=90),
        )
        regal_task(call="track", event="Lesson Booked")(import_ours)()


CANDIDATES: dict[str, Callable[[], Any]] = {
    "ours": import_ours,
    "ours, tasks made": make_tasks,
    "HttpOperator": lambda: import_module("airflow.providers.http.operators.http"),
}


def measure(candidate: str) -> dict[str, float]:
    """Measure in this process; return CPU milliseconds and the number of imported modules."""
    from airflow import sdk

    _ = sdk.BaseOperator, sdk.BaseHook, sdk.task
    sdk.DAG("warm")  # loads timetables
    gc.collect()
    gc.disable()
    before, begun = len(sys.modules), time.process_time()
    CANDIDATES[candidate]()
    return {"cpu_ms": round(1e3 * (time.process_time() - begun), 2), "modules": len(sys.modules) - before}


def main(rounds: int = 10) -> None:
    """Measure, print and store."""
    found = [
        {name: run_on_a_core(["benchmarks.dag_parse", "--once", name], environment=COMPILED) for name in CANDIDATES}
        for _ in range(rounds + 1)
    ][1:]  # the first round compiles
    for name in CANDIDATES:
        cpu = spread([one[name]["cpu_ms"] for one in found], 1)
        print(f"{name:<25}{cpu:>24} ms of CPU, {found[0][name]['modules']:.0f} modules")
    print(f"goal: ours within {GOAL_MS:.0f} ms")
    print(write_results("dag_parse", found, goal_ms=GOAL_MS))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
