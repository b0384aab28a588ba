"""Use the installed package in the environment of an Airflow; ``scripts/install_matrix.py`` runs this there.

Nothing is imported from the project's folder. The last line of output is JSON with the results.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

HOME = Path(os.environ["AIRFLOW_HOME"])
DAG = Path(__file__).with_name("installed_dag.py")
PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
FILES = {
    "people.jsonl": '{"user_id": "f0"}\n{"user_id": "f1"}\n',
    "people.csv": "user_id\nf2\nf3\n",
    "more.csv": "user_id\nf4\n",
}


def main() -> None:
    """Try everything, and print the results; anything unexpected ends the program."""
    found = {
        "version": version("airflow-provider-regal"),
        "common_compat": version("apache-airflow-providers-common-compat"),
        "sqlalchemy": version("sqlalchemy"),
        "modules": import_all_modules(),
        "form_fields": count_form_fields(),
        "command": airflow("regal", "--help").returncode == 0,
    }
    check_listed()
    check_plugins()
    check_examples()
    found["events"] = run_dag()
    found["pages"] = check_pages()
    print(json.dumps(found))


def import_all_modules() -> int:
    """Import every module of the package, and return how many there are."""
    package = import_module("airflow_provider_regal")
    if "site-packages" not in str(package.__file__):
        sys.exit(f"{package.__file__} is not the installed package")
    names = [module.name for module in walk_packages(package.__path__, "airflow_provider_regal.")]
    names.remove("airflow_provider_regal.__main__")
    if version("apache-airflow").startswith("2."):  # it supports neither the pages nor FastAPI
        names = [name for name in names if not name.startswith("airflow_provider_regal.plugin.")]
    for name in names:
        import_module(name)
    return len(names)


def count_form_fields() -> int:
    """Return the number of custom fields in the form of our connection type in the UI."""
    if version("apache-airflow").startswith("2."):
        from airflow.providers_manager import ProvidersManager

        return sum(name.startswith("extra__regal__") for name in ProvidersManager().connection_form_widgets)
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (ours,) = (meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "regal")
    return len(ours.extra_fields or {})


def check_listed() -> None:
    """Check that Airflow lists the provider, without warnings about it."""
    ran = airflow("providers", "list", "-o", "plain")
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if "regal" in line.lower()]
    if ran.returncode or len(lines) != 1 or "airflow-provider-regal" not in lines[0]:
        sys.exit(f"airflow providers list: {ran.stdout}{ran.stderr}")


def check_plugins() -> None:
    """Check that Airflow loads the plugin without warnings, whether or not it can show pages."""
    ran = airflow("plugins", "-o", "json")
    said = ran.stdout + ran.stderr
    if ran.returncode or "failed" in said.lower() or "Traceback" in said or '"regal"' not in ran.stdout:
        sys.exit(f"airflow plugins: {said}")


def check_examples() -> None:
    """Copy the examples with the commands of docs/compatibility.md, and check that Airflow can import each."""
    from airflow_provider_regal._compat import parse_dags

    (commands,) = re.findall(r"```sh\n(EXAMPLES=.*?)```", PAGE.read_text(), re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-ec", commands], capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
    )
    copied = HOME / "dags" / "01_first_events.py"
    if ran.returncode or not copied.exists():
        sys.exit(f"examples: {ran.stdout}{ran.stderr}")
    copied.unlink()
    examples = Path(str(import_module("airflow_provider_regal").__file__)).parent / "examples"
    dags, errors = parse_dags(str(examples))
    if errors or len(dags) < len(ran.stdout.split()) or any(not name.startswith("regal_") for name in dags):
        sys.exit(f"examples: {sorted(dags)}, {errors}")


def run_dag() -> int:
    """Run the DAG against a local Regal; return how many events arrived."""
    from airflow_provider_regal.testing import Sandbox

    shutil.copy(DAG, HOME / "dags")
    for name, text in FILES.items():
        (HOME / name).write_text(text)
    warehouse = {"conn_type": "sqlite", "host": str(HOME / "people.db")}
    os.environ["AIRFLOW_CONN_PEOPLE"] = json.dumps(warehouse)
    with Sandbox() as regal:
        os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = regal.connection(timeout=5)
        airflow("db", "migrate", check=True)
        with outage_when_asked(regal):
            ran = airflow("dags", "test", "every_operator", check=True)
        arrived = check_arrived(regal, ran.stdout + ran.stderr)
        checked = subprocess.run(
            [sys.executable, "-I", "-m", "airflow_provider_regal", "check"], capture_output=True, text=True, check=False
        )
        if checked.returncode:
            sys.exit(f"check: {checked.stdout}{checked.stderr}")
    return arrived


@contextmanager
def outage_when_asked(regal: Any) -> Iterator[None]:
    """Stop the local Regal when the DAG asks for it, and restart it once the task has failed because of that."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if (HOME / "stop").exists():
                regal.stop()
                (HOME / "stop").unlink()
                while not over.is_set() and delivery_of("outage")[0] != "stopped":
                    time.sleep(0.1)
                regal.start()
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def delivery_of(task: str) -> tuple[str, int]:
    """Return the state of a task's delivery, and the number of the try that last wrote it."""
    with closing(sqlite3.connect(f"file:{HOME}/regal/ledger.db?mode=ro", uri=True)) as ledger:
        found = ledger.execute("SELECT state, try_number FROM regal_deliveries WHERE task_id = ?", [task]).fetchone()
    return found or ("", 0)


