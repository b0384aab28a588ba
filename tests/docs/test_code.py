"""The Python of all documents runs unchanged, and Regal finds nothing wrong with what it sends."""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.operators._event import RegalEventOperator
from airflow_provider_regal.operators.bulk import RegalBulkOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.docs.blocks import BLOCKS, PROJECT

PYTHON = [block for block in BLOCKS if block.language == "python"]
#: Pages that show a test suite: what its files are shows in what is in them.
SUITES = sorted({block.page for block in PYTHON if "def test_" in block.code})
SUITE = ("pytest_plugins", "def test_")
SENDERS = (RegalEventOperator, RegalBulkOperator)
OPERATOR = re.compile(r"(?<!class )\b\w*Regal(?!SendPlan)\w*Operator\(")
TRACK = {"call": "track", "event": "Lesson Booked"}
NOW = datetime.now(UTC)


def of_a_suite(block) -> bool:
    return block.page in SUITES and any(word in block.code for word in SUITE)


def operators_made_by(code: str) -> list:
    """Run the code of a document, keeping what its bare expressions and assignments make."""
    namespace: dict = {"kept": []}
    tree = ast.parse(code)
    in_functions = {id(node) for def_ in ast.walk(tree) if isinstance(def_, ast.FunctionDef) for node in ast.walk(def_)}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Expr) and id(statement) not in in_functions:
            kept = ast.Attribute(ast.Name("kept", ast.Load()), "append", ast.Load())
            statement.value = ast.Call(kept, [statement.value], [])
    exec(compile(ast.fix_missing_locations(tree), "document", "exec"), namespace)
    made = [*namespace.pop("kept"), *namespace.values()]
    # The result of a decorated function has its operator.
    operators = [getattr(value, "operator", value) for value in made if not isinstance(value, type)]
    return [value for value in operators if isinstance(value, SENDERS)]


def context_of(operator, number: int) -> dict:
    """What Airflow tells a task in its first try."""
    ti = SimpleNamespace(
        dag_id="documents", run_id=f"run-{number}", task_id=operator.task_id, map_index=-1, try_number=1,
        max_tries=operator.retries, xcom_push=lambda key, value: None,
    )  # fmt: skip
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "ti": ti,
        "task": operator,
        "dag_run": SimpleNamespace(conf={}, start_date=NOW),
        "data_interval_start": midnight - timedelta(days=1),
        "data_interval_end": midnight,
        "ds": "",
    }


@pytest.fixture
def warehouse(tmp_path, monkeypatch, regal):
    """The tables that the pages use."""
    path = tmp_path / "warehouse.db"
    yesterday = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(hours=9)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("""
            CREATE TABLE customers (id INTEGER, phone TEXT, work_phone TEXT, first_name TEXT, plan TEXT,
                                    sms_ok INTEGER, sms_at TEXT, sms_ip TEXT);
            CREATE TABLE lessons (id INTEGER, student_id INTEGER, booked_at TEXT, subject TEXT, price TEXT);
            CREATE TABLE consents (user_id INTEGER, phone TEXT, channel TEXT, subscribed INTEGER, agreed_at TEXT,
                                   ip TEXT, wording TEXT);
            CREATE TABLE regal_webhooks (phone TEXT, channel TEXT, subscribed INTEGER, occurred_at TEXT);
        """)
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, 'Ines', 'gold', 1, '2026-01-02T03:04:05Z', '203.0.113.9')",
            [(number, f"(212) 555-{number:04d}", f"415-555-{number:04d}") for number in range(101, 106)],
        )
        connection.executemany(
            "INSERT INTO regal_webhooks VALUES (?, 'sms', 0, '2026-03-02T14:05:09Z')",
            [(f"+1212555{number:04d}",) for number in range(101, 106)],
        )
        connection.executemany(
            "INSERT INTO lessons VALUES (?, ?, ?, 'Piano', '12.50')",
            [(number, number, yesterday.isoformat()) for number in range(101, 106)],
        )
        connection.executemany(
            "INSERT INTO consents VALUES (?, ?, 'sms', ?, '2026-03-02T14:05:09Z', '203.0.113.9', 'I agree to texts.')",
            [(number, f"+1212555{number:04d}", number % 2) for number in range(101, 106)],
        )
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_SANDBOX", regal.connection())
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(ledger))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The files that the pages use, in a folder that stands for /data and for Airflow's home."""
    yesterday = (NOW - timedelta(days=1)).strftime("%Y-%m-%d")
    contacts = "".join(json.dumps({"user_id": f"u{n}", "phone": f"+121255501{n:02d}"}) + "\n" for n in range(3))
    consents = [f"+1212555{number:04d},sms,true,2026-03-02T14:05:09Z" for number in range(101, 106)]
    messages = "".join(
        json.dumps({"type": "track", "event": "Paid", "userId": user, "timestamp": NOW.isoformat()}) + "\n"
        for user in ("anne", "ines")
    )
    (contract,) = (block.code for block in BLOCKS if (block.page, block.language) == ("docs/contracts.md", "json"))
    (quickstart,) = (block.code for block in BLOCKS if (block.page, block.language) == ("docs/quickstart.md", "text"))
    (form,) = (block.code for block in BLOCKS if (block.page, block.language) == ("docs/opt-in-sync.md", "text"))
    files = {
        f"contacts/{yesterday}/a.jsonl.gz": gzip.compress(contacts.encode()),
        "lessons/a.csv": b"user_id;subject;price\nanne;Piano;12.5\nines;Violin;\n",
        "late-lessons/a.csv": b"user_id;subject;price\nanne;Cello;9\n",
        "segment-logs/source/1700000000000/a.gz": gzip.compress(messages.encode()),
        "consents/2026.csv": "\n".join(["phone,channel,subscribed,agreed_at", *consents]).encode(),
        "form/2026.csv": form.encode(),
        "crm/2026.csv": b"customer_id,mobile,mail,sms_opt_in,email_opt_in,updated_at,ip_address\n"
        b"C1,2125550161,c1@example.com,true,true,2026-03-02 14:05:09,203.0.113.9\n"
        b"C2,2125550162,c2@example.com,false,true,2026-03-02 14:05:09,203.0.113.9\n",
        "contract.json": contract.encode(),
        "contacts.csv": quickstart.encode(),
    }
    for name, content in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def lessons_api():
    """The API that the page about sources of one's own reads: one JSON object a line. Return its address."""

    class Lessons(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for user in ("anne", "ines"):
                self.wfile.write(json.dumps({"user_id": user, "subject": "Piano"}).encode() + b"\n")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Lessons) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def leave_a_dead_letter() -> None:
    """Let the task that the page about redelivery speaks of fail."""
    failed = RegalRowsOperator(task_id="events", rows=[{"user_id": "anne", "phone": "212-555-o1o1"}], **TRACK)
    context = context_of(failed, 0)
    context["ti"].dag_id = "contacts_and_events"
    with pytest.raises(AirflowFailException):
        failed.execute(context)


