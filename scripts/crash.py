"""Crash on purpose: kill the process of a running task once Regal has some of its events."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from scripts.local import HOME, Regal

DATABASE = HOME / "airflow" / "airflow.db"


class Crash:
    """Kills the first try of a task with SIGKILL, which no program can catch.

    :param after: how many of its events Regal must have.
    """

    def __init__(self, here: Regal, dag_id: str, task_id: str, *, after: int) -> None:
        self._here = here
        # Rows of older runs may contain a process number that belongs to another process by now.
        self._task = (dag_id, task_id, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
        self._after = after
        self._before: int | None = None
        self.arrived: int | None = None

    def look(self) -> bool:
        """Check whether it is time, and kill once.

        :returns: whether the run has ended.
        """
        if self.arrived is None:
            self._kill_in_time()
        dag_id, _, since = self._task
        ended = "SELECT 1 FROM dag_run WHERE dag_id = ? AND end_date >= ? AND state IN ('success', 'failed')"
        return bool(query(ended, dag_id, since))

    def _kill_in_time(self) -> None:
        if (process := self._process()) is None:
            return
        stored = int(self._here.ask("stats")["stored"])
        if self._before is None:
            self._before = stored
        elif stored - self._before >= self._after:
            os.kill(process, signal.SIGKILL)
            self.arrived = stored - self._before

    def _process(self) -> int | None:
        rows = query(
            "SELECT pid FROM task_instance WHERE dag_id = ? AND task_id = ? AND start_date >= ?"
            " AND state = 'running' AND try_number = 1 AND pid IS NOT NULL",
            *self._task,
        )
        return int(rows[0][0]) if rows else None


def query(sql: str, *parameters: str, database: Path = DATABASE) -> list[tuple[object, ...]]:
    """Query an SQLite database in read-only mode."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql, parameters).fetchall()
