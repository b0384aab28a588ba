"""The page about the command line: its output of ``try`` and ``send`` is what they print."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from airflow_provider_regal.cli import main
from tests.docs.blocks import PROJECT

PAGE = (PROJECT / "docs" / "command-line.md").read_text()


def blocks(section, language):
    """The code blocks of a section of the page."""
    text = re.search(rf"^## {section}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)[1]
    return [
        code for kind, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if kind == language
    ]


@pytest.fixture
def shell(tmp_path, monkeypatch, regal):
    """A folder to run the commands in; Regal is the local one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_try_prints_what_the_page_shows(shell, capsys, regal):
    (row,) = blocks("try", "json")
    (shell / "leads.jsonl").write_text(row)
    command = next(line for line in blocks("try", "sh")[0].splitlines() if "--file" in line)
    assert main(command.removeprefix("airflow regal ").split()) == 0
    (shown,) = blocks("try", "")
    assert capsys.readouterr().out.replace(regal.url, "https://events.regalvoice.com") == shown
    assert regal.stats()["requests"] == 0


def test_send_takes_the_lines_and_the_commands_of_the_page(shell, capsys, regal):
    (lines,) = blocks("send", "json")
    assert all(json.loads(line) for line in lines.splitlines())
    (shell / "events.jsonl").write_text(lines)
    for command in blocks("send", "sh")[0].splitlines():
        assert main([*shlex.split(command.removeprefix("airflow regal ")), "--yes"]) == 0
    assert sorted(event["name"] or "identify" for event in regal.events()) == [
        "Lesson Booked",
        "Lesson Booked",
        "identify",
        "identify",
    ]
    assert regal.stats()["contract_findings"] == {}
