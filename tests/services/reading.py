"""Read a query of many rows into a run folder, like a task, and print how much memory that took.

``python reading.py 300000 /tmp/runs``; nothing is sent, since the task requires one row more than there is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

SQL = "SELECT 'user-' || n AS user_id, n AS number, repeat('x', 100) AS note FROM generate_series(1, %(rows)s) n"


def kilobytes(name: str) -> int:
    """Read a figure of this process, such as VmHWM, its peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def main(rows: int, home: str) -> None:
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = json.dumps({"conn_type": "regal", "password": "unused-key"})
    task = SqlToRegalOperator(
        task_id="t", sql=SQL, parameters={"rows": rows}, sql_conn_id="warehouse", call="track", event="X",
        min_rows=rows + 1,
    )  # fmt: skip
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=0)
    ti.xcom_push = lambda key, value: setattr(ti, "report", value)
    before_kb = kilobytes("VmRSS")
    try:
        task.execute({"ti": ti, "task": task})
    except AirflowFailException as error:
        assert f"The source has {rows:,} rows" in str(error)
    sys.stdout.write(json.dumps({"rows": ti.report["read"], "before_kb": before_kb, "peak_kb": kilobytes("VmHWM")}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
