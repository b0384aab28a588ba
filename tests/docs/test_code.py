"""The code in the documents runs as it stands there, and Regal finds nothing wrong with what it sends."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_regal.operators._bulk import RegalBulkOperator
from airflow_provider_regal.operators._event import RegalEventOperator

PROJECT = Path(__file__).parents[2]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    "README.md",
    "docs/delivery-guarantees.md",
    "docs/event-operators.md",
    "docs/hook.md",
    "docs/opt-in-sync.md",
    "docs/rate-limits.md",
    "docs/sql-to-regal.md",
]
BLOCKS = [
    pytest.param(code, id=f"{page}-{number}")
    for page in PAGES
    for number, code in enumerate(CODE.findall((PROJECT / page).read_text()), 1)
]
NOW = datetime.now(UTC)


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
    # What a decorated function returns knows its operator.
    operators = [getattr(value, "operator", value) for value in made if not isinstance(value, type)]
    return [value for value in operators if isinstance(value, (RegalEventOperator, RegalBulkOperator))]


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
        "dag_run": SimpleNamespace(conf={}),
        "data_interval_start": midnight - timedelta(days=1),
        "data_interval_end": midnight,
    }


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
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
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(ledger))


@pytest.fixture
def data(tmp_path):
    """The files that the pages use."""
    consents = tmp_path / "data" / "consents"
    consents.mkdir(parents=True)
    rows = [f"+1212555{number:04d},sms,true,2026-03-02T14:05:09Z" for number in range(101, 106)]
    (consents / "2026.csv").write_text("\n".join(["phone,channel,subscribed,agreed_at", *rows]) + "\n")
    return tmp_path / "data"


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_of_the_documents_runs(code, regal, warehouse, data):
    sends = "dry_run=True" not in code and "known_to_regal=True" not in code
    code = code.replace("/data/", f"{data}/")
    for number, operator in enumerate({id(made): made for made in operators_made_by(code)}.values()):
        context = context_of(operator, number)
        if isinstance(operator, RegalBulkOperator):
            operator.render_template_fields(context)
        report = operator.execute(context)
        if isinstance(operator, RegalBulkOperator):
            assert report["read"] > 1 or report["read"] == report["acknowledged"] == 1
            assert report["rejected"] == report["unknown"] == report["opt_ins_withheld"] == 0

    stats = regal.stats()
    assert (stats["stored"] > 0) is sends
    assert stats["contract_findings"] == {}


def test_every_page_with_code_is_run():
    assert {block.id.rpartition("-")[0] for block in BLOCKS} == set(PAGES)
