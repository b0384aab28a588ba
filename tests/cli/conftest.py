"""Commands against a real ledger in a file and a real local Regal."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import pytest

from airflow_provider_regal.cli import main
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks.regal import RegalHook


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Put the default ledger into a separate folder; Airflow's database stays where it is."""
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def ledger_path(home):
    """Where the default ledger is, or will be."""
    return home / "regal" / "ledger.db"


@pytest.fixture
def deliver(home, regal, monkeypatch):
    """Deliver rows outside a task, with the default ledger; return the report.

    :param faults: Regal's scripted answers.
    """
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_CONN_ID")
    # After a kill, a try waits as long as a request of the previous one may take.
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(timeout=2))

    def run(rows, faults=(), **options):
        regal.set_faults(list(faults))
        given = {"call": "track", "event": "Lesson Booked", "max_unknown": 1.0, "max_refused": None, **options}
        if given["call"] == "identify":
            del given["event"]
        report = None
        try:
            report = RegalHook().deliver(rows, **given)
        except RegalError as error:
            report = getattr(error, "report", None)
        with suppress(Exception):
            regal.set_faults([])
        return report

    return run


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code, standard output, and standard error."""

    def command(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    command.json = lambda *arguments: json.loads(command(*arguments, "--json")[1])
    return command


def track_rows(*numbers, **more):
    return [{"user_id": f"u{number}", "phone": f"(212) 555-{number:04d}", **more} for number in numbers]
