"""``suppress list``, ``add`` and ``remove``."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing

import pytest

from tests.cli.conftest import track_rows
from tests.ledger.view import LedgerView
from tests.ledger.written import line, write
from tests.ledger_file import table

ANNE, BEN = "+12125550100", "+12125550101"


@pytest.fixture
def ledger(ledger_path, home):
    """A ledger with one account."""
    write(ledger_path, lines=[line(1, user_id="u9")])
    return ledger_path


def listed(path):
    return [(one["identifier"], one["kind"]) for one in table(path, "regal_suppressions")]


def test_people_are_added_listed_and_removed(run, ledger):
    code, out, err = run(
        "suppress", "add", "(212) 555-0100", "Ben@Example.com", "user:2125550100", "--note", "a letter"
    )
    assert (code, out, err) == (0, "Account acme: added 1 phone, 1 email, 1 user id.\n", "")
    code, out, _ = run("suppress", "list")
    assert code == 0
    titles, anne, ben, user = [one.split() for one in out.splitlines()]
    assert titles[:2] == ["WHO", "KIND"]
    assert [anne[:2], ben[:2], user[:2]] == [
        [ANNE, "suppressed"], ["ben@example.com", "suppressed"], ["user:2125550100", "suppressed"],
    ]  # fmt: skip
    assert "command line" in out
    assert "a letter" in out
    assert run("suppress", "add", ANNE, BEN)[1] == (
        "Account acme: read 2 phones; 1 added, the others are on the list already.\n"
    )
    assert run("suppress", "remove", ANNE, "+12125550109") == (0, "Account acme: read 2 phones; 1 removed.\n", "")
    assert run("suppress", "remove", ANNE)[0] == 1
    assert listed(ledger) == [(BEN, "suppressed"), ("ben@example.com", "suppressed"), ("user:2125550100", "suppressed")]


def test_some_people_are_looked_up(run, ledger):
    run("suppress", "add", ANNE)
    code, out, err = run("suppress", "list", "212-555-0100", BEN)
    assert (code, err) == (0, "")
    assert ANNE in out
    assert run("suppress", "list", BEN) == (1, "", "None of them is suppressed.\n")
    assert [one["identifier"] for one in run.json("suppress", "list", ANNE)] == [ANNE]
    assert run.json("suppress", "list", ANNE, "--account", "another") == []


def test_nobody_is_on_the_list(run, ledger):
    assert run("suppress", "list") == (0, "", "No one is suppressed.\n")
    assert run.json("suppress", "list") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(212) 555-0100\n\nben@example.com\n u7 \n", {ANNE, "ben@example.com", "user:u7"}),
        ("\ufeffEmail,Name,PHONE\nBen@Example.com,Ben,\n,Anne,2125550100\n", {ANNE, "ben@example.com"}),
        ("user_id\n2125550100\n", {"user:2125550100"}),
        ('phone\n"+1 (212) 555-0100"\n', {ANNE}),
    ],
)
def test_a_file_has_one_identifier_a_line_or_named_columns(run, ledger, tmp_path, text, expected):
    file = tmp_path / "list.csv"
    file.write_text(text, encoding="utf-8")
    assert run("suppress", "add", "--file", file)[0] == 0
    found = run.json("suppress", "list")
    assert {one["identifier"] for one in found} == expected
    assert {one["source"] for one in found} == {"file list.csv"}
    assert run("suppress", "remove", "--file", file)[0] == 0
    assert listed(ledger) == []


def test_standard_input(run, ledger, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ANNE}\n{BEN}\n"))
    assert run("suppress", "add", "--file", "-")[0] == 0
    assert [one[0] for one in listed(ledger)] == [ANNE, BEN]


def test_what_cannot_be_read_is_listed_and_all_else_is_added(run, ledger, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("phone,email\n12,ben@example.com\n,nobody@\n2125550100,\n" + "1,\n" * 30)
    code, out, err = run("suppress", "add", "--file", file)
    assert (code, out) == (1, "Account acme: added 1 phone, 1 email.\n")
    errors = err.splitlines()
    assert errors[0] == "error: list.csv line 2, phone: not a phone number"
    assert errors[1].startswith("error: list.csv line 3, email: not an email address")
    assert errors[-1] == "error: and 12 more"
    assert "nobody@" not in err
    assert run.json("suppress", "add", "+12")["unreadable"] == 1


def test_several_columns_need_names(run, ledger, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(f"{BEN}\nanne,{ANNE}\n")
    code, out, err = run("suppress", "add", "--file", file)
    assert (code, out) == (1, "")
    assert "list.csv line 2 has 2 columns: write one identifier a line, or a first line that names" in err
    assert listed(ledger) == []
    assert "can't be read" in run("suppress", "add", "--file", tmp_path / "missing.csv")[2]


def test_a_table_is_a_source(run, ledger, tmp_path, monkeypatch):
    warehouse = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("CREATE TABLE t (PHONE, email, name)")
        connection.execute(
            "INSERT INTO t VALUES (2125550100, NULL, 'x'), (NULL, 'Ben@Example.com', 'y'), ('', ' ', 'z')"
        )
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    query = ("--sql-conn-id", "warehouse", "--sql")
    assert run("suppress", "add", *query, "SELECT * FROM t")[:2] == (0, "Account acme: added 1 phone, 1 email.\n")
    assert run.json("suppress", "list")[0]["source"] == "query on warehouse"
    assert (
        "returns none of the columns user_id, phone, email" in run("suppress", "add", *query, "SELECT name FROM t")[2]
    )


@pytest.mark.parametrize("arguments", [["add"], ["remove"], ["add", ANNE, "--sql", "SELECT 1"]])
def test_somebody_has_to_be_named(run, ledger, arguments):
    with pytest.raises(SystemExit):
        run("suppress", *arguments)


class TestTheAccount:
    def test_has_to_be_named_where_there_are_several(self, run, ledger):
        write(ledger, account="zenith", api_key="another")
        code, _, err = run("suppress", "add", ANNE)
        assert code == 1
        assert "The ledger has 2 accounts (acme, zenith): name the account with --account" in err
        assert run("suppress", "add", ANNE, "--account", "zenith")[0] == 0
        assert [one["account"] for one in run.json("suppress", "list")] == ["zenith"]

    def test_may_be_new_so_that_nobody_is_reached_by_the_first_delivery(self, run, home, ledger_path, deliver, regal):
        assert "The ledger is empty: name the account with --account" in run("suppress", "add", ANNE)[2]
        assert run("suppress", "add", ANNE, "--account", "regal_default")[0] == 0
        assert deliver(track_rows(100, 101)).skips == {"suppressed": 1}
        assert [event["body"]["userId"] for event in regal.events()] == ["u101"]

    def test_keeps_its_ledger_key(self, run, ledger, monkeypatch):
        monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
        code, _, err = run("suppress", "add", ANNE)
        assert code == 1
        assert "was written with another [regal] ledger_key" in err


def test_with_a_ledger_key_the_list_names_nobody(run, home, ledger_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
    run("suppress", "add", ANNE, "user:u1", "--account", "acme")
    assert ANNE not in run("suppress", "list")[1]
    assert run("suppress", "list", ANNE)[0] == 0
    assert b"2125550100" not in ledger_path.read_bytes()


def test_find_says_who_is_suppressed(run, ledger):
    run("suppress", "add", ANNE, "--note", "a letter")
    code, out, _ = run("find", ANNE)
    assert code == 0
    assert out.startswith("Suppressed since ")
    assert "in account acme (+12125550100): a letter" in out
    assert [one["identifier"] for one in run.json("find", ANNE)["suppressions"]] == [ANNE]


def test_as_json(run, ledger):
    assert run.json("suppress", "add", ANNE, BEN) == {"account": "acme", "read": 2, "added": 2, "unreadable": 0}
    assert run.json("suppress", "remove", ANNE) == {
        "account": "acme", "read": 1, "suppressed": 1, "forgotten": 0, "opt_outs": 0, "unreadable": 0,
    }  # fmt: skip
    assert LedgerView(ledger).query("SELECT count(*) FROM regal_suppressions")[0][0] == 1
