"""``deliveries`` and ``outcomes``."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.ledger.states import RowState
from tests.cli.conftest import track_rows
from tests.cli.front_ends import ROOT
from tests.ledger.written import NOW, line, write

TITLES = "ID STARTED (UTC) STATE TASK RUN READ ACKNOWLEDGED REJECTED UNKNOWN SKIPPED LEFT"
REFUSE = {"on": {"every": 2}, "do": {"status": 400}}


def test_without_a_ledger_it_says_where_it_was_looked_for(run, home):
    for command in (["deliveries"], ["outcomes", 1], ["find", "anne"], ["ledger", "stats"], ["ledger", "prune"]):
        code, out, err = run(*command)
        assert (code, out) == (1, "")
        assert f"There is no ledger yet in {home}/regal/ledger.db" in err
    assert not (home / "regal").exists()  # nothing was created


def test_deliveries_are_listed_with_what_became_of_their_rows(run, deliver):
    deliver(track_rows(100, 101, 102), name="first")
    deliver(track_rows(100, 101, 102, 103), [REFUSE], name="second")
    code, out, err = run("deliveries")
    assert (code, err) == (0, "")
    titles, second, first = out.splitlines()
    assert titles.split() == TITLES.split()
    assert first.split()[-6:] == ["3", "3", "0", "0", "0", "0"]
    assert second.split()[-6:] == ["4", "2", "2", "0", "0", "0"]
    assert "finished  outside a task/first" in first
    assert "failed    outside a task/second" in second
    assert all(len(one) <= len(titles) for one in (first, second))  # aligned


def test_nothing_personal_is_in_the_list(run, deliver):
    deliver(track_rows(100, 101), [REFUSE])
    texts = run("deliveries")[1] + run("deliveries", 1)[1] + run("deliveries", "--json")[1] + run("ledger", "stats")[1]
    assert "u100" not in texts
    assert "5550100" not in texts


def test_the_list_can_be_narrowed_and_says_what_it_leaves_out(run, ledger_path, home):
    numbers = [write(ledger_path, run=f"r{n}", task=f"t{n}", at=NOW - timedelta(days=n)) for n in range(4)]
    other = write(ledger_path, account="zenith", api_key="another", state="stopped", at=NOW - timedelta(days=9))

    def listed(*options):
        return [one["id"] for one in run.json("deliveries", *options)]

    assert listed() == [*numbers, other]
    assert listed("--task", "t2") == listed("--run", "r2") == [numbers[2]]
    assert listed("--account", "zenith") == listed("--state", "stopped", "--state", "failed") == [other]
    assert listed("--since", "2026-11-28") == numbers[:2]
    assert listed("--dag", "nowhere") == []
    _, out, err = run("deliveries", "--limit", "2")
    assert len(out.splitlines()) == 3
    assert "There are more: raise --limit (2)" in err
    assert "ACCOUNT" not in out
    assert "ACCOUNT" in run("deliveries")[1]  # there are several
    assert run("deliveries", "--dag", "nowhere") == (0, "No deliveries.\n", "")


def test_a_delivery_that_shows_no_sign_of_life_is_stalled(run, ledger_path, home):
    number = write(ledger_path, rows=[{"a": 1}], state=None, at=datetime.now(UTC) - timedelta(minutes=1))
    assert " stalled " in run("deliveries")[1]
    assert "State     stalled" in run("deliveries", number)[1]
    (told,) = run.json("deliveries")
    assert (told["state"], told["live"], told["left"]) == ("sending", False, 1)


def test_one_delivery_is_shown_with_its_reasons(run, deliver):
    rows = [*track_rows(100, 101, 102), {"user_id": "x", "phone": "212"}]
    report = deliver(rows, [REFUSE], name="lessons")
    code, out, _ = run("deliveries", report.delivery)
    assert code == 0
    assert f"Delivery  {report.delivery} of account regal_default" in out
    assert "State     failed" in out
    assert "rejected                 2" in out
    assert "           1 x rejected, HTTP 400\n" in out
    assert "           1 x phone: not a" in out
    assert f"List them with: airflow regal outcomes {report.delivery}\n" in out
    assert "2 rejected, more than max_rejected=0" in out
    told = run.json("deliveries", report.delivery)
    assert (told["read"], told["rejected"], told["acknowledged"], told["requests"]) == (4, 2, 2, 3)
    assert sorted(reason["rows"] for reason in told["reasons"]) == [1, 1]


def test_a_delivery_that_is_not_there_is_said_so(run, deliver):
    deliver(track_rows(100))
    for command in ("deliveries", "outcomes"):
        code, out, err = run(command, 17)
        assert (code, out) == (1, "")
        assert err == "error: There is no delivery 17. List deliveries with: airflow regal deliveries\n"


def test_outcomes_are_those_not_delivered_with_their_reasons(run, deliver):
    report = deliver(track_rows(100, 101, 102, 103), [REFUSE])
    code, out, err = run("outcomes", report.delivery)
    assert code == 0
    titles, *rows = out.splitlines()
    assert titles.split()[:3] == ["ROW", "STATUS", "REASON"]
    assert [row.split()[:5] for row in rows] == [["row", str(n), "rejected", "HTTP", "400"] for n in (2, 4)]
    assert "u101" in rows[0]
    assert "+12125550101" in rows[0]
    assert err == "2 rows listed of 4 read.\n"


def test_outcomes_of_a_file_have_file_and_line(run, ledger_path, home):
    lines = [line(1, "rejected", place="contacts.csv line 17", reason="invalid", message="phone: no\nphone \x1b[31m")]
    number = write(ledger_path, lines=lines, state="failed", skipped=2_000)
    out, err = run("outcomes", number)[1:]
    assert "contacts.csv line 17  rejected  invalid  phone: no phone  [31m" in out  # no control characters
    assert err == "1 row listed of 2,001 read; 2,000 were skipped (2,000 unchanged).\n"


def test_rows_that_are_left_are_counted_and_can_be_listed(run, ledger_path, home):
    rows = [{"user_id": "u1"}, {"user_id": "u2", "email": "u2@example.com"}, {"user_id": "u3"}]
    states = [RowState.ACKNOWLEDGED, RowState.OPEN, RowState.RESERVED]
    number = write(ledger_path, rows=rows, states=states, lines=[line(1)], state="stopped")
    told = "0 rows listed of 3 read; 2 rows are left to send (list them with --status left).\n"
    assert run("outcomes", number)[2] == told
    _, out, err = run("outcomes", number, "--status", "left", "--status", "acknowledged", "--format", "jsonl")
    listed = [json.loads(one) for one in out.splitlines()]
    assert [(one["position"], one["status"], one["reason"]) for one in listed] == [
        (1, "acknowledged", None),
        (2, "left", None),
        (3, "left", "may have been sent"),
    ]
    assert (listed[1]["user_id"], listed[1]["email"]) == ("u2", "u2@example.com")
    assert err == "3 rows listed of 3 read; 2 rows are left to send.\n"
    assert "row 3  left    may have been sent           u3" in run("outcomes", number, "--status", "left")[1]


def test_outcomes_by_status_and_reason(run, ledger_path, home):
    lines = [line(1), line(2, "rejected", reason="HTTP 400"), line(3, "unknown", reason="timeout")]
    number = write(ledger_path, lines=lines)

    def positions(*options):
        out = run("outcomes", number, "--format", "jsonl", *options)[1]
        return [json.loads(one)["position"] for one in out.splitlines()]

    assert positions() == [2, 3]
    assert positions("--status", "acknowledged", "--status", "unknown") == [1, 3]
    assert positions("--reason", "HTTP 400") == [2]
    assert positions("--reason", "nothing") == []


def test_outcomes_as_csv_hold_all_columns(run, ledger_path, home):
    text = 'a "quoted", text'
    number = write(ledger_path, lines=[line(1, "rejected", user_id="anne", reason="invalid", message=text, payload={})])
    (row,) = csv.DictReader(run("outcomes", number, "--format", "csv")[1].splitlines())
    assert (row["delivery"], row["position"], row["user_id"], row["message"]) == (str(number), "1", "anne", text)
    assert (row["phone"], row["is_dead_letter"]) == ("", "True")


def test_hashes_are_shortened_in_tables_only(run, ledger_path, home):
    number = write(ledger_path, lines=[line(1, "unknown", user_id="a1" * 32)])
    assert "a1a1a1a1a1a1...  " in run("outcomes", number)[1]
    assert "a1" * 32 in run("outcomes", number, "--format", "csv")[1]


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
@pytest.mark.slow
def test_a_reader_that_has_enough_ends_it_quietly(ledger_path, home, form):
    number = write(ledger_path, lines=[line(n, "rejected") for n in range(1, 5_001)])
    command = f"{sys.executable} -m airflow_provider_regal outcomes {number} --format {form} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert [line for line in done.stderr.splitlines() if "RemovedInAirflow3Warning" not in line] == []


class TestOutcomesInAWarehouse:
    @pytest.fixture(autouse=True)
    def warehouse(self, home, monkeypatch):
        file = home / "warehouse.db"
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(file)}))
        return file

    def test_are_copied_once(self, run, deliver, warehouse):
        deliver(track_rows(100, 101, 102, 103), [REFUSE])
        copying = ("outcomes", "--to-conn-id", "warehouse", "--table", "regal_outcomes_copy")
        code, out, err = run(*copying)
        assert (code, out) == (0, "4 outcomes of 1 delivery written.\n")
        assert err == "Delivery 1 (outside a task): 4 outcomes\n"
        assert run(*copying)[1] == "0 outcomes of 0 deliveries written; 1 delivery had not changed.\n"
        assert run(*copying, "--all")[1] == "4 outcomes of 1 delivery written.\n"
        assert run(*copying, "--all", "--account", "other")[1] == "0 outcomes of 0 deliveries written.\n"
        assert run(*copying, "--all", "--since", "2100-01-01")[1] == "0 outcomes of 0 deliveries written.\n"
        with closing(sqlite3.connect(warehouse)) as connection:
            found = connection.execute("SELECT status, count(*) FROM regal_outcomes_copy GROUP BY status").fetchall()
        assert dict(found) == {"acknowledged": 2, "rejected": 2}

    def test_a_table_that_cannot_be_written_is_told_without_its_rows(self, run, deliver, warehouse):
        deliver(track_rows(100))
        with closing(sqlite3.connect(warehouse)) as connection:
            columns = (
                "delivery, position, account, dag_id, task_id, run_id, map_index, place, call, event, user_id, phone"
            )
            more = "email, status, reason, field, message, attempts, first_at, last_at, redelivered_by, found_at"
            connection.execute(f"CREATE TABLE t ({columns}, {more}, CHECK (user_id IS NULL))")
        code, _, err = run("outcomes", "--to-conn-id", "warehouse", "--table", "t")
        assert code == 1
        assert err.startswith("error: The table t of connection 'warehouse' can't be written (IntegrityError). Deliver")
        assert "u100" not in err

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ([], "name a DELIVERY; or copy the outcomes of all with --to-conn-id and --table"),
            ([1, "--table", "t"], "--table is for --to-conn-id"),
            ([1, "--all"], "--all is for --to-conn-id"),
            (["--to-conn-id", "warehouse"], "--to-conn-id needs --table"),
            (["--to-conn-id", "warehouse", "--table", "t", "--format", "csv"], "--to-conn-id copies all outcomes"),
        ],
    )
    def test_options_that_do_not_go_together_are_refused(self, run, capsys, arguments, told):
        with pytest.raises(SystemExit):
            run("outcomes", *arguments)
        assert told in capsys.readouterr().err
