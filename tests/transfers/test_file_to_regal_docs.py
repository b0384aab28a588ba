"""The page about files names every option; the example DAG delivers an archive."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_regal.operators.bulk import RegalBulkOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from tests.dags.test_examples import example, report_of
from tests.docs.blocks import PROJECT

NOW = datetime.now(UTC)
MESSAGES = "".join(
    json.dumps({"type": "track", "event": "Paid", "userId": user, "timestamp": NOW.isoformat()}) + "\n"
    for user in ("anne", "ines")
)


def test_every_option_of_its_own_stands_in_the_page():
    text = (PROJECT / "docs" / "file-to-regal.md").read_text()
    for name in inspect.signature(FileToRegalOperator.__init__).parameters.keys() - {"self", "kwargs"}:
        assert re.search(rf"\| `{name}`", text), name
    assert issubclass(FileToRegalOperator, RegalBulkOperator)


def test_the_example_delivers_the_archive_beside_the_dags(run_dag, regal, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX", regal.connection())
    dag = example("04_segment_archive")
    run = run_dag(dag)
    assert str(run.state) == "success"
    assert report_of(run, "archive")["read"] == 0

    folder = Path(dag.get_task("archive").path.partition("*")[0]) / "source" / "1700000000000"
    folder.mkdir(parents=True)
    page = json.dumps({"type": "page", "userId": "anne", "timestamp": NOW.isoformat()})
    (folder / "a.gz").write_bytes(gzip.compress(MESSAGES.encode() + page.encode()))
    run = run_dag(example("04_segment_archive"))
    report = report_of(run, "archive")
    assert (report["acknowledged"], report["skipped"]) == (2, 1)
    assert sorted(event["body"]["userId"] for event in regal.events()) == ["anne", "ines"]
