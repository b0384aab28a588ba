"""``ledger upgrade``, ``prune``, ``stats`` and ``copy``."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.ledger.admin import history
from tests.cli.conftest import track_rows
from tests.ledger.view import LedgerView, open_database
from tests.ledger.written import line, write


def uri(url):
    return url.replace("+psycopg2", "").replace("postgresql", "postgres")


def test_the_tables_are_created_once(run, ledger_path, home):
    code, out, _ = run("ledger", "upgrade")
    assert (code, out) == (0, f"The ledger ({ledger_path}): created, schema version 3.\n")
    assert run("ledger", "upgrade")[1] == f"The ledger ({ledger_path}): schema version 3 is up to date.\n"
    assert ledger_path.stat().st_mode & 0o777 == 0o600


def test_a_newer_ledger_is_refused(run, ledger_path, home):
    run("ledger", "upgrade")
    with closing(open_database(ledger_path)) as database:
        database.write(lambda connection: connection.exec_driver_sql("UPDATE regal_schema SET version = 99"))
    for command in (["upgrade"], ["stats"], ["prune"]):
        code, out, err = run("ledger", *command)
        assert (code, out) == (1, "")
        assert "The ledger has schema version 99" in err
        assert "Traceback" not in err


def test_stats_count_rows_and_bytes(run, deliver, ledger_path):
    deliver(track_rows(*range(100, 130)))
    code, out, _ = run("ledger", "stats")
    assert code == 0
    first, _, titles, *rows = out.splitlines()
    assert first.startswith(f"The ledger ({ledger_path}): ")
    assert first.endswith("KB, schema version 3")
    assert titles.split() == ["TABLE", "ROWS", "SIZE"]
    assert ["regal_outcomes", "30"] in [row.split()[:2] for row in rows]
    told = run.json("ledger", "stats")
    assert told["tables"]["regal_outcomes"]["rows"] == 30
    assert told["schema_version"] == 3


def test_prune_removes_what_is_older_than_it_is_kept(run, ledger_path, home, monkeypatch):
    now = datetime.now(UTC)
    letters = [line(number, "rejected", payload={}, at=now - timedelta(days=40)) for number in range(1, 3)]
    write(ledger_path, run="a", lines=letters, at=now - timedelta(days=40))
    write(ledger_path, run="b", lines=[line(1)], at=now - timedelta(days=100))
    write(ledger_path, run="c", rows=[{"a": 1}], state="stopped", at=now - timedelta(days=40))
    code, out, _ = run("ledger", "prune")
    assert code == 0
    assert out == (
        "Removed 2 payloads of dead letters, the rows of 1 unfinished delivery, 1 delivery with 1 outcome, and 0 lines "
        "of the consent log.\n"
    )
    kept = "Nothing is past its retention period (history 90 d, dead letters 30 d, plans 7 d, consent log forever).\n"
    assert run("ledger", "prune")[1] == kept
    monkeypatch.setenv("AIRFLOW__REGAL__HISTORY_DAYS", "39")
    assert "2 deliveries with 2 outcomes," in run("ledger", "prune")[1]
    days = ("--history-days", "0.5", "--dead-letter-days", "1", "--plan-days", "3", "--consent-days", "9")
    assert run("ledger", "prune", *days)[1] == (
        "Nothing is past its retention period (history 0.5 d, dead letters 1 d, plans 3 d, consent log 9 d).\n"
    )


def test_a_plan_expires_after_the_days_that_are_asked_for_and_is_listed_as_such(run, deliver, ledger_path):
    deliver(track_rows(100, 101), plan=True)
    assert "planned" in run("deliveries", "--state", "planned")[1]
    LedgerView(ledger_path).change("UPDATE regal_deliveries SET ended_at = '2020-01-01T00:00:00.000000Z'")
    assert "the rows of 1 unfinished delivery," in run("ledger", "prune", "--plan-days", "30")[1]
    assert "expired" in run("deliveries", "--state", "expired")[1]
    assert "No task sent the plan in time" in run("deliveries", "1")[1]


@pytest.mark.parametrize("days", ["many", "-1", "1e9"])
def test_for_how_long_things_are_kept_has_to_be_a_number_of_days(run, deliver, monkeypatch, days):
    deliver(track_rows(100))
    monkeypatch.setenv("AIRFLOW__REGAL__CONSENT_DAYS", days)
    code, _, err = run("ledger", "prune")
    assert code == 1
    assert "[regal] consent_days must be" in err


def test_consent_days_removes_old_lines_of_the_consent_log(run, deliver, monkeypatch, ledger_path):
    rows = [{"user_id": "anne", "plan": "gold", "phone": "+12125550100", "sms_opt_in": True}]
    deliver(rows, call="identify")
    LedgerView(ledger_path).change("UPDATE regal_consent_log SET logged_at = '2020-01-01T00:00:00.000000Z'")
    assert run("ledger", "prune")[1].startswith("Nothing")
    monkeypatch.setenv("AIRFLOW__REGAL__CONSENT_DAYS", "400")
    assert "and 1 line of the consent log." in run("ledger", "prune")[1]


def test_copy_moves_a_ledger_with_one_command(run, deliver, ledger_path, home, monkeypatch):
    deliver(track_rows(100, 101, 102))
    new = home / "new.db"
    monkeypatch.setenv("AIRFLOW_CONN_NEW", json.dumps({"conn_type": "sqlite", "host": str(new)}))
    code, out, _ = run("ledger", "copy", "--to-conn-id", "new")
    assert code == 0, out
    assert f"Copying the ledger ({ledger_path}) to the ledger (connection 'new')" in out
    assert "regal_outcomes                     3\n" in out
    assert "AIRFLOW__REGAL__LEDGER_CONN_ID" in out
    with closing(open_database(new)) as database:
        assert history.list_deliveries(database)[0].acknowledged == 3
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "new")
    assert deliver(track_rows(100)).delivery == 2
    code, _, err = run("ledger", "copy", "--to-conn-id", "new")
    assert code == 1
    assert "is the ledger itself" in err


def test_a_copy_into_itself_or_into_what_is_in_use_is_refused(run, deliver, ledger_path, home, monkeypatch):
    deliver(track_rows(100))
    monkeypatch.setenv("AIRFLOW_CONN_SAME", json.dumps({"conn_type": "sqlite", "host": str(ledger_path)}))
    code, _, err = run("ledger", "copy", "--to-conn-id", "same")
    assert code == 1
    assert "is the ledger itself" in err
    used = home / "used.db"
    write(used, lines=[line(1)])
    monkeypatch.setenv("AIRFLOW_CONN_USED", json.dumps({"conn_type": "sqlite", "host": str(used)}))
    code, _, err = run("ledger", "copy", "--to-conn-id", "used")
    assert code == 1
    assert "error: The target is not empty" in err


@pytest.mark.services
def test_every_command_works_with_postgres(run, deliver, home, monkeypatch, postgres_url):
    pytest.importorskip("airflow.providers.postgres")
    deliver([*track_rows(100, 101, 102), {"user_id": "bad", "phone": "1"}])
    monkeypatch.setenv("AIRFLOW_CONN_PG", uri(postgres_url))
    assert run("ledger", "upgrade", "--ledger-conn-id", "pg")[1].endswith("created, schema version 3.\n")
    code, _, err = run("ledger", "copy", "--to-conn-id", "pg")
    assert code == 0, err
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "pg")
    assert deliver(track_rows(100)).delivery == 2
    assert [one["id"] for one in run.json("deliveries")] == [2, 1]
    assert "not a" in run("outcomes", 1)[1]
    assert len(run.json("find", "u100")["outcomes"]) == 2
    assert run.json("ledger", "stats")["bytes"] > 100_000
    assert run("ledger", "prune")[0] == 0
    assert run("redeliver", 1, "--dry-run")[0] == 0
