"""Other code in documents: commands can be parsed, SQL runs on a ledger, JSON and YAML are valid."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml
from sqlalchemy import create_engine, text

from airflow_provider_regal.cli import build_parser
from airflow_provider_regal.ledger.database import Database
from tests.docs.blocks import BLOCKS, PAGES, PROJECT

OURS = re.compile(r"(?:airflow regal|python -m airflow_provider_regal) (.*)")
CLONES = ("README.md", "CONTRIBUTING.md")  #: pages for whoever has a clone
MAKE_TARGETS = set(re.findall(r"^([a-z0-9-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
#: Programs that are not ours: they are run where a page is followed to the letter, or are the reader's.
OTHERS = {".", "cp", "curl", "export", "git", "ls", "mkdir", "pip", "python3.11", "scripts/check_release.sh"}


def commands(language: str = "sh"):
    for block in BLOCKS:
        if block.language == language:
            for line in block.code.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield pytest.param(words, id=f"{block.page}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", [*commands()])
def test_a_command_can_be_given_like_this(words):
    line = " ".join(map(shlex.quote, words))
    if (ours := OURS.fullmatch(line)) is not None:
        if ours[1] != "COMMAND":
            build_parser().parse_args([word.replace("<delivery>", "17") for word in shlex.split(ours[1])])
    elif words[0] == "airflow":
        pytest.importorskip("airflow.sdk", reason="the pages show the commands of Airflow 3")
        from airflow.cli.cli_parser import get_parser

        get_parser().parse_args(words[1:])
    elif words[0] == "make":
        assert words[1] in MAKE_TARGETS
    elif not re.match(r"[A-Z]+=", words[0]):
        assert words[0] in OTHERS, "a program that no test knows"


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "sql"}))
def test_the_sql_of_a_page_runs_on_a_ledger(page, tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.db")
    Database(engine)
    with engine.begin() as connection:
        for block in BLOCKS:
            if block.page == page and block.language == "sql":
                connection.execute(text(block.code))
    engine.dispose()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("json", "yaml")], ids=str)
def test_json_and_yaml_can_be_read(block):
    if block.language == "yaml":
        assert list(yaml.safe_load_all(block.code))
        return
    try:
        assert json.loads(block.code)
    except json.JSONDecodeError:  # JSON Lines
        assert all(json.loads(line) for line in block.code.splitlines())


def test_the_pages_have_no_code_of_a_kind_that_nothing_runs():
    run_or_shown = {"python", "sh", "sql", "json", "yaml", "ini", "md", "text", "toml", ""}
    of_sphinx = {"{toctree}", "{include}", "{eval-rst}"}  # which readers of the Markdown don't need
    assert {block.language for block in BLOCKS} <= run_or_shown | of_sphinx


def test_all_pages_install_it_the_same_way():
    airflow_first = {block.page: block.code for block in BLOCKS if 'pip install "apache-airflow==' in block.code}
    assert set(airflow_first) == {"docs/quickstart.md", "docs/first-day.md", "docs/compatibility.md"}
    recipes = {code[code.index("pip install") :] for code in airflow_first.values()}
    assert len(recipes) == 1
    assert recipes.pop().splitlines()[-1] == "pip install airflow-provider-regal"
    for page in (*airflow_first, "README.md"):
        assert "clone" in (PROJECT / page).read_text(), "how to install what is not published"


def test_all_pages_say_the_same_about_how_long_it_takes():
    pages = {page: (PROJECT / page).read_text() for page in PAGES}
    of_tests = [re.search(r"^make test +#.*about (\w+) minutes", pages[page], re.MULTILINE) for page in CLONES]
    assert {found and found[1] for found in of_tests} == {"three"}
    assert pages["docs/quickstart.md"].splitlines()[2].startswith("Ten minutes, most of it pip")
    assert re.findall(r"\w+(?= minutes)", pages["docs/index.md"]) == ["ten", "ten"]


def test_the_documents_are_found():
    assert {"README.md", "docs/index.md", "docs/alerts.md", "docs/sandbox.md"} <= set(PAGES)
