"""The page's numbers about alternatives match the measurements on the page about performance."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import PROJECT

PAGE = (PROJECT / "docs" / "why-not.md").read_text()
MEASURED = (PROJECT / "docs" / "performance.md").read_text()
OURS, LOOP, HOOK = "**this package**, contacts (identify)", "`requests.post` a row", "Airflow's `HttpHook.run` a row"
OF = {"drt-core": "drt-core", "dlt": "dlt, `@dlt.destination`", "this package": OURS}
OF |= {"loop with `requests.post`": LOOP, "`HttpHook.run` a row": HOOK}


def measured(setting: str, candidate: str) -> tuple[str, str]:
    """CPU for 10,000 rows and rows a second."""
    table = MEASURED.partition("<!-- table: whole_path -->")[2].partition("<!-- end -->")[0]
    lines = table.partition(f"| {setting} |")[2].partition("\n\n")[0].splitlines()
    cells = next(line for line in lines if line.startswith(f"| {candidate} |")).split(" | ")
    return cells[1].split()[0], cells[3].split()[0]


def rows():
    """Every measured cell: what it is of, and what it says."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        for what, *cells in lines:
            if what.startswith(("rows a second", "CPU for")):
                for candidate, cell in zip(head[1:], cells, strict=True):
                    yield pytest.param(what, candidate, cell, id=f"{candidate}: {what}")


@pytest.mark.parametrize(("what", "candidate", "cell"), [*rows()])
def test_the_numbers_are_those_of_performance(what, candidate, cell):
    setting = f"{'TLS' if 'TLS' in what else 'plain http'}, {'50 ms' if '50 ms' in what else '0 ms'}"
    cpu, speed = measured(setting, OF[candidate])
    if what.startswith("rows"):
        assert cell.partition(":")[0].replace(",", "") == speed
        return
    assert cell == f"{cpu} s"


def test_the_numbers_in_the_text():
    assert "| 300 | 20 ms | 294 | 97.1" in MEASURED
    assert "97 % of it used, never exceeded" in PAGE
    assert "| SqlToRegalOperator, 10 rows | 0.250" in MEASURED
    assert "| HttpOperator | 0.019" in MEASURED
    assert "0.25 s before the first request, where `HttpOperator`\ntakes 0.02 s" in PAGE
