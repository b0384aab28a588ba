"""``find``."""

from __future__ import annotations

import pytest

from airflow_provider_regal.ledger.people.identifiers import Identifiers
from tests.cli.conftest import track_rows
from tests.ledger.written import line, write

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
CONSENT = {"sms_opt_in": True, "sms_opt_in_at": "2026-11-01T10:00:00Z", "sms_opt_in_ip": "203.0.113.9"}


def test_a_person_has_one_timeline(run, deliver):
    contacts = deliver(track_rows(100, 101, email="anne@example.com", **CONSENT), call="identify", name="contacts")
    lessons = deliver(track_rows(100, 101), [REFUSE], name="lessons")

    code, out, err = run("find", "(212) 555-0100")

    assert (code, err) == (0, "")
    now, timeline = out.split("Timeline (UTC)")
    assert "+12125550100  sms      opted in since 2026-11-01 10:00:00, acknowledged " in now
    lines = [one.strip() for one in timeline.splitlines()]
    assert any(f"identify               acknowledged  {contacts.delivery}, row 1" in one for one in lines)
    assert any("sms opt-in" in one and "acknowledged" in one and "ip 203.0.113.9" in one for one in lines)
    assert any(f"track 'Lesson Booked'  rejected      {lessons.delivery}, row 1" in one for one in lines)
    assert "These rows also name u100, anne@example.com" in out
    assert "0101" not in out


def test_rows_that_are_still_to_be_sent_are_shown(run, ledger_path, home):
    number = write(ledger_path, rows=[{"user_id": "bob"}, {"user_id": "anne"}], state="stopped")
    code, out, _ = run("find", "anne")
    assert code == 0
    assert "Not sent yet" in out
    assert f"{number}, row 2 not sent yet stopped dag.task user_id" in [
        " ".join(one.split()) for one in out.splitlines()
    ]


def test_json_has_everything(run, ledger_path, home):
    number = write(ledger_path, lines=[line(1, user_id="anne")])
    write(ledger_path, run="b", rows=[{"user_id": "anne"}], state="stopped")
    told = run.json("find", "anne")
    assert [(one["delivery"], one["position"], one["task"]) for one in told["outcomes"]] == [(number, 1, "dag.task")]
    assert [one["position"] for one in told["unsent"]] == [1]
    assert (told["scanned_rows"], told["scanned_all"]) == (1, True)


def test_nothing_on_record_is_exit_code_1_and_says_what_was_looked_for(run, deliver):
    deliver(track_rows(100))
    code, out, err = run("find", "2125550199", "a@b.co")
    assert (code, out) == (1, "")
    assert err == "Nothing is on record (phone +12125550199, email a@b.co, user id 2125550199, user id a@b.co).\n"


def test_a_search_that_was_cut_short_says_so(run, ledger_path, home):
    write(ledger_path, rows=[{"user_id": f"u{number}"} for number in range(9)], state="stopped")
    assert (
        "only 3 rows that are kept as their source wrote them were read: raise --scan-rows"
        in run("find", "u0", "--scan-rows", 4)[2]
    )
    for name in "abc":
        write(ledger_path, run=name, lines=[line(1, user_id="u0")])
    assert "only the newest 2 rows and decisions are shown (--limit)" in run("find", "u0", "--limit", 2)[2]


def test_hashed_identifiers_are_found_with_the_key_only(run, ledger_path, home, monkeypatch):
    secret = b"a secret"
    write(ledger_path, lines=[line(1, user_id=Identifiers(secret).stored("anne"))], secret=secret)
    code, _, err = run("find", "anne")
    assert code == 1
    assert "account 'acme' was written with another [regal] ledger_key, or without one" in err
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
    code, out, err = run("find", "anne")
    assert (code, err) == (0, "")
    assert "track 'Lesson Booked'  acknowledged" in out


@pytest.mark.parametrize("account", ["acme", "zenith"])
def test_accounts_can_be_told_apart(run, ledger_path, home, account):
    write(ledger_path, lines=[line(1, user_id="anne")])
    write(ledger_path, lines=[line(1, user_id="anne")], account="zenith", api_key="another")
    assert {one["account"] for one in run.json("find", "anne")["outcomes"]} == {"acme", "zenith"}
    assert {one["account"] for one in run.json("find", "anne", "--account", account)["outcomes"]} == {account}
