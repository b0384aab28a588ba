"""Entries are read and locked, decided on in turn, and written as a whole, in every database."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_regal.ledger.entries import CONSENTS, MESSAGES, batches
from airflow_provider_regal.ledger.rules import Entry
from tests.ledger.accounts import at

SENDING = Entry(state="sending", delivery="1", changed_at=at(1))
KNOWN = SENDING._replace(
    state="acknowledged", acknowledged_at=at(2), subscribed=1, evidence_at=at(1), source="dag.task"
)


@pytest.fixture
def database(accounts):
    return accounts().database


def change(database, items, decide, *, of=CONSENTS, account="acme"):
    database.write(lambda connection: of.change(connection, account, items, decide))


def put(database, **entries):
    change(database, [((key, "sms"), entry) for key, entry in entries.items()], lambda before, entry: entry)


def read(database, *keys, channel="sms", account="acme"):
    wanted = [(key, channel) for key in keys]
    found = database.read(lambda connection: CONSENTS.read(connection, account, wanted))
    return {key: entry for (key, _), entry in found.items()}


def test_entries_are_added_changed_and_removed_in_one_go(database):
    put(database, a=SENDING, b=SENDING, c=KNOWN)
    wanted = {"a": KNOWN, "b": None, "c": KNOWN, "d": SENDING, "e": None}
    change(database, [((key, "sms"), entry) for key, entry in wanted.items()], lambda before, entry: entry)
    assert read(database, *wanted) == {"a": KNOWN, "c": KNOWN, "d": SENDING}


def test_an_item_sees_what_those_before_it_of_its_key_made(database):
    seen = []

    def decide(before, entry):
        seen.append(before)
        return entry

    change(database, [(("a", "sms"), SENDING), (("a", "sms"), None), (("a", "sms"), KNOWN)], decide)
    assert seen == [None, SENDING, None]
    assert read(database, "a") == {"a": KNOWN}


def test_columns_that_stay_as_they_are_are_left_alone(database):
    put(database, a=KNOWN, b=KNOWN._replace(opt_out_at=at(9)))
    put(database, a=KNOWN._replace(row_hash="r"), b=KNOWN._replace(opt_out_at=at(9), source=None))
    assert read(database, "a", "b") == {
        "a": KNOWN._replace(row_hash="r"),
        "b": KNOWN._replace(opt_out_at=at(9), source=None),
    }


def test_channels_accounts_and_tables_are_apart(database):
    put(database, a=KNOWN)
    assert read(database, "a", channel="voice") == read(database, "a", account="other") == {}
    change(database, [(("a",), SENDING)], lambda before, entry: entry if before is None else KNOWN, of=MESSAGES)
    found = database.read(lambda connection: MESSAGES.read(connection, "acme", [("a",), ("b",)]))
    assert found == {("a",): SENDING}


def test_thousands_at_once(database):
    many = {f"key-{number:05d}": KNOWN for number in range(2_500)}
    put(database, **many)
    put(database, **dict.fromkeys(many, SENDING))
    assert read(database, *many, "another") == dict.fromkeys(many, SENDING)


def test_nothing_is_asked_for_nothing(database):
    change(database, [], lambda before, entry: entry)
    assert read(database) == {}


def test_whoever_decides_second_sees_what_the_first_wrote(accounts):
    """Both lock the entry before they look."""
    first, second = accounts().database, accounts("2").database
    put(first, a=SENDING)
    deciding, seen = threading.Event(), []

    def slowly(before, entry):
        deciding.set()
        threading.Event().wait(0.5)
        return entry

    def look(before, entry):
        seen.append(before)
        return entry

    thread = threading.Thread(target=change, args=(first, [(("a", "sms"), KNOWN)], slowly))
    thread.start()
    deciding.wait(10)
    change(second, [(("a", "sms"), KNOWN)], look)
    thread.join()
    assert seen[-1] == KNOWN


def test_batches_end_with_what_is_left():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []
