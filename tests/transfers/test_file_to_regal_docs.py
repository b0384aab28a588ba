"""The code of the pages about files runs as it stands there; the example DAG delivers an archive."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_regal.operators._bulk import RegalBulkOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from tests.dags.test_examples import example, report_of
from tests.docs.test_code import CODE, PROJECT, context_of, operators_made_by

PAGES = ("file-to-regal.md", "from-segment-to-regal.md")
BLOCKS = [
    pytest.param(code, id=f"{page}-{number}")
    for page in PAGES
    for number, code in enumerate(CODE.findall((PROJECT / "docs" / page).read_text()), 1)
]
NOW = datetime.now(UTC)
MESSAGES = "".join(
    json.dumps({"type": "track", "event": "Paid", "userId": user, "timestamp": NOW.isoformat()}) + "\n"
    for user in ("anne", "ines")
)


@pytest.fixture
def data(tmp_path):
    """The files the pages speak of."""
    yesterday = (NOW - timedelta(days=1)).strftime("%Y-%m-%d")
    contacts = "".join(json.dumps({"user_id": f"u{n}", "phone": f"+121255501{n:02d}"}) + "\n" for n in range(3))
    files = {
        f"contacts/{yesterday}/a.jsonl.gz": gzip.compress(contacts.encode()),
        "lessons/a.csv": b"user_id;subject;price\nanne;Piano;12.5\nines;Violin;\n",
        "late-lessons/a.csv": b"user_id;subject;price\nanne;Cello;9\n",
        "segment-logs/source/1700000000000/a.gz": gzip.compress(MESSAGES.encode()),
    }
    for name, content in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return tmp_path / "data"


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_of_the_pages_runs(code, regal, data):
    (operator,) = {id(made): made for made in operators_made_by(code.replace("/data/", f"{data}/"))}.values()
    context = context_of(operator, 1)
    context["data_interval_start"] = NOW - timedelta(days=1)
    operator.render_template_fields({"ds": "", **context})
    report = operator.execute(context)
    assert report["acknowledged"] == report["read"] > 1
    assert regal.stats()["contract_findings"] == {}


def test_every_option_of_its_own_stands_in_the_page():
    text = (PROJECT / "docs" / "file-to-regal.md").read_text()
    for name in inspect.signature(FileToRegalOperator.__init__).parameters.keys() - {"self", "kwargs"}:
        assert re.search(rf"\| `{name}`", text), name
    assert issubclass(FileToRegalOperator, RegalBulkOperator)


def test_the_example_delivers_the_archive_beside_the_dags(run_dag, regal, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
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
