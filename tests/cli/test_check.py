"""``check``: a line for everything a delivery needs, its status, and what to do about it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_regal.cli import main
from airflow_provider_regal.ledger import schema
from tests.cli.front_ends import airflow_parser, program
from tests.client.raw_server import RawServer, answering, http, unused_port
from tests.ledger.view import LedgerView, open_database
from tests.ledger.written import line, write

KEY = "a-very-secret-key"


@pytest.fixture
def connect(monkeypatch, home):
    def set_up(host, conn_id="regal_default", **extra):
        told = {"conn_type": "regal", "host": host, "password": KEY, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(told))

    return set_up


@pytest.fixture
def check(capsys):
    """Run the command; returns its exit code and what was found: what was looked at -> how it is, what is said."""

    def run(*options, command=None):
        code = (command or main)(["check", *options])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        found, last = {}, []
        for one in out.splitlines():
            if re.match(r"\[?\d{4}-", one):  # one of Airflow's own warnings
                continue
            how, what, said = one[:8].strip(), one[9:21].strip(), one[22:]
            if not how:  # continues the line before
                last[-1] = (last[-1][0], f"{last[-1][1]}\n{said}")
                continue
            assert how in ("ok", "warning", "failure"), one
            last = found.setdefault(what, [])
            last.append((how, said))
        run.complaint = err
        return code, found

    return run


def test_all_is_well_and_nothing_is_sent_or_left_behind(check, connect, home, regal_sandbox):
    connect(regal_sandbox.url)
    code, found = check()

    assert code == 0
    assert {how for lines in found.values() for how, _ in lines} == {"ok"}
    assert list(found) == ["versions", "connection", "network", "clock", "executor", "ledger"]
    assert "airflow-provider-regal" in found["versions"][0][1]
    assert "The API key was not tested: only a real event can prove it" in found["network"][0][1]
    assert found["ledger"] == [("ok", f"{home}/regal/ledger.db does not exist yet: the first delivery creates it")]
    assert regal_sandbox.events() == []
    assert list(home.iterdir()) == []


def test_a_ledger_that_is_there_is_written_to_and_left_as_it_was(check, connect, ledger_path, regal_sandbox):
    connect(regal_sandbox.url, account="acme")
    write(ledger_path, api_key=KEY)

    def everything():
        with closing(sqlite3.connect(ledger_path)) as connection:
            return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in schema.metadata.tables}

    before = everything()
    code, found = check()
    assert code == 0
    assert list(found)[-9:] == [
        "ledger", "ledger clock", "retention", "accounts", "unknown rows", "rows left", "owed", "opt-outs", "last runs",
    ]  # fmt: skip
    assert found["ledger"] == [("ok", f"{ledger_path}: written and read back, sqlite, schema version 3")]
    assert found["accounts"] == [("ok", "acme (1 delivery)")]
    assert found["unknown rows"] == [("ok", "none")]
    assert found["rows left"] == [
        ("ok", "none in deliveries that stopped more than an hour ago; later ones may still be retried")
    ]
    assert everything() == before


def test_unknown_rows_are_a_warning_that_leads_to_them(check, connect, ledger_path, regal_sandbox):
    connect(regal_sandbox.url)
    at = datetime.now(UTC) - timedelta(days=4)
    number = write(ledger_path, lines=[line(n, "unknown", payload={}, at=at) for n in (1, 2)])
    code, found = check()
    assert code == 0
    assert found["unknown rows"] == [
        (
            "warning",
            "it can't be known whether Regal received 2 rows, the oldest 4 d old. Look for them in Regal: "
            f"airflow regal outcomes {number} --status unknown",
        )
    ]


def test_rejected_opt_outs_and_failures_of_the_last_runs_are_warnings_until_a_run_is_without(
    check, connect, ledger_path, regal_sandbox
):
    connect(regal_sandbox.url)
    letter = {"reason": "invalid", "message": "phone: no", "payload": {}}

    def fails(run, task):
        number = write(ledger_path, lines=[line(1, "rejected", **letter)], state="failed", run=run, task=task)
        LedgerView(ledger_path).change(
            f"UPDATE regal_deliveries SET counts = json_set(counts, '$.opt_outs_rejected', 1) WHERE id = {number}"
        )
        return number

    fails("a", "sync")
    first, other = fails("b", "sync"), fails("b", "other")
    assert first < other
    code, found = check()
    assert code == 0
    ((how, said),) = found["opt-outs"]
    assert (how, said.split(":")[0]) == (
        "warning", "2 rows with an opt-out, or a decision that can't be read, were rejected in the last runs",
    )  # fmt: skip
    assert said.endswith(f"airflow regal outcomes {other} --status rejected")
    assert found["last runs"] == [
        ("warning", f"the last delivery of 2 tasks failed. Look at it: airflow regal deliveries {other}")
    ]
    write(ledger_path, rows=[{"user_id": "u"}] * 2, state="stopped", run="c", task="sync")
    assert check()[1]["last runs"] == [
        ("warning", f"the last delivery of 1 task failed, and 1 stopped. Look at it: airflow regal deliveries {other}")
    ]
    write(ledger_path, lines=[line(1)], run="c", task="other")
    ((how, said),) = check()[1]["last runs"]
    assert (how, said.split(":")[0]) == (
        "warning", "the last delivery of 1 task stopped. If Airflow does not retry it, clear its task",
    )  # fmt: skip
    write(ledger_path, lines=[line(1)], run="d", task="sync")
    write(ledger_path, lines=[line(1, "rejected", **letter)], state="failed", dag=None, task=None, run="outside")
    _, found = check()
    assert found["opt-outs"] == [("ok", "the last runs rejected none")]
    assert found["last runs"] == [("ok", "the last delivery of no task failed or stopped")]


def test_rows_that_no_try_has_resumed_are_a_warning_that_leads_to_the_oldest(
    check, connect, ledger_path, regal_sandbox
):
    connect(regal_sandbox.url)
    now = datetime.now(UTC)
    rows = [{"user_id": f"u{number}"} for number in range(3)]
    write(ledger_path, rows=rows, state="finished", run="finished", at=now - timedelta(days=5))
    write(ledger_path, rows=rows, state="replaced", run="replaced", at=now - timedelta(days=5))
    settled = [line(number) for number in (1, 2, 3)]
    write(ledger_path, rows=rows, lines=settled, state="stopped", run="settled", at=now - timedelta(days=5))
    write(ledger_path, rows=rows, state=None, run="stalled", at=now - timedelta(hours=3))
    oldest = write(
        ledger_path, rows=rows, lines=[line(1, "acknowledged")], state="stopped", run="stopped",
        at=now - timedelta(days=4),
    )  # fmt: skip
    write(ledger_path, rows=rows, state="stopped", run="retried soon", at=now - timedelta(minutes=50))
    code, found = check()
    assert code == 0
    assert found["rows left"] == [
        (
            "warning",
            "5 rows of 2 deliveries that stopped, the oldest 4 d ago, and were not resumed. Look at it, and clear its "
            f"task: airflow regal deliveries {oldest}",
        )
    ]


def test_a_key_that_another_account_has_is_a_failure(check, connect, ledger_path, regal_sandbox):
    connect(regal_sandbox.url, account="acme")
    write(ledger_path, account="another", api_key=KEY)
    code, found = check()
    assert code == 1
    how, said = found["ledger"][-1]
    assert how == "failure"
    assert "have the same API key" in said


def test_a_ledger_that_cannot_be_written(check, connect, home, regal_sandbox):
    connect(regal_sandbox.url)
    (home / "regal").mkdir()
    (home / "regal" / "ledger.db").mkdir()
    code, found = check()
    assert code == 1
    assert found["ledger"][0][0] == "failure"
    assert "ledger.db cannot be opened for writing" in found["ledger"][0][1]


def test_a_ledger_that_can_only_be_read(check, connect, ledger_path, regal_sandbox):
    """As a replica, or a database of which this user may change nothing."""
    connect(regal_sandbox.url)
    write(ledger_path)
    with closing(open_database(ledger_path)) as database:
        database.write(lambda connection: connection.exec_driver_sql(
            "CREATE TRIGGER t BEFORE INSERT ON regal_types BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        ))  # fmt: skip
    code, found = check()
    assert code == 1
    assert found["ledger"][0][0] == "failure"


def test_a_ledger_of_an_older_version_is_left_as_it_is(check, connect, ledger_path, regal_sandbox, monkeypatch):
    connect(regal_sandbox.url)
    write(ledger_path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, lambda connection: pytest.fail("migrated")))
    code, found = check()
    assert code == 0
    assert found["schema"] == [
        ("warning", "version 3; the next delivery migrates it to 4. Upgrade all workers together")
    ]


def test_a_ledger_of_a_newer_version_is_a_failure(check, connect, ledger_path, regal_sandbox):
    connect(regal_sandbox.url)
    write(ledger_path)
    with closing(open_database(ledger_path)) as database:
        database.write(lambda connection: connection.exec_driver_sql("UPDATE regal_schema SET version = 99"))
    code, found = check()
    assert code == 1
    assert "The ledger has schema version 99" in found["ledger"][0][1]


def test_a_file_that_workers_on_other_machines_do_not_see_is_a_failure(check, connect, regal_sandbox, monkeypatch):
    connect(regal_sandbox.url)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    code, found = check()
    assert code == 1
    assert found["ledger"][0][0] == "failure"
    assert "CeleryExecutor may run tasks on other machines" in found["ledger"][0][1]
    assert "\n  AIRFLOW__REGAL__LEDGER_CONN_ID=<connection id>\n" in found["ledger"][0][1]
    monkeypatch.setenv("AIRFLOW__REGAL__ALLOW_LOCAL_LEDGER", "True")
    code, found = check()
    assert code == 0
    assert found["executor"][0][0] == "warning"
    assert "CeleryExecutor, with allow_local_ledger" in found["executor"][0][1]


def test_airflow_runs_it_too(check, connect, regal_sandbox):
    connect(regal_sandbox.url, "other")

    def by_airflow(arguments):
        args = airflow_parser().parse_args(["regal", *arguments])
        args.func(args)
        return 0

    assert check("--conn-id", "other", command=by_airflow)[1]["connection"][0][1].startswith("other: http://127")
    connect(f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(SystemExit) as caught:
        check(command=by_airflow)
    assert caught.value.code == 1


def test_it_runs_as_a_program(connect, regal_sandbox):
    connect(regal_sandbox.url)
    process = program("check")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "ok       network" in out
    assert KEY not in out + err
    assert [
        line for line in err.splitlines() if "RemovedInAirflow3Warning" not in line and "encrypted" not in line
    ] == []


def test_a_connection_that_is_not_there(check, home, airflow_db):
    code, found = check("--conn-id", "nowhere")
    assert code == 1
    ((how, said),) = found["connection"]
    assert how == "failure"
    assert "nowhere" in said
    assert said.endswith("Run this where the scheduler runs, or set the variable.")
    assert found["ledger"][0][0] == "ok"  # which is checked in any case
    assert "1 of 4 checks failed: deliveries would not work." in check.complaint


def test_a_connection_that_cannot_be_right(check, connect):
    connect("http://events.example")
    code, found = check()
    assert code == 1
    assert "plain http would send the API key in clear" in found["connection"][0][1]


def test_a_host_that_does_not_answer(check, connect):
    connect(f"http://127.0.0.1:{unused_port()}")
    code, found = check()
    assert code == 1
    ((how, said),) = found["network"]
    assert how == "failure"
    assert "the connection was refused" in said
    assert "Check host, proxy and firewall" in said
    assert "clock" not in found


@pytest.mark.parametrize(
    ("ahead_s", "how", "words"),
    [
        (0, "ok", "agrees"),
        (3600, "warning", "s behind the server's"),
        (-3600, "warning", "s ahead of the server's"),
        (None, "warning", "could not be compared"),
    ],
)
def test_the_clock_is_compared_with_the_servers(check, connect, ahead_s, how, words):
    there = datetime.now(UTC) + timedelta(seconds=ahead_s or 0)
    headers = () if ahead_s is None else (f"Date: {format_datetime(there, usegmt=True)}",)
    with RawServer(answering(http("404 Not Found", b"", *headers))) as server:
        connect(server.origin)
        code, found = check()
    assert code == 0
    assert found["clock"][0][0] == how
    assert words in found["clock"][0][1]
    assert all(request.head.startswith("GET ") for request in server.requests)


def test_a_rate_beyond_the_documented_and_a_dry_run_are_warned_about(check, connect, regal_sandbox):
    connect(regal_sandbox.url, rate_limit=400, dry_run=True)
    code, found = check()
    assert code == 0
    assert found["rate"][0][0] == found["dry run"][0][0] == "warning"
    assert "Lower it unless Regal raised yours" in found["rate"][0][1]


def test_dry_run_in_the_configuration_is_warned_about(check, connect, regal_sandbox, monkeypatch):
    connect(regal_sandbox.url)
    monkeypatch.setenv("AIRFLOW__REGAL__DRY_RUN", "True")
    assert check()[1]["dry run"][0][0] == "warning"


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ({"conn_type": "regal", "host": "https://x.example"}, "is not of an SQL database"),
        ({"conn_type": "sqlite", "host": "/proc/nowhere/at/all.db"}, "cannot be opened for writing"),
        ({"conn_type": "http", "host": "x"}, "warehouse"),
    ],
)
def test_a_ledger_that_cannot_be_used(check, connect, regal_sandbox, monkeypatch, connection, words):
    connect(regal_sandbox.url)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({**connection, "password": KEY}))
    code, found = check("--ledger-conn-id", "warehouse")
    assert code == 1
    assert found["ledger"][0][0] == "failure"
    assert words in found["ledger"][0][1]


@pytest.mark.services
def test_a_ledger_in_postgres_gets_its_tables(check, connect, regal_sandbox, monkeypatch, postgres_url):
    pytest.importorskip("airflow.providers.postgres")
    connect(regal_sandbox.url)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres_url.replace("postgresql+psycopg2", "postgres"))
    code, found = check("--ledger-conn-id", "warehouse")
    assert code == 0, found
    assert found["ledger"] == [("ok", "connection warehouse: written and read back, postgresql, schema version 3")]
    assert found["ledger clock"] == [("ok", "agrees with the database's")]
    assert found["executor"] == [("ok", "LocalExecutor: every worker has to reach connection warehouse")]


def test_it_does_not_keep_the_context_it_needs(connect, regal_sandbox, check):
    connect(regal_sandbox.url)
    check()
    assert "_AIRFLOW_PROCESS_CONTEXT" not in os.environ


@pytest.mark.parametrize(
    ("days", "severity", "told"),
    [
        ("", "ok", "the consent log is kept forever; [regal] consent_days limits that"),
        ("1825", "ok", "lines of the consent log are kept for 1825 days, what proves an opt-in longer"),
        ("five years", "failure", "[regal] consent_days must be a number of days"),
    ],
)
def test_for_how_long_consent_is_kept_is_told(
    check, connect, ledger_path, regal_sandbox, monkeypatch, days, severity, told
):
    connect(regal_sandbox.url, account="acme")
    write(ledger_path, api_key=KEY)
    monkeypatch.setenv("AIRFLOW__REGAL__CONSENT_DAYS", days)
    ((found, text),) = check()[1]["retention"]
    assert found == severity
    assert text.startswith(told)
