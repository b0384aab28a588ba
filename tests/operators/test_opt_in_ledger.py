"""The ledger of the opt-in sync: its location, its identifiers, and its account."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.testing import Sandbox
from tests.ledger_file import consents, everything, remembered, table
from tests.operators.opt_ins import EVERYBODY, consent, phone
from tests.operators.ways import context

BOB = EVERYBODY[1]


def test_it_knows_what_was_acknowledged(sync, regal_ledger):
    sync(EVERYBODY, initial="send")
    known = consents(regal_ledger)
    assert {key: line["subscribed"] for key, line in known.items()} == {
        (phone(100), "sms"): 1, (phone(101), "sms"): 1, (phone(102), "sms"): 0,
    }  # fmt: skip
    assert {(line["account"], line["source"], line["state"]) for line in known.values()} == {
        ("regal_default", "d.t", "acknowledged")
    }


def test_it_keeps_the_evidence_of_what_was_sent(sync, regal_ledger):
    sync([consent(100), consent(101, ip=None)], initial="send", max_rejected=1)
    (line,) = table(regal_ledger, "regal_consent_log JOIN regal_consent_texts USING (text_hash)")
    said = (line["identifier"], line["given_at"][:19], line["ip"], line["text"], line["form"], line["status"])
    assert said == (phone(100), "2026-01-01T10:00:00", "203.0.113.9", "Yes, text me.", "signup_form", "acknowledged")


def test_the_ledger_is_where_its_connection_says(sync, ledger, regal_ledger):
    assert sync(EVERYBODY, initial="send", ledger_conn_id="ledger").requests == 3
    assert len(consents(ledger)) == 3
    assert not regal_ledger.exists()
    assert sync(EVERYBODY, ledger_conn_id="ledger").requests == 0
    assert sync(EVERYBODY, initial="send").requests == 3, "another ledger knows nothing of it"


def test_a_connection_that_is_none_of_a_database_is_named(sync, regal, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", regal.connection())
    said = sync(EVERYBODY, initial="send", ledger_conn_id="ledger").error
    assert "connection 'ledger' is not of an SQL database (RegalHook)" in said
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", '{"conn_type": "no-such-thing"}')
    said = sync(EVERYBODY, initial="send", ledger_conn_id="ledger").error
    assert "connection 'ledger' cannot be used" in said


def test_with_a_ledger_key_the_ledger_names_nobody(sync, ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret of many letters")
    anne = consent(100, user_id="anne-1")
    assert sync([anne, BOB], initial="send", ledger_conn_id="ledger").requests == 2
    assert sync([anne, BOB], ledger_conn_id="ledger").requests == 0
    kept = everything(ledger)
    for personal in (phone(100), phone(101), "anne-1"):
        assert personal.encode() not in kept
    assert "ledger_key" in sync([anne], ledger_conn_id="ledger", on_removed="opt_out").error


def test_each_account_has_its_own_part_of_the_ledger(sync, regal, ledger, monkeypatch):
    assert sync(EVERYBODY, initial="send", ledger_conn_id="ledger").requests == 3
    with Sandbox(api_key="another-key") as another:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", another.connection(rate_limit=5_000))
        its_own_part(sync, another, ledger)


def its_own_part(sync, another, ledger):
    other = {"ledger_conn_id": "ledger", "regal_conn_id": "other"}
    assert "initial=" in sync(EVERYBODY, **other).error
    sync(EVERYBODY, initial="send", **other)
    assert another.stats()["requests"] == 3
    assert {line["account"] for line in table(ledger, "regal_consents")} == {"regal_default", "other"}


def test_two_connections_with_one_key_must_share_an_account(sync, regal, monkeypatch):
    sync(EVERYBODY, initial="send")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", regal.connection())
    refused = sync(EVERYBODY, initial="send", regal_conn_id="other")
    assert refused.requests == 0
    assert "'other' and 'regal_default' have the same API key" in refused.error
    assert '{"account": "regal_default"}' in refused.error


def test_two_connections_can_share_an_account(sync, regal, ledger, monkeypatch):
    for name in ("REGAL_DEFAULT", "OTHER"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", regal.connection(rate_limit=5_000, account="brand-a"))
    assert sync(EVERYBODY, initial="send", ledger_conn_id="ledger").requests == 3
    assert sync(EVERYBODY, ledger_conn_id="ledger", regal_conn_id="other").requests == 0
    assert {line["account"] for line in table(ledger, "regal_consents")} == {"brand-a"}


def test_a_dry_run_of_the_connection_remembers_nothing(sync, regal, regal_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(dry_run=True))
    seen = sync(EVERYBODY, initial="baseline")
    assert (seen.requests, seen.report["status"], seen.plan["recorded"]) == (0, "dry_run", 3)
    assert not any(remembered(regal_ledger).values())


def test_a_ledger_key_may_be_chosen_after_a_dry_run(sync, monkeypatch):
    assert sync(EVERYBODY, initial="send", dry_run=True).plan["sent"] == 3
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
