"""``make incident``, fixed by a person on call who has only a browser.

Two of the five run with the services; the other three, which need minutes, with the long tests.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_regal._compat import HAS_PAGES
from scripts import local
from scripts.incidents.data import INCIDENTS, rows_of
from scripts.incidents.on_call import OnCall
from scripts.incidents.stage import NEW_KEY, Stage
from tests.services.test_ui import CHROMIUM, processes_of

PROJECT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.skipif(not HAS_PAGES, reason="Airflow 3.1 and later have pages")]


class Incidents:
    """``make incident``, as a process of its own."""

    def __init__(self, home: Path, names: list[str]) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "scripts.incident", *names],
            cwd=PROJECT,
            env={**os.environ, "DEMO_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.now = None
        self.stage = None

    def happen(self, name: str) -> str:
        """Wait until an incident has happened; return what was printed."""
        if self.now is not None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        printed = ""
        for line in self.process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        assert f"/dags/{INCIDENTS[name].dag_id}\n" in printed, printed
        self.now = name
        airflow = re.search(r"Look here\s+(http://\S+?)/dags/", printed).group(1)
        regal = re.search(r"local Regal\s+(http://\S+?)/ ", printed).group(1)
        self.stage = Stage(local.Regal(regal, 300), airflow)
        return printed

    def deliveries(self, dag_id: str) -> list[dict]:
        with closing(sqlite3.connect(self.home / "airflow" / "regal" / "ledger.db", timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM regal_deliveries WHERE dag_id = ? ORDER BY id DESC"
            return [dict(row) for row in connection.execute(query, (dag_id,))]

    def at_regal(self, name: str) -> Counter[str]:
        """How often Regal has stored today's row of each person."""
        today = f"{datetime.now(UTC).date()}"
        bodies = [event["body"] for event in self.stage.here.ask("events?stored=true")]
        area = f"+1{INCIDENTS[name].area}"
        return Counter(body["userId"] for body in bodies if today in str(body) and area in str(body))

    def all_once(self, name: str) -> Counter[str]:
        return Counter(row["user_id"] for row in rows_of(INCIDENTS[name], 0))


@pytest.fixture
def run_incidents(tmp_path):
    """Start with the incidents named, which then happen one after the other."""
    running = []

    def start(*names: str) -> Incidents:
        running.append(Incidents(tmp_path, [*names]))
        return running[0]

    yield start
    running[0].process.send_signal(signal.SIGINT)
    running[0].process.wait(40)
    assert processes_of(tmp_path) == [], "Ctrl-C leaves no process behind"


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def look(incidents: Incidents, page, name: str) -> OnCall:
    """Go from the red square to the cause; what the page counts is what Regal counts."""
    on_call = OnCall(incidents.stage, page)
    on_call.find_the_cause(INCIDENTS[name])
    assert on_call.clicks == 2
    assert on_call.words <= 40, "ten seconds of reading, at four words a second"
    assert "the last 6 runs" in on_call.seen["normal"]
    counts = counts_of(on_call)
    assert counts["read"] == len(incidents.all_once(name))
    if INCIDENTS[name].call == "identify" or name == "revoked-key":  # after a kill, Regal may have more
        assert counts["acknowledged"] == incidents.at_regal(name).total()
    return on_call


def counts_of(on_call: OnCall) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", on_call.seen["counts"])}


def mend_a_revoked_key(incidents: Incidents, page) -> None:
    assert NEW_KEY in incidents.happen("revoked-key")
    on_call = look(incidents, page, "revoked-key")
    assert "Regal refused the API key (HTTP 401)" in on_call.seen["happened"]
    assert f"{counts_of(on_call)['left']} left" in on_call.seen["steps"].replace("rows ", "")
    on_call.mend(INCIDENTS["revoked-key"])
    assert on_call.clicks == 2 + 6
    (ended, *_) = incidents.deliveries("loan_approvals")
    assert (ended["state"], ended["acknowledged"], ended["unknown"]) == ("finished", ended["read_rows"], 0)
    assert incidents.at_regal("revoked-key") == incidents.all_once("revoked-key")


