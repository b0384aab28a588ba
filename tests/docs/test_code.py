"""The code in the documents runs as it stands there, and Regal finds nothing wrong with what it sends."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from airflow_provider_regal.operators._event import RegalEventOperator

PROJECT = Path(__file__).parents[2]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ["README.md", "docs/event-operators.md", "docs/hook.md"]
BLOCKS = [
    pytest.param(code, id=f"{page}-{number}")
    for page in PAGES
    for number, code in enumerate(CODE.findall((PROJECT / page).read_text()), 1)
]


def operators_made_by(code: str) -> list:
    """Run the code of a document, keeping what its bare expressions and assignments make."""
    namespace: dict = {"kept": []}
    tree = ast.parse(code)
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Expr):
            kept = ast.Attribute(ast.Name("kept", ast.Load()), "append", ast.Load())
            statement.value = ast.Call(kept, [statement.value], [])
    exec(compile(ast.fix_missing_locations(tree), "document", "exec"), namespace)
    made = [*namespace.pop("kept"), *namespace.values()]
    return [value for value in made if isinstance(value, RegalEventOperator)]


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_of_the_documents_runs(code, regal):
    for operator in {id(made): made for made in operators_made_by(code)}.values():
        operator.execute({})

    stats = regal.stats()
    assert stats["stored"] > 0
    assert stats["contract_findings"] == {}


def test_every_page_with_code_is_run():
    assert {block.id.rpartition("-")[0] for block in BLOCKS} == set(PAGES)
