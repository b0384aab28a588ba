"""What ``make ui`` restores from an earlier ``make demo``: the local Regal that the ledger describes."""

from __future__ import annotations

import pytest

from airflow_provider_regal.testing import Sandbox
from scripts import local


@pytest.fixture
def received(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "RECEIVED", tmp_path / "received.jsonl")
    monkeypatch.setattr(local, "LEDGER", tmp_path / "regal" / "ledger.db")
    return tmp_path / "received.jsonl"


def sandbox(**options):
    return Sandbox(api_key=local.KEY, **options)


def contact(number, **traits):
    return {"userId": f"u{number}", "traits": {"phones": {f"+1212555{100 + number:04d}": traits}}}


def test_a_new_local_regal_gets_what_the_earlier_one_had(received):
    import requests

    def send(regal, body):
        return requests.post(f"{regal.url}/events", json=body, headers={"Authorization": local.KEY}, timeout=5)

    with sandbox() as before:
        for number in range(30):
            assert send(before, contact(number, primary=True)).ok
        assert send(before, {"userId": "u1", "event": "Lesson Booked", "properties": {"subject": "Español"}}).ok
        before.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])
        assert send(before, {"userId": "u2", "event": "Refused"}).status_code == 400
        local.keep_received(local.Regal(before.url, 300))
        had = [event["body"] for event in before.events(stored=True)]

    with sandbox(rate_limit=20) as after:
        assert local.send_again(local.Regal(after.url, 300)) == len(had) == 31
        assert [event["body"] for event in after.events(stored=True)] == had
        assert {one["user_id"] for one in after.contacts()} == {f"u{number}" for number in range(30)}


def test_a_new_demo_forgets_both(received):
    local.LEDGER.parent.mkdir()
    local.LEDGER.touch()
    received.touch()
    local.forget_ledger()
    local.forget_ledger()
    assert not received.exists()
    assert not local.LEDGER.exists()
