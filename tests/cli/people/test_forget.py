"""``forget``: a person is removed from the ledger's file, and an old table does not bring them back."""

from __future__ import annotations

import json

import pytest

from tests.ledger.view import LedgerView
from tests.ledger.written import line, write
from tests.ledger_file import consents, deliveries, everything, outcomes, table
from tests.people import SECRETS

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
DOWN = {"on": {"from": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}
PHONE, EMAIL = SECRETS["e164"], SECRETS["email"]
PERSON = {
    "user_id": SECRETS["id"], "phone": SECRETS["phone"], "email": EMAIL, "first_name": SECRETS["name"],
    "sms_opt_in": False, "sms_opt_in_at": "2026-11-01T08:00:00Z",
    "voice_opt_in": True, "voice_opt_in_at": "2026-11-02T08:00:00Z", "voice_opt_in_ip": SECRETS["ip"],
}  # fmt: skip
BEN = {"user_id": "ben", "phone": "+12125550101", "email": "ben@example.com"}
TEXTS = [text.encode() for text in (*SECRETS.values(), "2125550147", "555-0147")]


def table_of(person=PERSON):
    return [person, *({**BEN, "user_id": f"ben-{number}"} for number in range(30))]


@pytest.fixture
def remembered(deliver, ledger_path):
    """Let the person be in every table: acknowledged, refused, unmapped, and in a delivery that has stopped."""
    deliver(table_of(), call="identify", name="contacts", only_changed=True)
    deliver([{**PERSON, "message_id": f"m-{EMAIL}"}, BEN], name="events")
    deliver([{**PERSON, "amount": 1}, BEN], [REFUSE], name="refused")
    deliver([{**PERSON, "plan": {"x": [float("inf")] * 2}, "phone": SECRETS["phone"] + "0"}], name="invalid")
    deliver(table_of(), [DOWN], name="stopped", outage_patience=0.1)
    assert all(text in everything(ledger_path) for text in (PHONE.encode(), EMAIL.encode(), SECRETS["id"].encode()))


def test_no_byte_of_the_person_is_left_in_the_file(run, remembered, ledger_path):
    before = [(line["state"], line["read_rows"]) for line in deliveries(ledger_path)]
    code, out, err = run("forget", PHONE)
    assert (code, err) == (0, "")
    assert f"on record with what was given: {EMAIL}, user:{SECRETS['id']}" in out
    assert "Regal: ask Regal's support" in out
    held = everything(ledger_path)
    assert [text for text in TEXTS if text in held] == []
    assert [(line["state"], line["read_rows"]) for line in deliveries(ledger_path)] == before
    assert len(consents(ledger_path)) == 0
    assert {line["user_id"] for line in outcomes(ledger_path)} >= {"ben", None}
    assert run("find", PHONE)[1].startswith("Forgotten since ")


def test_an_old_table_does_not_bring_the_person_back(run, remembered, deliver, ledger_path, regal):
    run("forget", SECRETS["id"])
    before = len(regal.events())
    report = deliver(table_of(), call="identify", name="again", only_changed=True)
    assert report.skips["suppressed"] == 1
    deliver([{**PERSON, "first_name": b"x"}, PERSON], name="again, as events")
    deliver(table_of(), [DOWN], name="stopped again", outage_patience=0.1)
    assert all(SECRETS["id"] not in json.dumps(event["body"]) for event in regal.events()[before:])
    held = everything(ledger_path)
    assert [text for text in TEXTS if text in held] == []


def test_opt_outs_bar_again_and_are_sent_when_the_person_may_come_back(run, remembered, deliver, ledger_path, regal):
    run("forget", PHONE)
    code, out, err = run("suppress", "remove", PHONE, EMAIL, f"user:{SECRETS['id']}")
    assert (code, out) == (0, "Account regal_default: read 1 phone, 1 email, 1 user id; 3 removed.\n")
    assert "1 opt-out from before 3 were forgotten block older opt-ins again" in err
    older = {**PERSON, "sms_opt_in": True, "sms_opt_in_at": "2026-10-31T08:00:00Z", "sms_opt_in_ip": SECRETS["ip"]}
    regal.reset()
    report = deliver([older], call="identify", name="later")
    assert (report.acknowledged, report.opt_ins_withheld, report.owed_sent) == (1, 1, 1)
    assert regal.contact(phone=PHONE)["phones"][PHONE]["sms"]["status"] == "Unsubscribed"


def test_a_dry_run_shows_the_same_and_removes_nothing(run, remembered, ledger_path):
    before = {name: table(ledger_path, name, order="1, 2, 3") for name in ("regal_consents", "regal_outcomes")}
    looked = run.json("forget", EMAIL, "--dry-run")
    assert {name: table(ledger_path, name, order="1, 2, 3") for name in before} == before
    assert table(ledger_path, "regal_suppressions") == []
    forgotten = run.json("forget", EMAIL)
    assert (looked.pop("dry_run"), forgotten.pop("dry_run")) == (True, False)
    assert looked == forgotten
    (account,) = forgotten["accounts"].values()
    assert account["linked"] == [PHONE, f"user:{SECRETS['id']}"]
    assert (account["opt_outs_kept"], account["opt_outs_owed"]) == (1, 0)
    assert {name: count for name, count in account["removed"].items() if not count} == {"regal_suppressions": 0}
    assert "Dry run: nothing was removed." in run("forget", EMAIL, "--dry-run")[1]


def test_an_opt_out_that_regal_lacks_is_in_the_way(run, deliver, ledger_path):
    deliver([PERSON], [REFUSE], call="identify")
    code, out, err = run("forget", PHONE)
    assert (code, out) == (1, "")
    assert "Regal has not acknowledged 1 opt-out of this person, and forgetting would lose it" in err
    assert "airflow regal consent owed --send" in err
    assert consents(ledger_path)
    assert run("forget", PHONE, "--dry-run")[0] == 0
    assert run("forget", PHONE, "--lose-owed")[0] == 0
    assert consents(ledger_path) == {}


def test_a_delivery_that_runs_is_named(run, home, ledger_path):
    number = write(ledger_path, rows=[{"phone": PHONE}], state=None, hold_s=100_000_000)
    code, out, err = run("forget", PHONE)
    assert (code, out) == (1, "")
    assert f"Deliveries that run may have rows of this person: {number} (dag.task)" in err
    assert [one["kind"] for one in table(ledger_path, "regal_suppressions")] == ["forgotten"]


def test_every_account_is_searched_unless_one_is_named(run, home, ledger_path):
    for account in ("acme", "zenith"):
        write(ledger_path, account=account, api_key=account, lines=[line(1, phone=PHONE)])
    assert list(run.json("forget", PHONE, "--dry-run")["accounts"]) == ["acme", "zenith"]
    assert list(run.json("forget", PHONE, "--account", "zenith")["accounts"]) == ["zenith"]
    assert [one["phone"] for one in outcomes(ledger_path)] == [PHONE, None]


def test_who_is_not_on_record_is_kept_from_it(run, home, ledger_path):
    assert "The ledger is empty: name the account" in run("forget", PHONE)[2]
    write(ledger_path)
    code, out, _ = run("forget", PHONE)
    assert code == 0
    assert "nothing is on record" in out
    assert [one["kind"] for one in table(ledger_path, "regal_suppressions")] == ["forgotten"]


def test_with_a_ledger_key(run, deliver, ledger_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
    deliver(table_of(), call="identify", name="contacts")
    deliver(table_of(), [DOWN], name="stopped", outage_patience=0.1)
    code, out, _ = run("forget", PHONE)
    assert code == 0
    assert "opt-ins that were sent for a user id without a phone" in out
    held = everything(ledger_path)
    assert [text for text in TEXTS if text in held] == []
    assert [row for _, row in LedgerView(ledger_path).rows_of_all() if "$skip" in row] == [{"$skip": "suppressed"}]
    assert deliver(table_of(), call="identify", name="again").skips == {"suppressed": 1}
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_KEY")
    assert "was written with another [regal] ledger_key" in run("forget", PHONE)[2]


def test_digits_alone_are_read_as_a_phone_where_they_are_one(run, home, ledger_path):
    write(ledger_path, lines=[line(1, user_id="2125550147"), line(2, phone=PHONE)])
    assert "if it is a user id, write user:2125550147" in run("forget", "2125550147", "--dry-run")[2]
    run("forget", "user:2125550147")
    assert [(one["user_id"], one["phone"]) for one in outcomes(ledger_path)] == [(None, None), (None, PHONE)]


def test_two_people_with_one_phone_are_told_apart(run, home, ledger_path):
    write(ledger_path, lines=[line(1, user_id="u1", phone=PHONE), line(2, user_id="u2", phone=PHONE)])
    code, _, err = run("forget", PHONE)
    assert code == 1
    assert "has 2 user ids on record with it (u1, u2)" in err
    assert LedgerView(ledger_path).query("SELECT count(*) FROM regal_suppressions")[0][0] == 0
