"""One try of a storm's task, in its own process: what Airflow's task runner would execute, with its try number.

The process is forked from a server that has imported Airflow and the package, so that a try begins at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.chaos import names
from tests.chaos.sources import EVENT, Source
from tests.chaos.storm import Storm

IMPORTED = [
    "tests.chaos.sender",
    "tests.chaos.breaking",
    "tests.chaos.happening",
    "tests.chaos.judge",
    "tests.operators.ways",
    "airflow_provider_regal.client.many",
    "airflow_provider_regal.delivery.delivery",
    "airflow_provider_regal.operators.opt_in",
    "airflow_provider_regal.sources.parquet",
    "airflow.providers.sqlite.hooks.sqlite",
    "airflow.providers.postgres.hooks.postgres",
]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Task:
    """What a try needs to know.

    :param connection: to Regal, as JSON.
    :param ledger: its connection, as Airflow reads it.
    :param folder: of the storm: its logs, and the result of each try.
    :param broken: how the package is broken on purpose.
    """

    storm: Storm
    source: Source
    connection: str
    ledger: str
    folder: Path
    authority: Path | None
    broken: str | None = None

    @property
    def hosts(self) -> Path:
        """The file of the resolver."""
        return self.folder / "hosts"

    def log(self, number: int) -> Path:
        """The log file of a try."""
        return self.folder / f"try-{number}.log"

    def told(self, number: int) -> Path:
        """The file with the result of a try."""
        return self.folder / f"try-{number}.json"


def run(task: Task, number: int) -> None:
    """Deliver, as a try of the task."""
    _redirect(task.log(number))
    _prepare(task)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    logging.getLogger("airflow_provider_regal").setLevel(logging.DEBUG)
    logging.getLogger("sqlalchemy").setLevel(logging.WARNING)
    from airflow_provider_regal._compat import AirflowFailException
    from tests.operators.ways import context

    here = context(try_number=number, max_tries=100, run_id="storm")
    here["task"] = SimpleNamespace(retries=100)
    ended, error = "finished", ""
    try:
        deliver(task, here)
    except AirflowFailException as failed:
        ended, error = "failed", str(failed)
    except Exception as failed:
        logging.getLogger(__name__).exception("The task failed")  # as Airflow does
        ended, error = "retry", f"{type(failed).__name__}: {failed}"
    told = {"ended": ended, "error": error, "report": getattr(here["ti"], "report", None)}
    new = task.told(number).with_suffix(".new")
    new.write_text(json.dumps(told))
    new.rename(task.told(number))


def deliver(task: Task, here: dict[str, Any]) -> None:
    """Execute the operator of the source."""
    from airflow_provider_regal.hooks.regal import RegalHook
    from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
    from airflow_provider_regal.operators.rows import RegalRowsOperator
    from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
    from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator
    from tests.operators.ways import set_current_context

    storm, source = task.storm, task.source
    options: dict[str, Any] = {
        "guarantee": storm.guarantee, "max_connections": storm.connections, "outage_patience": storm.patience_s,
        "max_unknown": 1.0, "max_rejected": storm.invalid,
    }  # fmt: skip
    what: dict[str, Any] = {"call": storm.call, "event": EVENT if storm.call == "track" else None}
    path = str(source.path)
    match storm.source:
        case "hook":
            with set_current_context(here):
                RegalHook().deliver(source.rows, **what, **options)
            return
        case "python":
            operator: Any = RegalRowsOperator(task_id="t", rows=source.rows, **what, **options)
        case "sql":
            sql = "SELECT * FROM t ORDER BY rowid"
            operator = SqlToRegalOperator(task_id="t", sql=sql, sql_conn_id="warehouse", **what, **options)
        case "sync":
            operator = RegalOptInSyncOperator(
                task_id="t", path=path, format="jsonl", initial="send", **{**options, "max_rejected": 1.0}
            )
        case "segment":
            operator = FileToRegalOperator(task_id="t", path=path, format="segment", **options)
        case _:
            operator = FileToRegalOperator(task_id="t", path=path, format=storm.source, **what, **options)
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    operator.execute(here)


def _redirect(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)


def _prepare(task: Task) -> None:
    for name in PROXIES:
        os.environ.pop(name, None)
    os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = task.connection
    os.environ["AIRFLOW_CONN_STORM_LEDGER"] = task.ledger
    os.environ["AIRFLOW__REGAL__LEDGER_CONN_ID"] = "storm_ledger"
    if task.source.path is not None:
        warehouse = {"conn_type": "sqlite", "host": str(task.source.path)}
        os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(warehouse)
    if task.authority is not None:
        os.environ["REQUESTS_CA_BUNDLE"] = str(task.authority)
    if task.storm.host == names.HOST:
        names.consult(task.hosts)
    if task.broken is not None:
        from tests.chaos import breaking

        breaking.BREAKS[task.broken]()
