"""Links from a task in Airflow's UI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_regal._compat import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow_provider_regal._compat import BaseOperator


class RegalDeadLettersLink(BaseOperatorLink):
    """Where a task's dead letters lie; there is none where every row was delivered."""

    name = "Dead letters"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Find the file in the report the task pushed."""
        report: Any = XCom.get_value(ti_key=ti_key, key="regal_report")
        if not report or not report["run_folder"] or not report["rejected"] + report["unknown"]:
            return ""
        folder = report["run_folder"]
        return f"{folder}/dead_letters.jsonl" if "://" in folder else (Path(folder) / "dead_letters.jsonl").as_uri()
