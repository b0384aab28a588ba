"""``consent``: one person in plain words, and the evidence in a file."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.errors import TooManyFailedRowsError
from tests.delivery.sync.syncing import run_sync

ANNE, BEN = "+12125550100", "+12125550101"
IP, TEXT = "198.51.100.54", "Yes, text me."


def opt_in(who, phone, at="2026-11-01T08:00:00Z", **more):
    return {
        "user_id": who, "phone": phone, "sms_opt_in": True, "sms_opt_in_at": at, "sms_opt_in_ip": IP,
        "sms_opt_in_text": TEXT, "sms_opt_in_source": "signup_form", **more,
    }  # fmt: skip


def opt_out(who, phone, at="2026-11-20T08:00:00Z", **more):
    return {"user_id": who, "phone": phone, "sms_opt_in": False, "sms_opt_in_at": at, **more}


@pytest.fixture
def contacts(deliver):
    return lambda *rows, **options: deliver(rows, call="identify", **options)


class TestOnePerson:
    def test_an_opt_in_is_explained_with_its_evidence(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        code, out, _ = run("consent", "(212) 555-0100")
        assert code == 0
        head, has, evidence = out.splitlines()
        assert head == f"{ANNE}, sms, account regal_default: opted in"
        assert has.startswith("  Regal has: opted in at 2026-11-01 08:00:00 UTC, acknowledged 20")
        assert evidence == (
            f'  Evidence: IP address {IP}; collected by signup_form; agreed to "{TEXT}"; row 1, delivery 1.'
        )

    def test_a_person_is_found_by_user_id_with_the_phones_on_record(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        assert run("consent", "anne")[1] == run("consent", ANNE)[1]

    def test_an_opt_out_says_what_it_bars(self, run, contacts):
        contacts(opt_in("anne", ANNE), opt_out("anne", ANNE))
        head, has, _, bars, withheld = run("consent", ANNE)[1].splitlines()
        assert head.endswith(": opted out")
        assert has.startswith("  Regal has: opted out at 2026-11-20 08:00:00 UTC, acknowledged ")
        assert bars == "  No opt-in given up to 2026-11-20 08:00:00 is sent: the person opted out then."
        assert withheld.startswith("  Withheld 20")
        assert ": opt-in given 2026-11-01 08:00:00 (row 1, delivery 1): older: a newer decision" in withheld

    def test_of_who_opted_out_the_evidence_is_that_of_the_earlier_yes(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        contacts(opt_out("anne", ANNE, sms_opt_in_ip=IP, sms_opt_in_text=TEXT), name="later")
        head, _, evidence, earlier, *_ = run("consent", ANNE)[1].splitlines()
        assert head.endswith(": opted out")
        assert evidence == "  Evidence: row 1, delivery 2."
        assert earlier == (
            f"  Evidence of the earlier opt-in of 2026-11-01 08:00:00: IP address {IP}; collected by signup_form; "
            f'agreed to "{TEXT}"; row 1, delivery 1.'
        )

    def test_why_an_opt_in_was_withheld_is_said_with_its_row(self, run, contacts):
        contacts({**opt_in("anne", ANNE), "sms_opt_in_ip": None, "plan": "gold"})
        head, withheld = run("consent", ANNE)[1].splitlines()
        assert head.endswith(": no consent")
        assert "opt-in given 2026-11-01 08:00:00 (row 1, delivery 1): no ip: send the person's address" in withheld

    def test_an_opt_out_that_regal_lacks_is_said_first(self, run, contacts):
        contacts(opt_out("anne", ANNE), faults=[{"do": {"status": 400}}])
        out = run("consent", ANNE)[1]
        assert out.startswith(f"{ANNE}, sms, account regal_default: OPTED OUT, and Regal does not have that yet\n")
        assert "The opt-out of 2026-11-20 08:00:00 was read and is not acknowledged. The next delivery" in out
        assert "Refused by Regal" in out
        assert "HTTP 400" in out

    def test_what_may_have_reached_regal_is_said(self, run, contacts):
        contacts(opt_in("anne", ANNE), faults=[{"do": {"drop": True}}], guarantee="at_most_once")
        out = run("consent", ANNE)[1]
        assert ": opted in, and it can't be known yet whether Regal has that" in out
        assert "The opt-in of 2026-11-01 08:00:00 was sent, and it can't be known whether Regal received it." in out

    def test_where_the_ledger_has_hashes_the_given_name_is_shown(self, run, contacts, monkeypatch):
        monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
        contacts(opt_in("anne", ANNE))
        assert run("consent", ANNE)[1].startswith(f"{ANNE}, sms, account regal_default: opted in\n")

    def test_who_is_suppressed_is_said_first(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        run("suppress", "add", ANNE, "--note", "asked by letter")
        suppressed, _, head, *_ = run("consent", ANNE)[1].splitlines()
        assert suppressed.startswith("Suppressed since 20")
        assert suppressed.endswith(f"({ANNE}): asked by letter: nothing but opt-outs is sent.")
        assert head.endswith("opted in")
        assert [one["kind"] for one in run.json("consent", ANNE)["suppressions"]] == ["suppressed"]

    def test_who_was_forgotten_is_said_though_nothing_is_on_record(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        run("forget", ANNE)
        code, out, _ = run("consent", ANNE)
        assert code == 0
        assert out.startswith("Forgotten since 20")
        assert ANNE not in out

    def test_nothing_is_on_record(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        code, out, err = run("consent", BEN)
        assert (code, out) == (1, "")
        assert err == "No decision is on record of this person: nothing was sent, withheld, recorded or rejected.\n"

    def test_as_json(self, run, contacts):
        contacts(opt_in("anne", ANNE))
        found = run.json("consent", ANNE)
        assert [one["subscribed"] for one in found["consents"]] == [1]
        assert [(one["text"], one["ip"], one["status"]) for one in found["decisions"]] == [(TEXT, IP, "acknowledged")]
        assert found["decisions"][0]["acknowledged_at"][:4] >= "2026"


class TestEvidence:
    def test_of_one_person_as_json(self, run, contacts, tmp_path):
        contacts(opt_in("anne", ANNE), opt_in("ben", BEN))
        code, _, err = run("consent", ANNE, "--export", tmp_path / "anne.json")
        assert (code, err) == (0, f"{tmp_path}/anne.json: 1 decision.\n")
        file = json.loads((tmp_path / "anne.json").read_text())
        assert file["person"] == [ANNE]
        assert [(one["identifier"], one["subscribed"]) for one in file["consents"]] == [(ANNE, 1)]
        (decision,) = file["decisions"]
        assert (decision["ip"], decision["text"], decision["form"]) == (IP, TEXT, "signup_form")
        assert decision["given_at"] == "2026-11-01T08:00:00.000000Z"

    def test_is_readable_by_its_owner_alone_and_never_overwritten(self, run, contacts, tmp_path):
        contacts(opt_in("anne", ANNE))
        file = tmp_path / "anne.csv"
        run("consent", ANNE, "--export", file)
        assert file.stat().st_mode & 0o777 == 0o600
        before = file.read_bytes()
        code, _, err = run("consent", ANNE, "--export", file)
        assert code == 1
        assert "exists, and evidence is not overwritten. Choose another name." in err
        assert file.read_bytes() == before

    def test_of_a_period_as_csv(self, run, contacts, tmp_path):
        contacts(opt_in("anne", ANNE), opt_in("ben", BEN, sms_opt_in_text="Fine,\nby me"))
        hours_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        code, _, _ = run("consent", "--export", tmp_path / "all.csv", "--since", hours_ago)
        assert code == 0
        with (tmp_path / "all.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [(row["identifier"], row["subscribed"], row["text"]) for row in rows] == [
            (ANNE, "true", TEXT), (BEN, "true", "Fine,\nby me"),
        ]  # fmt: skip
        code, _, err = run("consent", "--export", tmp_path / "before.json", "--until", hours_ago)
        assert (code, err) == (1, f"{tmp_path}/before.json: 0 decisions.\n")
        assert json.loads((tmp_path / "before.json").read_text())["decisions"] == []

    def test_of_hashes_names_only_the_person_asked_for(self, run, contacts, tmp_path, monkeypatch):
        monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
        contacts(opt_in("anne", ANNE))
        run("consent", ANNE, "--export", tmp_path / "anne.json")
        assert json.loads((tmp_path / "anne.json").read_text())["decisions"][0]["identifier"] == ANNE
        run("consent", "--export", tmp_path / "all.json")
        assert ANNE not in (tmp_path / "all.json").read_text()

    def test_another_kind_of_file_is_refused(self, run, contacts, tmp_path):
        contacts(opt_in("anne", ANNE))
        code, _, err = run("consent", ANNE, "--export", tmp_path / "anne.xlsx")
        assert code == 1
        assert "writes JSON or CSV by the name of the file" in err
        assert not (tmp_path / "anne.xlsx").exists()


NAMES = {"customer_id": "user_id", "mobile": "phone", "mail": "email", "agreed": "sms_opt_in_at"}


@pytest.fixture
def synced(deliver, ledger_path, regal):
    """Sync rows whose columns have names of their own: Anne's has no time, Ben's phone is none, and Cleo said no."""
    rows = [
        {"customer_id": "C010", "mobile": ANNE, "mail": "anne@example.com", "sms_opt_in": True, "agreed": None},
        {"customer_id": "C011", "mobile": "555-ABCD", "mail": "ben@example.com", "sms_opt_in": True, "agreed": None},
        {"customer_id": "C012", "mobile": "2125550102", "mail": "", "sms_opt_in": False, "agreed": "2026-11-01"},
    ]
    ledger_path.parent.mkdir(exist_ok=True)
    with suppress(TooManyFailedRowsError):
        run_sync(
            rows, regal, "r", ledger_path, columns=NAMES, initial="send", require_ip=False, account="regal_default"
        )


class TestRejectedRows:
    @pytest.mark.parametrize("who", ["C010", "(212) 555-0100", "Anne@Example.com"])
    def test_of_a_person_without_any_decision_on_record_are_listed(self, run, synced, who):
        code, out, err = run("consent", who)
        assert (code, err) == (0, "")
        head, row = out.splitlines()
        assert head == "Rejected rows with a decision of this person:"
        assert row.endswith(": row 1, delivery 1 of dag.task: agreed: no timestamp: send the time the person agreed.")
        (line,) = run.json("consent", who)["rejected"]
        assert (line["position"], line["user_id"], line["phone"]) == (1, "C010", ANNE)

    def test_stand_below_what_is_on_record(self, run, synced, contacts):
        contacts(opt_in("C010", ANNE))
        out = run("consent", "C010")[1]
        assert out.startswith(f"{ANNE}, sms, account regal_default: opted in\n")
        assert "\n\nRejected rows with a decision of this person:\n  20" in out

    def test_of_contacts_are_those_that_had_a_decision(self, run, contacts):
        contacts({**opt_in("anne", ANNE), "email": "none@"}, {"user_id": "ben", "phone": BEN, "email": "none@"})
        assert "row 1, delivery 1: email: " in run("consent", "anne")[1]
        assert run("consent", "ben")[0] == 1

    def test_are_not_those_of_others(self, run, synced):
        assert "Rejected" not in run("consent", "C012")[1]

    def test_are_counted_where_a_delivery_is_listed(self, run, synced):
        code, out, err = run("consent", "--delivery", 1)
        assert (code, out) == (0, "")
        assert err == (
            "Delivery 1 withheld 0 decisions. It rejected 2 rows, in a sync also for missing evidence: airflow regal "
            "outcomes 1 --status rejected\n"
        )

    def test_are_listed_with_their_person(self, run, synced):
        _, anne, ben = run("outcomes", 1)[1].splitlines()
        assert f"C010     {ANNE}  anne@example.com" in anne
        assert "C011" in ben
        assert "ben@example.com" in ben

    @pytest.mark.parametrize("who", ["C010", "C011", "555-ABCD", "ben@example.com", "212 555 0100"])
    def test_are_found_by_any_identifier(self, run, synced, who):
        code, out, _ = run("find", who)
        assert code == 0
        assert out.count("rejected") == 1

    def test_are_found_by_a_value_that_is_in_the_row_alone(self, run, contacts):
        contacts({"user_id": "anne", "phone": ANNE, "email": "none@", "phones.work": "(212) 555-0150"})
        assert "found in phones.work" in run("find", "+12125550150")[1]
        assert "found in email" in run("find", "none@")[1]
        assert "found in" not in run("find", "anne")[1]


def test_the_decisions_that_a_delivery_withheld_are_listed(run, contacts):
    contacts(opt_in("anne", ANNE), {**opt_in("ben", BEN), "sms_opt_in_ip": None, "plan": "gold"})
    code, out, err = run("consent", "--delivery", 1)
    assert code == 0
    _, ben = out.splitlines()
    assert ben.startswith(f"{BEN}  sms")
    assert "opt-in    2026-11-01 08:00:00  2    no ip: send the person's address" in ben
    assert err == "Delivery 1 withheld 1 decision.\n"
    assert [one["reason"][:5] for one in run.json("consent", "--delivery", 1)] == ["no ip"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "name a person, --delivery N, or --export FILE"),
        ([ANNE, "--send"], "--send is for owed opt-outs"),
        ([ANNE, "--since", "2d"], "name a person, or a period or delivery, not both"),
        (["--delivery", "1", "--since", "2d"], "--since and --until are for --export"),
        (["owed", "--export", "f.csv"], "owed takes --send, --account and --json alone"),
    ],
)
def test_what_does_not_go_together_is_refused(run, capsys, arguments, fault):
    with pytest.raises(SystemExit) as stopped:
        run("consent", *arguments)
    assert stopped.value.code == 2
    assert fault in capsys.readouterr().err
