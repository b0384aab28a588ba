"""Whoever follows the quickstart to the letter sees what it says."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import requests

from scripts.quickstart import follow, run


def ask(sandbox, what):
    with urlopen(f"{sandbox}/sandbox/{what}", timeout=10) as answer:
        return json.load(answer)


def page_of_regal(folder, airflow):
    """What *Browse > Regal* shows a user who logs in as the page says; the DAG is unpaused."""
    (said,) = re.findall(
        r"Simple auth manager \| Password for user 'admin': (\S+)", (folder / "standalone.log").read_text()
    )
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        token = session.post(f"{airflow}/auth/token", json={"username": "admin", "password": said}, timeout=30).json()
        session.headers["Authorization"] = f"Bearer {token['access_token']}"
        assert session.get(f"{airflow}/api/v2/dags/contacts", timeout=30).json()["is_paused"] is False
        page = session.get(f"{airflow}/regal/", timeout=30)
        page.raise_for_status()
        return page.text


@pytest.mark.long
def test_the_quickstart_works_as_it_stands_there(tmp_path):
    pytest.importorskip("airflow.sdk", reason="the page installs Airflow 3.3")

    printed = {}
    for number, sandbox, said in follow(tmp_path):
        printed[number] = said
        contacts, stats = ask(sandbox, "contacts"), ask(sandbox, "stats")
        if number == 4:
            assert [contact["name"] for contact in contacts] == ["Anne Smith"]
            assert stats["by_status"] == {"200": 5}
        if number == 7:
            assert "contacts" in page_of_regal(tmp_path, said.split()[-1])
    assert list(printed) == [2, 3, 4, 5, 6, 7]
    assert printed[5].count("regal_first_events") == 5, "a delivery for each task"
    assert {phone for contact in contacts for phone in contact["phones"]} >= {"+12125550101", "+12125550102"}
    assert stats["contract_findings"] == {}

    *_, head, line = (" ".join(line.split()) for line in printed[6].splitlines() if line.strip())
    assert head.endswith("READ ACKNOWLEDGED REJECTED UNKNOWN SKIPPED LEFT")
    assert line.endswith(" 3 2 1 0 0 0")
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_REGAL_SANDBOX": json.dumps({"conn_type": "regal", "host": sandbox, "password": "sandbox-key"}),
    }
    assert "not a valid phone number" in run(f"airflow regal outcomes {line.split()[0]}", tmp_path, env)
