"""``consent owed``, and what ``check`` reports about it."""

from __future__ import annotations

import json

import pytest

from tests.ledger.view import LedgerView

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
ANNE, BEN = "+12125550100", "+12125550101"
OPT_OUTS = [
    {"user_id": "anne", "phone": ANNE, "sms_opt_in": False, "sms_opt_in_at": "2026-11-01T08:00:00Z", "plan": "gold"},
    {"user_id": "ben", "phone": BEN, "voice_opt_in": False, "voice_opt_in_at": "2026-11-02T08:00:00Z"},
]


@pytest.fixture
def owing(deliver):
    """Let two opt-outs be refused; returns the delivery that read them."""
    return deliver(OPT_OUTS, [REFUSE], call="identify").delivery


def test_they_are_listed_with_who_read_them_and_since_when(run, owing):
    code, out, err = run("consent", "owed")
    assert code == 0
    titles, anne, ben = [line.split() for line in out.splitlines()]
    assert titles[:2] == ["FOR", "CHANNEL"]
    assert anne[:4] == [ANNE, "sms", "2026-11-01", "08:00:00"]
    assert ben[:2] == [BEN, "voice"]
    assert "delivery " + str(owing) in " ".join(anne)
    assert "Regal lacks 2 opt-outs. The next delivery of contacts sends them first" in err


def test_as_json(run, owing):
    anne, _ = run.json("consent", "owed")
    assert anne.pop("owed_since") > "2026"
    assert anne == {
        "account": "regal_default", "identifier": ANNE, "channel": "sms", "opted_out_at": "2026-11-01T08:00:00.000000Z",
        "task": None, "delivery": owing,
    }  # fmt: skip
    assert run.json("consent", "owed", "--account", "another") == []


def test_they_are_sent_and_nothing_else(run, owing, regal):
    before = len(regal.events(stored=True))
    code, out, _ = run("consent", "owed", "--send")
    assert (code, out) == (0, f"Delivery {owing + 1}: Regal acknowledged 2 opt-outs; 0 still owed.\n")
    sent = [event["body"] for event in regal.events(stored=True)[before:]]
    assert [list(body["traits"]["phones"]) for body in sent] == [[ANNE], [BEN]]
    assert all("userId" not in body for body in sent)
    said = "Regal has acknowledged every opt-out that could be sent; nothing was sent.\n"
    assert run("consent", "owed", "--send")[:2] == (0, said)


def test_what_regal_refuses_again_is_said(run, owing, regal):
    regal.set_faults([REFUSE])
    code, out, _ = run("consent", "owed", "--send", "--json")
    assert (code, json.loads(out)) == (1, {"delivery": owing + 1, "sent": 0, "owed": 2})
    assert "HTTP 400" in run("outcomes", owing + 1)[1]


def test_none_is_owed(run, deliver):
    deliver([{"user_id": "anne"}], call="identify")
    code, out, err = run("consent", "owed")
    assert (code, out, err) == (0, "", "Regal has acknowledged every opt-out that could be sent.\n")


def test_of_hashes_it_is_said_what_to_do(run, deliver, monkeypatch, ledger_path):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", "a secret")
    deliver(OPT_OUTS, [REFUSE], call="identify")
    code, out, err = run("consent", "owed")
    assert code == 0
    assert len(out.splitlines()) == 3
    assert ANNE not in out
    assert "clear the tasks that read them" in err
    code, out, err = run("consent", "owed", "--send")
    assert (code, out) == (1, "")
    assert "clear the tasks that read them" in err


def test_another_account_than_the_connections_is_refused(run, owing):
    code, out, err = run("consent", "owed", "--send", "--account", "another")
    assert (code, out) == (1, "")
    assert "is of account 'regal_default', not 'another'" in err


def test_check_tells_of_them(run, owing, ledger_path):
    LedgerView(ledger_path).change("UPDATE regal_consents SET owed_since = '2026-01-01T00:00:00.000000Z'")
    found = next(line for line in run("check")[1].splitlines() if line[9:13] == "owed")
    assert found.startswith("warning")
    assert "Regal has not acknowledged 2 opt-outs that were read, the oldest " in found
    assert "airflow regal consent owed --send" in found
    run("consent", "owed", "--send")
    found = next(line for line in run("check")[1].splitlines() if line[9:13] == "owed")
    assert found.startswith("ok")