@pytest.mark.parametrize("block", [block for block in PYTHON if not of_a_suite(block)], ids=str)
def test_the_code_of_the_documents_runs(block, regal, warehouse, data, lessons_api):
    code = block.code.replace("/data/", f"{data}/").replace("https://lessons.example.com", lessons_api)
    if "ApprovalOperator" in code:
        pytest.importorskip("airflow.sdk.execution_time.hitl", reason="Airflow asks people from 3.1 on")
    if "DeadlineAlert" in code:
        pytest.importorskip("airflow.triggers.callback", reason="Airflow has deadline alerts from 3.1 on")
    if "from airflow.sdk" in code:
        pytest.importorskip("airflow.sdk", reason="a page says what stands there on Airflow 2")
    if "RegalRedeliverOperator(" in code:
        leave_a_dead_letter()
    operators = {id(made): made for made in operators_made_by(code)}.values()
    assert len(operators) >= len(OPERATOR.findall(code)), "an operator is made, and not run"
    for number, operator in enumerate(operators):
        context = context_of(operator, number)
        operator.render_template_fields(context)
        if not isinstance(operator, RegalBulkOperator):
            operator.execute(context)
            continue
        report = operator.execute(context)
        assert report["read"] > 1 or report["read"] == report["acknowledged"] == 1
        assert report["unknown"] == report["opt_ins_withheld"] == 0
        assert report["rejected"] == (1 if "max_rejected=1," in code else 0)

    stats = regal.stats()
    sends_nothing = any(option in code for option in ("dry_run=True", "known_to_regal=True", "plan=True"))
    assert (stats["stored"] > 0) is (bool(operators or "RegalHook(" in code) and not sends_nothing)
    assert stats["contract_findings"] == {}


def test_a_source_of_ones_own_is_the_same_on_both_pages():
    pages = ("CONTRIBUTING.md", "docs/rows-to-regal.md")
    shown = [block for block in PYTHON if block.page in pages and "(RegalBulkOperator):" in block.code]
    assert [block.page for block in shown] == [*pages]
    assert len({block.code for block in shown}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("page", SUITES)
def test_the_test_suite_of_a_page_passes(page, tmp_path):
    if page == "docs/first-day.md":
        pytest.importorskip("airflow.dag_processing.dagbag", reason="the page says that it is for Airflow 3.3")
    blocks = [block.code for block in PYTHON if block.page == page and of_a_suite(block)]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("\n".join(code for code in blocks if SUITE[0] in code))
    (tmp_path / "tests" / "test_it.py").write_text("\n".join(code for code in blocks if SUITE[1] in code))
    shutil.copytree(PROJECT / "dags", tmp_path / "dags")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    env |= {"PYTHONPATH": str(PROJECT), "AIRFLOW_HOME": str(tmp_path / "airflow")}
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    tests = sum(code.count("def test_") for code in blocks)
    assert f"{tests} passed" in run.stdout, run.stdout + run.stderr
