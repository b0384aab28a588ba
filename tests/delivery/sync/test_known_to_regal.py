"""Regal's own data: it is recorded, nothing is sent, and nothing older is sent after it."""

from __future__ import annotations

import pytest

from airflow_provider_regal.delivery.settings import SyncSettings
from airflow_provider_regal.errors import FixSourceError, RetryLaterError, TooManyFailedRowsError
from tests.delivery.consents import IP, NOW, adds_up, at, kinds, no, phone, told, yes

KNOWN = {"known_to_regal": True}


@pytest.fixture
def of_regal(sync):
    """Read rows of Regal's."""

    def run(rows, **options):
        return sync(rows, initial=None, sync=KNOWN | options.pop("sync", {}), task="dag.of regal", **options)

    return run


def stop(number, minute=8, **more):
    """What the webhook says of somebody who has replied STOP."""
    return {"phone": phone(number), "channel": "sms", "subscribed": False, "timestamp": at(minute), **more}


def contact(number, minute):
    said = {"sms_opt_in": True, "sms_opt_in_at": at(minute), "sms_opt_in_ip": IP}
    return {"user_id": f"u{number}", "phone": phone(number), **said}


def test_it_is_recorded_and_not_sent(of_regal, regal_sandbox, ledger):
    report = of_regal([stop(1), stop(2, 9)])
    assert (report.read, report.skips, report.requests, report.opt_outs_owed) == (2, {"recorded": 2}, 0, 0)
    assert adds_up(report)
    assert kinds(report) == {"recorded": 2}
    assert regal_sandbox.stats()["requests"] == 0
    assert {key: entry[0] for (key, _), entry in ledger.consents().items()} == {phone(1): 0, phone(2): 0}
    ((acknowledged_at,), _) = ledger.query("SELECT acknowledged_at FROM regal_consents")
    assert acknowledged_at is None, "Regal has acknowledged nothing"
    assert of_regal([stop(1), stop(2, 9)]).skips == {"unchanged": 2}


def test_what_regal_says_is_in_the_consent_log_once(of_regal, ledger):
    of_regal([stop(1, ip=IP, text="STOP"), stop(2, 9)])
    of_regal([stop(1, ip=IP, text="STOP"), stop(2, 9)], of_run="again")
    lines = ledger.consent_log()
    assert [(line.identifier, line.subscribed, line.status, line.text, line.position) for line in lines] == [
        (phone(1), False, "recorded", "STOP", 1), (phone(2), False, "recorded", None, 2),
    ]  # fmt: skip
    assert {line.reason for line in lines} == {"Regal's own data says so"}
    assert {line.task for line in lines} == {"dag.of regal"}
    assert {line.acknowledged_at for line in lines} == {None}


def test_no_older_yes_of_a_sync_or_a_contact_revives_it(of_regal, sync, deliver, regal_sandbox):
    sync([yes(3)])
    of_regal([stop(1), stop(2)])
    assert sync([yes(1, 5), yes(3)]).skips == {"older": 1, "unchanged": 1}
    assert deliver([contact(2, 5)], call="identify", of_run="contacts", now=NOW).opt_ins_withheld == 1
    assert sync([yes(1, 5), yes(3)], sync={"full_resync": True}).skips == {"older": 1}
    assert [said for said in told(regal_sandbox) if said[0] != "u3"] == []


def test_a_newer_yes_does(of_regal, sync, regal_sandbox):
    sync([yes(3)])
    of_regal([stop(1)])
    assert sync([yes(1, 9), yes(3)]).acknowledged == 1
    assert told(regal_sandbox)[-1] == ("u1", "sms", True)


def test_an_older_opt_out_of_regal_changes_nothing(of_regal, sync, ledger):
    sync([yes(1, 9)])
    assert of_regal([stop(1, 8)]).skips == {"older": 1}
    assert ledger.consents()[phone(1), "sms"][0] == 1


def test_a_yes_of_regal_needs_its_time_and_no_address(of_regal, sync, ledger):
    sync([yes(3)])
    rows = [{"phone": phone(1), "channel": "sms", "subscribed": True, "timestamp": at(8)}]
    assert of_regal(rows).skips == {"recorded": 1}
    assert ledger.consents()[phone(1), "sms"][:2] == (1, "2026-11-23T02:08:00.000000Z")
    assert sync([no(1, 7), yes(3)]).skips == {"older": 1, "unchanged": 1}
    with pytest.raises(TooManyFailedRowsError, match="timestamp"):
        of_regal([{"phone": phone(2), "channel": "sms", "subscribed": True}])


def test_an_opt_out_that_was_owed_is_owed_no_more(of_regal, sync, deliver, regal_sandbox, ledger):
    sync([yes(1)])
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}])
    with pytest.raises(RetryLaterError):
        sync([no(1, 6)], outage_patience=0.1)
    regal_sandbox.set_faults([])
    report = of_regal([stop(2)])
    assert (report.owed_sent, report.opt_outs_owed, report.requests) == (0, 1, 0), "it sends nothing of others, either"
    assert of_regal([stop(1, 8), stop(2)]).opt_outs_owed == 0
    assert deliver([{"user_id": "u9"}], call="identify", of_run="c", now=NOW).owed_sent == 0


def test_it_is_not_the_first_run_of_the_account(of_regal, sync):
    of_regal([stop(1)])
    with pytest.raises(FixSourceError, match="initial="):
        sync([yes(2)], initial=None)


def test_the_guards_hold_for_what_is_no_opt_out(of_regal, sync, regal_sandbox, ledger):
    sync([no(number) for number in range(30)])
    turned = [
        {"phone": phone(number), "channel": "sms", "subscribed": True, "timestamp": at(8)} for number in range(20)
    ]
    with pytest.raises(FixSourceError, match=r"20 of 30 .* Only opt-outs were recorded\."):
        of_regal([*turned, stop(40)])
    assert ledger.consents()[phone(1), "sms"][0] == 0
    assert ledger.consents()[phone(40), "sms"][0] == 0
    assert regal_sandbox.stats()["requests"] == 30


def test_a_dry_run_records_nothing(of_regal, ledger):
    report = of_regal([stop(1)], dry_run=True)
    assert report.skips == {"recorded": 1}
    assert ledger.consents() == {}


@pytest.mark.parametrize(
    "odd", [{"initial": "send"}, {"as_event": "Consent"}, {"on_removed": "opt_out"}, {"full_resync": True}]
)
def test_what_sends_something_does_not_go_with_it(odd):
    with pytest.raises(ValueError, match=f"{next(iter(odd))}: not with known_to_regal, which sends nothing"):
        SyncSettings(known_to_regal=True, **odd)
