"""A dry run counts and shows rows, sends and stores nothing, and reveals no values."""

from __future__ import annotations

import pytest

from airflow_provider_regal.delivery.settings import SyncSettings
from airflow_provider_regal.errors import FixSourceError, WrongLedgerError
from airflow_provider_regal.events import Track
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.sources.csv_rows import read_csv
from tests.delivery.consents import NOW, no, yes


@pytest.fixture
def lines(caplog):
    """What it says in the log."""
    caplog.set_level("INFO", "airflow_provider_regal.delivery.delivery")
    return caplog.messages


@pytest.fixture
def dry_run(deliver, regal_sandbox):
    def run(rows, **options):
        before = regal_sandbox.stats()["requests"]
        report = deliver(rows, dry_run=True, now=NOW, **options)
        assert regal_sandbox.stats()["requests"] == before
        return report

    return run


def everything(ledger):
    """All rows of all tables but the one of the version."""
    return {
        table.name: rows
        for table in schema.metadata.sorted_tables
        if table is not schema.schema_version and (rows := [tuple(row) for row in ledger.query(table.select())])
    }


def test_it_counts_what_would_be_sent_and_shows_no_values(dry_run, caplog, lines, ledger):
    rows = [{"user_id": f"secret-{n}", "plan": "hidden"} for n in range(20)] + [{"plan": b"x", "user_id": "secret"}]
    rows.append(Track(user_id="secret-e", event="Booked"))

    report = dry_run(rows, call="track", event="Booked")

    assert (report.status, report.read, report.skipped, report.rejected) == ("dry_run", 22, 21, 1)
    assert report.skips == {"dry_run": 21}
    assert report.acknowledged == report.requests == 0
    assert report.delivery is None
    lines = caplog.messages
    assert len(lines) == 6
    assert [line.partition(": track {")[0] for line in lines[:3]] == ["row 1", "row 2", "row 3"]
    assert lines[4].startswith("row 21: properties.plan: ")
    assert lines[-1] == "Dry run: 21 of 22 rows would be sent. Nothing was sent or kept"
    assert "secret" not in "".join(lines)
    assert "hidden" not in "".join(lines)
    assert everything(ledger) == {}, "not even that the account exists"


def test_the_first_rejected_rows_are_named_with_their_place_and_it_never_fails(dry_run, caplog, lines, tmp_path):
    path = tmp_path / "consents.csv"
    path.write_text("phone,sms_opt_in\n" + "555,no\n" * 25)
    with path.open("rb") as stream:
        report = dry_run(
            [*read_csv(stream, path.name)], call="identify", sync=SyncSettings(initial="send"), max_rejected=0
        )
    assert (report.status, report.rejected, report.opt_outs_rejected) == ("dry_run", 25, 25)
    named = [line for line in caplog.messages if line.startswith("consents.csv line ")]
    assert len(named) == 20
    assert named[0].startswith("consents.csv line 2: phone: not a valid phone number")
    assert "and 5 rows more are rejected" in caplog.messages
    assert "\n".join(caplog.messages).count("x phone: not a valid phone number") == 1


def test_what_the_ledger_would_not_let_through_is_counted_as_such(dry_run, deliver):
    deliver([{"user_id": "u1", "message_id": "m1"}], of_run="before")
    assert dry_run([{"user_id": "u1", "message_id": f"m{n}"} for n in (1, 2)]).skips == {"duplicate": 1, "dry_run": 1}


def test_limit_reads_no_further(dry_run):
    rows = iter([{"user_id": str(n)} for n in range(9)])
    assert dry_run(rows, call="identify", limit=4).read == 4
    assert len(list(rows)) == 5


def test_rows_that_the_account_has_unchanged_are_counted_as_such(dry_run, deliver, ledger, regal_sandbox):
    contacts = [{"user_id": f"u{n}", "phone": f"+1212555{n:04d}"} for n in range(4)]
    deliver(contacts[:3], call="identify", only_changed=True, now=NOW)
    before = everything(ledger)

    report = dry_run(contacts, call="identify", only_changed=True)

    assert report.skips == {"unchanged": 3, "dry_run": 1}
    assert everything(ledger) == before


def test_opt_outs_are_not_committed_as_barriers(dry_run, ledger):
    rows = [{"phone": "+12125550100", "sms_opt_in": False}]
    assert dry_run(rows, call="identify").skips == {"dry_run": 1}
    assert ledger.consents() == {}


def test_the_plan_of_a_sync_is_shown(dry_run, caplog, lines, ledger):
    report = dry_run(
        [yes(1), no(2), {**yes(3), "phone": "no phone"}], call="identify", sync=SyncSettings(initial="send")
    )
    assert (report.plan["opt_ins"], report.plan["opt_outs"], report.plan["unreadable"]) == (1, 1, 1)
    assert caplog.messages[0].startswith("The plan\n")
    assert ledger.consents() == {}


def test_why_opt_ins_are_withheld_is_counted(dry_run, caplog, lines):
    dry_run([{"user_id": f"u{n}", "phone": f"+1212555{n:04d}", "sms_opt_in": True} for n in range(3)], call="identify")
    (table,) = [line for line in caplog.messages if line.startswith("Dry run\n")]
    assert "3 x " in table.partition("opt-ins withheld")[2]


def test_too_few_rows_fail_it(dry_run):
    with pytest.raises(FixSourceError, match="min_rows=5"):
        dry_run([{"user_id": "u"}], call="identify", min_rows=5)


def test_an_account_that_may_not_be_used_fails_it(dry_run, deliver, regal_sandbox, ledger):
    deliver([], account="another")
    with pytest.raises(WrongLedgerError, match="same API key"):
        dry_run([], call="identify")
