"""The ledger options, with every way to deliver many rows: a second run with and without each."""

from __future__ import annotations

import itertools

import pytest

from tests.ledger_file import deliveries, remembered
from tests.operators.ways import WAYS, context

PEOPLE = [{"user_id": f"u{number}", "plan": number} for number in range(3)]
BOOKED = [{"user_id": f"u{number}", "message_id": f"m{number}"} for number in range(3)]
TRACK = {"call": "track", "event": "Lesson Booked"}
CONTACTS = {"call": "identify", "max_rejected": 10}


@pytest.fixture
def deliver(regal, tmp_path, monkeypatch):
    """Deliver rows as a run of its own; gives how many requests that took, and the report."""
    runs = itertools.count(1)
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(rate_limit=5_000))
    warehouse = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f'{{"conn_type": "sqlite", "host": "{warehouse}"}}')

    def run(way, rows, **options):
        here = context(run_id=f"r{next(runs)}")
        before = regal.stats()["requests"]
        WAYS[way](rows, here, warehouse=warehouse, **options)
        return regal.stats()["requests"] - before, here["ti"].report

    return run


@pytest.mark.parametrize("way", WAYS)
def test_only_changed_leaves_out_the_contacts_that_are_as_they_were(way, deliver):
    options = {**CONTACTS, "only_changed": True}
    assert deliver(way, PEOPLE, **options)[0] == 3
    assert deliver(way, PEOPLE, **options)[0] == 0
    requests, report = deliver(way, [*PEOPLE[:2], {"user_id": "u2", "plan": 9}], **options)
    assert (requests, report["skips"]) == (1, {"unchanged": 2})
    assert deliver(way, PEOPLE, **CONTACTS)[0] == 3, "without the option"


@pytest.mark.parametrize("way", WAYS)
def test_the_key_says_by_what_a_contact_is_known_again(way, deliver):
    rows = [{"user_id": "anne", "brand": brand} for brand in ("piano", "maths")]
    options = {**CONTACTS, "only_changed": True}
    assert deliver(way, rows, **options)[1]["rejected"] == 2, "without the option they are one contact twice"
    assert deliver(way, rows, **options, key=["user_id", "brand"])[1]["acknowledged"] == 2
    assert deliver(way, rows, **options, key=["user_id", "brand"])[1]["skips"] == {"unchanged": 2}


@pytest.mark.parametrize("way", WAYS)
def test_a_message_id_is_sent_once_whatever_the_run_and_another_ledger_knows_nothing_of_it(
    way, deliver, ledger, regal_ledger
):
    assert deliver(way, BOOKED, **TRACK, ledger_conn_id="ledger")[0] == 3
    requests, report = deliver(way, BOOKED, **TRACK, ledger_conn_id="ledger")
    assert (requests, report["skipped"], report["skips"]) == (0, 3, {"duplicate": 3})
    assert not regal_ledger.exists()
    assert deliver(way, BOOKED, **TRACK)[0] == 3, "without the option"
    assert deliver(way, BOOKED, **TRACK)[0] == 0
    assert [line["message_id"] for line in remembered(ledger)["regal_messages"]] == ["m0", "m1", "m2"]


@pytest.mark.parametrize("way", WAYS)
def test_contacts_are_remembered_where_the_connection_says(way, deliver, ledger, regal_ledger):
    options = {**CONTACTS, "only_changed": True}
    assert deliver(way, PEOPLE, **options, ledger_conn_id="ledger")[0] == 3
    assert [line["contact"] for line in remembered(ledger)["regal_contacts"]] == ["u0", "u1", "u2"]
    assert not regal_ledger.exists()
    assert deliver(way, PEOPLE, **options)[0] == 3, "the ledger of the configuration knows nothing of it"
    assert len(remembered(regal_ledger)["regal_contacts"]) == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_dry_run_remembers_nothing(way, deliver, regal_ledger):
    options = {**CONTACTS, "only_changed": True}
    requests, report = deliver(way, PEOPLE, **options, dry_run=True)
    assert (requests, report["status"], report["delivery"]) == (0, "dry_run", None)
    assert deliveries(regal_ledger) == []
    assert not any(remembered(regal_ledger).values())
    assert deliver(way, PEOPLE, **options)[0] == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**CONTACTS, "key": "user_id"}, "key requires only_changed=True"),
        ({**TRACK, "only_changed": True}, "only_changed is for identify"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(way, options, said, deliver):
    with pytest.raises(ValueError, match=said):
        deliver(way, PEOPLE, **options)
