"""The page about examples names each file that can be copied, and the quickstart shows the first one unchanged."""

from __future__ import annotations

import re

from tests.docs.blocks import PROJECT, blocks_of

DAGS = {path.name for path in (PROJECT / "dags").glob("*.py")}


def test_the_page_links_each_example_by_the_name_of_its_file():
    page = (PROJECT / "docs/examples.md").read_text()
    named = re.findall(r"\| \[`(\w+\.py)`\]\(\.\./dags/(\w+\.py)\) \|", page)
    assert all(name == target for name, target in named)
    assert sorted(name for name, _ in named) == sorted(DAGS)


def test_the_quickstart_shows_the_first_example_as_it_comes_with_the_package():
    shown = [block.code for block in blocks_of("docs/quickstart.md") if "regal_first_events" in block.code]
    assert (PROJECT / "dags/01_first_events.py").read_text() in shown