def check_arrived(regal: Any, said: str) -> int:
    """Compare what arrived with what the DAG file expects; return the number of events."""
    spec: Any = importlib.util.spec_from_file_location("installed_dag", DAG)
    expected = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(expected)
    events = regal.events(stored=True)
    bodies = [event["body"] for event in events if event["name"]]
    named = Counter(body.get("properties", {}).get("name", body["name"]) for body in bodies)  # for pages and screens
    contacts = Counter(event["body"].get("userId") for event in events if not event["name"])
    consents = {
        phone: regal.contact(phone=phone)["phones"][phone]["sms"]["status"] == "Subscribed"
        for phone in expected.CONSENTS
    }
    contacts.pop(None, None)  # opt-ins without a user id
    wrong = {
        name: (found, wanted)
        for name, found, wanted in (
            ("events", dict(named), expected.EXPECTED),
            ("contacts", dict(contacts), expected.CONTACTS),
            ("consents", consents, expected.CONSENTS),
            ("findings", regal.stats()["contract_findings"], {}),
            ("outage", delivery_of("outage"), ("finished", 2)),
            (
                "warnings",
                [line for line in said.splitlines() if "airflow_provider_regal" in line and "Warning" in line],
                [],
            ),
        )
        if found != wanted
    }
    if wrong:
        sys.exit(f"{said[-4000:]}\nfound, expected: {wrong}")
    return len(events)


def check_pages() -> bool:
    """Request the page Deliveries from Airflow's own API server, created here: without a session, and as an admin."""
    if tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 1):
        return False
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    client = TestClient(create_app(apps="core"), base_url="http://airflow.test")
    admin: Any = SimpleAuthManagerUser(username="admin", role="ADMIN")
    stranger = client.get("/regal/").status_code
    page = client.get("/regal/", headers={"Authorization": f"Bearer {get_auth_manager().generate_jwt(admin)}"})
    if stranger != 401 or page.status_code != 200 or "every_operator.outage" not in page.text:
        sys.exit(f"pages: {stranger}, {page.status_code}: {page.text[-2000:]}")
    return True


def airflow(*words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run an ``airflow`` command."""
    ran = subprocess.run(
        [sys.executable, "-I", "-m", "airflow", *words], capture_output=True, text=True, timeout=600, check=False
    )
    if check and ran.returncode:
        sys.exit(f"airflow {' '.join(words)}: {ran.stdout[-8000:]}{ran.stderr[-8000:]}")
    return ran


if __name__ == "__main__":
    main()