def mend_a_column_that_turned_to_text(incidents: Incidents, page) -> None:
    incidents.happen("text-column")
    on_call = look(incidents, page, "text-column")
    frame = page.frame_locator("iframe")
    assert "traits.credit_score: type_drift: is text, but was sent as a number" in frame.locator("main").inner_text()
    on_call.mend(INCIDENTS["text-column"])
    assert incidents.at_regal("text-column") == incidents.all_once("text-column")
    (ended, *_) = incidents.deliveries("crm_contacts")
    assert (ended["state"], ended["acknowledged"]) == ("finished", ended["read_rows"])


def mend_an_outage(incidents: Incidents, page) -> None:
    incidents.happen("outage")
    on_call = look(incidents, page, "outage")
    assert "HTTP 503" in on_call.seen["happened"]
    on_call.mend(INCIDENTS["outage"])
    assert on_call.clicks == 2 + 4
    assert incidents.at_regal("outage") == incidents.all_once("outage")
    (ended, *_) = incidents.deliveries("account_status")
    assert (ended["state"], ended["rejected"], ended["unknown"]) == ("finished", 0, 0)


def mend_bad_phones(incidents: Incidents, page) -> None:
    incidents.happen("bad-phones")
    on_call = look(incidents, page, "bad-phones")
    counts = counts_of(on_call)
    assert counts["rejected"] == -(-counts["read"] // 14)
    assert f"{counts['rejected']} rejected, more than max_rejected=0.02" in on_call.seen["happened"]
    on_call.mend(INCIDENTS["bad-phones"])
    assert on_call.clicks == 2 + 6
    (ended, *_) = incidents.deliveries("partner_leads")
    assert (ended["acknowledged"], ended["skipped"]) == (counts["rejected"], counts["acknowledged"])
    assert incidents.at_regal("bad-phones") == incidents.all_once("bad-phones")


def mend_a_killed_worker(incidents: Incidents, page) -> None:
    incidents.happen("killed-worker")
    time.sleep(4)  # for three seconds after its last commit, the page considers a task alive
    on_call = look(incidents, page, "killed-worker")
    assert "TASK DEAD" in on_call.seen["state"]
    assert "The task's process is gone" in on_call.seen["happened"]
    before = incidents.at_regal("killed-worker")
    left = {*incidents.all_once("killed-worker")} - {*before}
    on_call.mend(INCIDENTS["killed-worker"])
    unknown = counts_of(on_call)["unknown"]
    assert f"OK, CHECK {unknown}" in on_call.seen["state"]
    assert 0 < len(on_call.lacking) <= unknown < len(left)
    found = unknown - len(on_call.lacking)
    assert on_call.clicks == 2 + 7 + (found + 2 if found else 0) + 1
    assert {*on_call.lacking} < left, "it is seen on Regal's pages which of the unknown rows have arrived"
    assert incidents.at_regal("killed-worker") == incidents.all_once("killed-worker")
    (redelivery, *_) = incidents.deliveries("regal_redeliver")
    assert (redelivery["read_rows"], redelivery["acknowledged"]) == (len(on_call.lacking), len(on_call.lacking))


def test_a_revoked_key_and_a_killed_worker_are_mended_in_the_browser(run_incidents, page):
    incidents = run_incidents("revoked-key", "killed-worker")
    mend_a_revoked_key(incidents, page)
    mend_a_killed_worker(incidents, page)


@pytest.mark.long
def test_bad_data_and_an_outage_are_mended_in_the_browser(run_incidents, page):
    incidents = run_incidents("text-column", "outage", "bad-phones")
    mend_a_column_that_turned_to_text(incidents, page)
    mend_an_outage(incidents, page)
    mend_bad_phones(incidents, page)
