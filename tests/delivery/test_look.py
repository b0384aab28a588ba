"""A look at one row: how a delivery would treat it, among others and alone; nothing is sent or stored."""

from __future__ import annotations

from contextlib import closing

import pytest

from airflow_provider_regal.delivery.look import look_at
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.hooks._ledger import open_account
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.states import Skip
from tests.delivery.consents import row
from tests.ledger_file import remembered


@pytest.fixture
def look(regal):
    """Look at a row."""

    def run(rows, number=1, *, alone=False, **options):
        hook = RegalHook()
        settings = DeliverySettings.of(**{"call": "identify", **options})
        account = open_account(hook.target)
        with closing(account.database):
            return look_at(rows, number, settings, target=hook.target, account=account, alone=alone)

    return run


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": f"(212) 555-{number:04d}", **more}


def test_a_contact_that_did_not_change_since_it_was_acknowledged(look, regal, regal_ledger):
    RegalHook().deliver([contact(100)], call="identify", only_changed=True)
    before = remembered(regal_ledger)
    assert look([contact(100)], only_changed=True).skip == Skip.UNCHANGED
    assert look([contact(100, plan="gold")], only_changed=True).events[0].payload.body["traits"]["plan"] == "gold"
    assert look([contact(100)]).events
    assert remembered(regal_ledger) == before
    assert regal.stats()["requests"] == 1


def test_a_row_whose_key_another_row_has_is_rejected_but_not_alone(look):
    rows = [contact(100), contact(101), contact(100, plan="gold")]
    seen = look(rows, only_changed=True)
    assert "is in more than one row" in str(seen.rejected.faults)
    assert (seen.read, look(rows, only_changed=True, alone=True).rejected) == (3, None)


def test_a_shared_phone_where_that_is_rejected(look):
    rows = [contact(100), {**contact(100), "user_id": "other"}]
    assert "Regal would merge them" in str(look(rows, 2, on_shared="reject").rejected.faults)
    assert look(rows, 2).rejected is None


@pytest.mark.parametrize("subscribed", [True, False])
def test_a_row_of_a_sync_leaves_the_ledger_as_it_is(look, regal_ledger, subscribed):
    RegalHook().deliver([contact(100)], call="identify")
    before = remembered(regal_ledger)
    given = row(100, subscribed, 5, timestamp="2026-03-02T14:05:09Z")
    seen = look([given], sync=SyncSettings(initial="send"))
    assert [one.subscribed for one in seen.events[0].payload.consents] == [subscribed]
    assert remembered(regal_ledger) == before


def test_a_source_is_read_no_further_than_the_row_needs(look):
    def rows(*given):
        yield from given
        raise RuntimeError("read too far")

    assert look(rows(contact(100), contact(101)), 2).read == 2
    with pytest.raises(RuntimeError):
        look(rows(contact(100, sms_opt_in=False)))
    assert look(rows(contact(100, sms_opt_in=False)), alone=True).read == 1


def test_a_type_that_differs_from_the_first_that_was_sent(look):
    RegalHook().deliver([contact(100, visits=3)], call="identify")
    assert "visits" in str(look([contact(101, visits="three")]).rejected.faults)


def test_a_guard_of_the_whole_does_not_stop_a_look(look):
    assert look([contact(100)], min_rows=100, volume=(0.5, 2.0)).events


def test_there_is_no_such_row(look):
    for limit in (None, 1):
        with pytest.raises(FixSourceError, match="There is no row 3: the source has"):
            look([contact(100), contact(101)], 3, limit=limit)
