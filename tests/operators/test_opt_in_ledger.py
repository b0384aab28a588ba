"""The ledger of the opt-in sync: where it is, what it names, and whose it is."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.operators.opt_ins import EVERYBODY, consent, entries, phone
from tests.operators.ways import context

BOB = EVERYBODY[1]


def test_the_ledger_is_a_file_beside_the_run_folders(sync, tmp_path):
    sync(EVERYBODY, initial="send")
    path = tmp_path / "runs" / "ledger.db"
    assert [key for (key,) in entries(path, "key")] == [phone(100), phone(101), phone(102)]
    assert path.stat().st_mode & 0o077 == 0


def test_the_ledger_is_where_its_connection_says(sync, ledger, tmp_path):
    assert sync(EVERYBODY, initial="send", ledger_conn_id="ledger").requests == 3
    assert len(entries(ledger)) == 3
    assert not (tmp_path / "runs" / "ledger.db").exists()
    assert sync(EVERYBODY, ledger_conn_id="ledger").requests == 0
    assert sync(EVERYBODY, initial="send").requests == 3, "another ledger knows nothing of it"


def test_a_connection_that_is_none_of_a_database_is_named(sync, regal, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", regal.connection())
    said = sync(EVERYBODY, initial="send", ledger_conn_id="ledger").error
    assert "connection 'ledger' is not one of an SQL database: RegalHook" in said
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", '{"conn_type": "no-such-thing"}')
    said = sync(EVERYBODY, initial="send", ledger_conn_id="ledger").error
    assert "connection 'ledger' cannot be used" in said


def test_with_a_ledger_key_the_ledger_names_nobody(sync, ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret of many letters")
    anne = consent(100, user_id="anne-1")
    assert sync([anne, BOB], initial="send", ledger_conn_id="ledger").requests == 2
    assert sync([anne, BOB], ledger_conn_id="ledger").requests == 0
    kept = ledger.read_bytes()
    for personal in (phone(100), phone(101), "anne-1", "203.0.113.9"):
        assert personal.encode() not in kept
    assert "ledger_key" in sync([anne], ledger_conn_id="ledger", on_removed="opt_out").error


def test_each_account_has_its_own_part_of_the_ledger(sync, regal, ledger, monkeypatch):
    assert sync(EVERYBODY, initial="send", ledger_conn_id="ledger").requests == 3
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", regal.connection(rate_limit=5_000))
    other = {"ledger_conn_id": "ledger", "regal_conn_id": "other"}
    assert "initial=" in sync(EVERYBODY, **other).error
    assert sync(EVERYBODY, initial="send", **other).requests == 3
    assert {account for (account,) in entries(ledger, "account")} == {
        f"regal_default {regal.url}", f"other {regal.url}",
    }  # fmt: skip


def test_two_connections_can_share_an_account(sync, regal, ledger, monkeypatch):
    for name in ("REGAL_DEFAULT", "OTHER"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", regal.connection(rate_limit=5_000, account="brand-a"))
    assert sync(EVERYBODY, initial="send", ledger_conn_id="ledger").requests == 3
    assert sync(EVERYBODY, ledger_conn_id="ledger", regal_conn_id="other").requests == 0
    assert {account for (account,) in entries(ledger, "account")} == {"brand-a"}


def test_a_dry_run_of_the_connection_remembers_nothing(sync, regal, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(dry_run=True))
    seen = sync(EVERYBODY, initial="baseline")
    assert (seen.requests, seen.report["status"], seen.plan["new"]) == (0, "dry_run", 3)
    assert entries(tmp_path / "runs" / "ledger.db") == []


def test_a_ledger_key_may_be_chosen_after_a_dry_run(sync, monkeypatch):
    assert sync(EVERYBODY, initial="send", dry_run=True).plan["new"] == 3
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret of many letters")
    assert sync(EVERYBODY, initial="send").requests == 3
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_KEY")
    assert "ledger_key" in sync(EVERYBODY, dry_run=True).error


def test_an_event_may_lack_the_phone_that_the_ledger_knows_regal_has(sync, regal, ledger):
    anne = {**consent(100, timestamp=datetime.now(UTC).isoformat()), "phone": None, "user_id": "anne"}
    contact = [{"user_id": "anne", "phone": phone(100)}]
    RegalRowsOperator(task_id="t", rows=contact, call="identify", ledger_conn_id="ledger").execute(context())

    options = {"as_event": "SMS Consent Given", "ledger_conn_id": "ledger"}
    assert sync([anne], initial="send", **options).requests == 1
    (event,) = (event["body"] for event in regal.events() if event["name"])
    assert (event["name"], event["userId"]) == ("SMS Consent Given", "anne")
    assert sync([anne], **options).requests == 0
