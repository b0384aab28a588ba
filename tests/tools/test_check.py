"""The doctor: a line for everything a delivery needs, how it is, and what to do about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.cli import main
from airflow_provider_regal.client.probe import _skew_s
from airflow_provider_regal.journal.ledger import Ledger, sqlite_engine
from airflow_provider_regal.tools.storage_check import check_storage, file_system_of
from tests.client.raw_server import RawServer, answering, http, unused_port
from tests.test_cli import airflow_parser

KEY = "a-very-secret-key"


@pytest.fixture
def storage(tmp_path, monkeypatch):
    path = tmp_path / "runs"
    path.mkdir()
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    return path


@pytest.fixture
def connect(monkeypatch, storage):
    def set_up(host, conn_id="regal_default", **extra):
        told = {"conn_type": "regal", "host": host, "password": KEY, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(told))

    return set_up


@pytest.fixture
def check(capsys):
    """Run the command; gives its exit code and what was found: what was looked at -> how it is and what is said."""

    def run(*options, command=None):
        code = (command or main)(["check", *options])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        found = {}
        for line in out.splitlines():
            if re.match(r"\[?\d{4}-", line):  # a warning of Airflow's own
                continue
            how, what, said = line[:8].strip(), line[9:21].strip(), line[22:]
            assert how in ("ok", "warning", "failure"), line
            found.setdefault(what, []).append((how, said))
        run.complaint = err
        return code, found

    return run


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_all_is_well_and_nothing_is_sent_or_left_behind(check, connect, storage, regal_sandbox):
    connect(regal_sandbox.url)
    code, found = check()

    assert code == 0
    assert {how for lines in found.values() for how, _ in lines} == {"ok"}
    assert list(found) == ["versions", "connection", "network", "clock", "storage", "ledger"]
    assert "airflow-provider-regal" in found["versions"][0][1]
    assert "The API key was not tested: only a real event can prove it" in found["network"][0][1]
    assert "not there yet; the first delivery that needs it makes it" in found["ledger"][0][1]
    assert regal_sandbox.events() == []
    assert everything_below(storage) == []


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
    command = [sys.executable, "-m", "airflow_provider_regal", "check"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    assert "ok       network" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_a_connection_that_is_not_there(check, storage, airflow_db):
    code, found = check("--conn-id", "nowhere")
    assert code == 1
    ((how, said),) = found["connection"]
    assert how == "failure"
    assert "nowhere" in said
    assert said.endswith("Add a connection of type regal, with the API key")
    assert found["ledger"] == [("warning", "not looked at, for want of a connection")]
    assert "1 of 4 would keep a delivery from working." in check.complaint


def test_a_connection_that_cannot_be_right(check, connect):
    connect("http://events.example")
    code, found = check()
    assert code == 1
    assert "plain http would send the API key in clear" in found["connection"][0][1]


def test_a_host_nobody_answers_at(check, connect):
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
    [(0, "ok", "agrees"), (3600, "warning", "s behind"), (-3600, "warning", "s ahead"), (None, "warning", "unproved")],
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


@given(st.none() | st.text() | st.sampled_from(["Tue, 24 Nov 99999 02:00:00 GMT", "Tue, 24 Nov 2026 02:00:00 -9999"]))
def test_whatever_a_server_takes_for_a_date_is_survived(text):
    assert _skew_s(text) is None or isinstance(_skew_s(text), float)


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


def test_storage_that_cannot_be_written(check, connect, regal_sandbox, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    connect(regal_sandbox.url)
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(tmp_path / "file" / "runs"))
    code, found = check()
    assert code == 1
    assert found["storage"] == [("failure", f"{tmp_path}/file/runs: Not a directory. Workers have to write there")]


def test_storage_that_is_not_there_yet_is_not_made(tmp_path):
    ((how, _, said),) = check_storage(tmp_path / "a" / "b")
    assert how == "ok"
    assert said.endswith("; the first delivery makes it")
    assert everything_below(tmp_path) == []


MOUNTS = ["/dev/sda / ext4 rw 0 0", "nas:/x /mnt/re\\040gal nfs4 rw 0 0", "tmpfs /mnt tmpfs rw 0 0"]


@pytest.mark.parametrize(
    ("folder", "kind"), [("/srv/regal", "ext4"), ("/mnt/re gal/runs", "nfs4"), ("/mnt/other", "tmpfs")]
)
def test_the_kind_of_file_system_is_that_of_the_innermost_mount(folder, kind):
    assert file_system_of(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize(
    ("mounts", "words"),
    [([], "of a kind this system does not tell"), (["x / nfs rw"], "nfs, shared"), (["x / xfs rw"], "xfs, local")],
)
def test_it_says_whether_the_storage_is_shared(tmp_path, mounts, words):
    ((_, _, said),) = check_storage(tmp_path, mounts)
    assert words in said


def test_local_storage_is_warned_about_where_tasks_move_between_machines(check, connect, regal_sandbox, monkeypatch):
    connect(regal_sandbox.url)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    code, found = check()
    assert code == 0
    assert [how for how, _ in found["storage"]] == ["ok", "warning"]
    assert "set [regal] storage_path to a folder that all workers see" in found["storage"][1][1]


def test_a_ledger_that_is_there_is_written_to_and_left_as_it_was(check, connect, storage, regal_sandbox):
    connect(regal_sandbox.url, account="acme")
    Ledger(sqlite_engine(storage / "ledger.db"), account="another", run="r").close()
    code, found = check()
    assert code == 0
    assert found["ledger"] == [
        ("ok", "the file beside the run folders: can be written, knows no consent yet of account 'acme'")
    ]
    import sqlite3

    with sqlite3.connect(storage / "ledger.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert [
            connection.execute(f"SELECT count(*) FROM {name} WHERE account = 'acme'").fetchone()[0]
            for name in tables
            if name != "regal_ledger_version"
        ] == [0, 0]


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ({"conn_type": "regal", "host": "https://x.example"}, "is not one of an SQL database"),
        ({"conn_type": "sqlite", "host": "/nowhere/at/all.db"}, "warehouse: "),
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
def test_a_ledger_in_postgres(check, connect, regal_sandbox, monkeypatch):
    pytest.importorskip("airflow.providers.postgres")
    connect(regal_sandbox.url, account="check of the tests")
    url = os.environ.get("REGAL_TEST_POSTGRES_URI", "postgresql://postgres@127.0.0.1:5432/test")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", url)
    code, found = check("--ledger-conn-id", "warehouse")
    assert code == 0, found["ledger"]
    assert "warehouse: can be written" in found["ledger"][0][1]
