"""The pages in a real Airflow, in a browser: what they say, who sees it, and what they start."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from airflow_provider_regal._compat import HAS_PAGES
from airflow_provider_regal.testing import Sandbox
from scripts.processes import free_port, running
from tests.services.test_ui import CHROMIUM

PROJECT = Path(__file__).parents[2]
pytestmark = [pytest.mark.services, pytest.mark.skipif(not HAS_PAGES, reason="Airflow 3.1 and later have pages")]
PASSWORDS = {name: f"password of {name}" for name in ("ada", "vera", "only-web")}
ROWS = 60
DAG = """
from airflow import DAG
from airflow_provider_regal.operators.rows import RegalRowsOperator

ROWS = [{{"user_id": f"customer-{{n}}", "phone": f"(212) 555-{{n:04}}"}} for n in range(100, {last})]
ROWS += [{{"user_id": "no-phone", "phone": "12"}}]
for dag_id, rejected in (("crm", 0), ("web", 1.0)):
    with DAG(dag_id, schedule=None):
        RegalRowsOperator(
            task_id="lessons", rows=ROWS, call="track", event="Lesson Booked", max_rejected=rejected, max_unknown=1.0,
            max_refused=None,
        )
"""


class Airflow:
    """A real Airflow whose tasks have run, and its API server."""

    def __init__(self, home: Path, regal: Sandbox) -> None:
        self.home = home
        self.port = free_port(28_100)
        self.url = f"http://127.0.0.1:{self.port}"
        self.ledger = home / "ledger.db"
        (home / "dags").mkdir()
        (home / "dags" / "crm.py").write_text(DAG.format(last=100 + ROWS))
        shutil.copy(PROJECT / "dags" / "07_redeliver.py", home / "dags")
        (home / "passwords").write_text(json.dumps(PASSWORDS))
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.plugin.auth.DagAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ada:ADMIN,vera:VIEWER,only-web:VIEWER",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of the tests that is long enough for HMAC with SHA-512: 64",
            "AIRFLOW__REGAL__LEDGER_CONN_ID": "regal_ledger",
            "AIRFLOW_CONN_REGAL_DEFAULT": regal.connection(),
            "PYTHONPATH": str(PROJECT),
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def airflow(self, *words: str, check: bool = True) -> str:
        command = [sys.executable, "-m", "airflow", *words]
        ran = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=300, check=False)
        assert not check or ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        return ran.stdout

    def deliveries(self) -> dict[str, int]:
        with sqlite3.connect(self.ledger) as connection:
            return dict(connection.execute("SELECT dag_id, id FROM regal_deliveries"))

    def run_of(self, dag: str) -> str:
        with sqlite3.connect(self.ledger) as connection:
            (run_id,) = connection.execute(f"SELECT run_id FROM regal_deliveries WHERE dag_id = '{dag}'").fetchone()
        return run_id

    def ask(self, path: str, name: str = "ada"):
        told = json.dumps({"username": name, "password": PASSWORDS[name]}).encode()
        request = Request(f"{self.url}/auth/token", data=told, headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            token = json.load(answer)["access_token"]
        request = Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def regal():
    with Sandbox(faults=[{"on": {"every": 10}, "do": {"status": 400}}]) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def airflow(regal, tmp_path_factory):
    here = Airflow(tmp_path_factory.mktemp("airflow"), regal)
    here.airflow("db", "migrate")
    # As in production, the API server reads it from Airflow's database.
    stored = json.dumps({"conn_type": "sqlite", "host": str(here.ledger)})
    here.airflow("connections", "add", "regal_ledger", "--conn-json", stored)
    here.airflow("dags", "reserialize")
    for dag in ("crm", "web"):
        here.airflow("dags", "test", dag, check=False)
    log = here.home / "api-server.log"
    with running([sys.executable, "-m", "airflow", "api-server", "--workers", "1"], here.env, log):
        ends = time.monotonic() + 180
        while time.monotonic() < ends:
            try:
                with urlopen(f"{here.url}/api/v2/version", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield here


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def signed_in(airflow, chromium):
    """A page of a user who has signed in as people do; what the browser complains about is in ``page.complaints``."""
    states = {}

    def sign_in(name: str, **options):
        if name not in states:
            page = chromium.new_context().new_page()
            page.goto(f"{airflow.url}/regal/")
            page.get_by_role("link", name="Sign in").click()
            page.locator("input[name=username]").fill(name)
            page.locator("input[name=password]").fill(PASSWORDS[name])
            page.locator("button[type=submit]").click()
            page.get_by_role("heading", name="Deliveries", exact=True).wait_for(timeout=60_000)
            states[name] = page.context.storage_state()
            page.context.close()
        page = chromium.new_context(storage_state=states[name], **options).new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        return page

    return sign_in


def counts_of(text: str) -> dict[str, int]:
    found = re.findall(r"\b(read|acknowledged|rejected|unknown|skipped|left)\s+([\d,]+)", text)
    return {name: int(number.replace(",", "")) for name, number in found}


def test_what_the_page_says_is_what_arrived(airflow, signed_in, regal):
    page = signed_in("ada")
    page.goto(f"{airflow.url}/regal/deliveries/{airflow.deliveries()['crm']}")
    assert page.get_by_role("heading", name="crm.lessons").is_visible()
    told = counts_of(page.locator("dl.counts").inner_text().replace("\n", " "))
    answers = [event["answer"] for event in regal.events()][:ROWS]
    assert told["read"] == ROWS + 1
    assert told["acknowledged"] == answers.count(200)
    assert told["rejected"] == answers.count(400) + 1  # the invalid phone was not sent
    assert told["acknowledged"] + told["rejected"] == told["read"]
    text = page.inner_text("main")
    assert f"Of {ROWS + 1} rows, {told['rejected']} rejected, more than max_rejected=0." in text
    page.goto(f"{airflow.url}/regal/")
    stats = regal.stats()
    assert f"{stats['stored']} rows acknowledged" in page.inner_text("main")
    assert page.complaints == [], "nothing was blocked, nothing is missing"


def test_the_page_is_in_the_ui_and_the_task_leads_to_it(airflow, signed_in):
    number, page = airflow.deliveries()["crm"], signed_in("ada")
    page.goto(f"{airflow.url}/plugin/regal")
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="Deliveries", exact=True).wait_for(timeout=60_000)
    frame.get_by_role("link", name="crm.lessons").first.click()
    frame.get_by_role("heading", name="What to do").wait_for()

    task = f"{airflow.url}/dags/crm/runs/{airflow.run_of('crm').replace('+', '%2B')}/tasks/lessons"
    page.goto(f"{task}/details")
    link = page.get_by_role("link", name="Regal delivery")
    link.wait_for(timeout=60_000)
    page.goto(link.get_attribute("href"))
    assert page.url == f"{airflow.url}/regal/deliveries/{number}"

    page.goto(task)
    page.get_by_role("link", name="Regal", exact=True).click(timeout=60_000)
    page.frame_locator("iframe").get_by_role("heading", name="What happened").wait_for(timeout=60_000)


def test_personal_data_is_shown_on_demand_and_airflow_knows_by_whom(airflow, signed_in):
    page = signed_in("ada")
    page.goto(f"{airflow.url}/regal/deliveries/{airflow.deliveries()['crm']}")
    assert "no-phone" not in page.inner_text("main")
    page.get_by_role("button", name="Show personal data").click()
    page.get_by_text("Personal data is shown").wait_for()
    assert "no-phone" in page.inner_text("main")
    logged = airflow.ask("/api/v2/eventLogs?event=regal.reveal")["event_logs"]
    assert [(one["event"], one["owner"], one["dag_id"], one["task_id"]) for one in logged] == [
        ("regal.reveal", "ada", "crm", "lessons")
    ]
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV with personal data").click()
    assert "no-phone" in Path(download.value.path()).read_text()


def test_a_viewer_sees_counts_and_no_people(airflow, signed_in):
    page = signed_in("vera")
    page.goto(f"{airflow.url}/regal/deliveries/{airflow.deliveries()['crm']}")
    assert "FAILED" in page.inner_text("main")
    assert page.get_by_role("button", name="Show personal data").count() == 0
    assert page.get_by_role("button", name="Start regal_redeliver").count() == 0


def test_a_user_without_access_to_a_dag_finds_no_trace_of_it(airflow, signed_in):
    page = signed_in("only-web")
    page.goto(f"{airflow.url}/regal/")
    text = page.inner_text("body")
    assert "web.lessons" in text
    assert "crm" not in text
    assert "1 delivery," in text
    answer = page.goto(f"{airflow.url}/regal/deliveries/{airflow.deliveries()['crm']}")
    assert answer.status == 403
    assert "crm" not in page.content()
    assert page.goto(f"{airflow.url}/regal/health").status == 403


@pytest.mark.parametrize("path", ["/regal/", "/regal/deliveries/{crm}", "/regal/health", "/regal/task?dag_id=crm"])
def test_it_is_right_on_a_phone_and_without_scripts(airflow, signed_in, path):
    page = signed_in("ada", viewport={"width": 390, "height": 844}, java_script_enabled=False, color_scheme="dark")
    page.goto(airflow.url + path.format(**airflow.deliveries()))
    widths = page.locator("body").bounding_box()["width"], page.locator("main").bounding_box()["width"]
    assert max(widths) <= 390
    right = [box["x"] + box["width"] for one in page.locator("main *").all() if (box := one.bounding_box())]
    assert max(right) <= 390.5, "nothing is cut off at the right"


def test_the_button_starts_the_shipped_dag(airflow, signed_in):
    page, number = signed_in("ada"), airflow.deliveries()["crm"]
    page.goto(f"{airflow.url}/regal/deliveries/{number}")
    page.get_by_role("button", name="Start regal_redeliver").click()
    page.get_by_text("was started: ").wait_for()
    (run,) = airflow.ask("/api/v2/dags/regal_redeliver/dagRuns")["dag_runs"]
    assert run["conf"]["delivery"] == number
    assert run["triggering_user_name"] == "ada"
    assert run["state"] == "queued"
