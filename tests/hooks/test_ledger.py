"""The location of the ledger: the file in Airflow's home, or a connection; and when the file is refused."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from airflow_provider_regal.errors import FixConnectionError, LedgerError, WrongLedgerError
from airflow_provider_regal.hooks._ledger import local_file, open_database
from airflow_provider_regal.hooks.regal import RegalHook
from tests.ledger_file import deliveries

PERSON = {"user_id": "anne", "phone": "+12125550100"}


@pytest.fixture
def no_ledger(monkeypatch, tmp_path):
    """Configure nothing: the ledger is in Airflow's home."""
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_CONN_ID", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "regal" / "ledger.db"


def database_of(conn_id=None):
    database = open_database(conn_id)
    database.close()
    return database.file


def test_by_default_it_is_a_file_in_airflows_home_that_only_its_owner_reads(regal, no_ledger):
    RegalHook().identify(**PERSON)
    assert local_file() == no_ledger
    assert [line["acknowledged"] for line in deliveries(no_ledger)] == [1]
    assert stat.S_IMODE(no_ledger.stat().st_mode) == 0o600
    assert stat.S_IMODE(no_ledger.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in no_ledger.parent.iterdir()} == {0}


def test_a_connection_of_the_configuration_goes_before_the_file_and_an_argument_before_both(
    no_ledger, tmp_path, monkeypatch
):
    for name in ("ONE", "TWO"):
        file = str(tmp_path / f"{name}.db")
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({"conn_type": "sqlite", "host": file}))
    assert database_of() == str(no_ledger)
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "one")
    assert database_of() == str(tmp_path / "ONE.db")
    assert database_of("two") == str(tmp_path / "TWO.db")


@pytest.mark.parametrize(
    ("executor", "refused"),
    [
        ("LocalExecutor", None),
        ("SequentialExecutor", None),
        ("airflow.executors.local_executor.LocalExecutor", None),
        ("quick:LocalExecutor", None),
        ("LocalExecutor;team_a=LocalExecutor", None),
        ("CeleryExecutor", "CeleryExecutor"),
        ("KubernetesExecutor", "KubernetesExecutor"),
        ("LocalExecutor,CeleryExecutor", "CeleryExecutor"),
        ("LocalExecutor, EdgeExecutor", "EdgeExecutor"),
        ("LocalExecutor,far:airflow.providers.celery.executors.celery_executor.CeleryExecutor", "CeleryExecutor"),
        ("LocalExecutor,LocalExecutor:company.executors.Fleet", "Fleet"),
        ("LocalExecutor;team_a=CeleryExecutor", "CeleryExecutor"),
        ("company.executors.Fleet", "Fleet"),
    ],
)
def test_the_file_is_refused_where_tasks_may_run_on_other_machines(executor, refused, no_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    if refused is None:
        assert database_of() == str(no_ledger)
        return
    with pytest.raises(WrongLedgerError) as raised:
        open_database()
    said = str(raised.value)
    assert said.startswith(f"{refused} may run tasks on other machines")
    assert "\n  AIRFLOW__REGAL__LEDGER_CONN_ID=<connection id>\n" in said
    assert said.endswith("\n  AIRFLOW__REGAL__ALLOW_LOCAL_LEDGER=True")
    assert not no_ledger.exists()


def test_every_path_refuses_it_before_anything_is_sent(regal, no_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    for send in (
        lambda: RegalHook().identify(**PERSON),
        lambda: RegalHook().deliver([PERSON], call="identify"),
        lambda: RegalHook().deliver([PERSON], call="identify", dry_run=True),
    ):
        with pytest.raises(WrongLedgerError, match="CeleryExecutor may run tasks on other machines"):
            send()
    assert regal.stats()["requests"] == 0


def test_both_lines_of_the_message_mend_it(regal, no_ledger, regal_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__REGAL__ALLOW_LOCAL_LEDGER", "True")
    assert database_of() == str(no_ledger)
    monkeypatch.delenv("AIRFLOW__REGAL__ALLOW_LOCAL_LEDGER")
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "regal_test_ledger")
    assert database_of() == str(regal_ledger)


@pytest.mark.parametrize(
    ("connection", "error", "complaint"),
    [
        ({"conn_type": "no-such-thing"}, FixConnectionError, "The ledger's connection 'odd' cannot be used"),
        ({"conn_type": "regal", "password": "k"}, FixConnectionError, r"'odd' is not of an SQL database \(RegalHook\)"),
    ],
)
def test_a_connection_that_is_of_no_database_is_named(connection, error, complaint, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(connection))
    with pytest.raises(error, match=complaint):
        open_database("odd")


def test_a_file_that_cannot_be_written_is_named(no_ledger):
    no_ledger.parent.parent.mkdir()
    no_ledger.parent.write_text("a file where the folder should be")
    with pytest.raises(LedgerError, match=f"The ledger's file {no_ledger} cannot be opened for writing"):
        open_database()


def test_two_accounts_with_one_key_are_refused_whichever_way_they_send(regal, regal_ledger, monkeypatch):
    RegalHook().identify(**PERSON)
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", regal.connection())
    for send in (
        lambda: RegalHook("other").identify(**PERSON),
        lambda: RegalHook("other").deliver([PERSON], call="identify"),
        lambda: RegalHook("other").deliver([PERSON], call="identify", dry_run=True),
    ):
        with pytest.raises(WrongLedgerError, match=r'Set the same account .* \(\{"account": "regal_default"\}\)'):
            send()
    assert regal.stats()["requests"] == 1
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", regal.connection(account="regal_default"))
    RegalHook("other").identify(**PERSON)
    assert {line["account"] for line in deliveries(regal_ledger)} == {"regal_default"}
    assert regal.api_key.encode() not in regal_ledger.read_bytes()


@pytest.mark.slow
def test_the_ledgers_file_may_be_made_by_many_processes_at_once(no_ledger):
    code = "from airflow_provider_regal.hooks._ledger import open_database; open_database().close()"
    started = [subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
