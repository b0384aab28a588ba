"""Many keys of an account are looked up at once, in every database."""

from __future__ import annotations

import pytest

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.lookup import Lookup

PHONES = Lookup(schema.contact_phones, ("user_id", "phone"), "user_id")
USERS = Lookup(schema.contact_phones, ("user_id", "phone"), "phone")
# More than an IN holds, and what JSON, arrays and LIKE treat specially.
MANY = [*(f"contact {number}" for number in range(1_200)), 'a "quoted" key', "{comma,brace}", "100%_", "NULL", "ñ é 漢"]


@pytest.fixture
def account(accounts):
    account = accounts()
    pairs = [(key, f"+1212{number:07}") for number, key in enumerate(MANY)]
    account.keep_phones(pairs)
    return account


def rows(account, lookup, keys, *, of="acme"):
    return account.database.read(lambda connection: lookup.rows(connection, of, keys))


def test_every_key_is_found_whatever_it_contains(account):
    found = rows(account, PHONES, MANY)
    assert {tuple(row) for row in found} == {(key, f"+1212{number:07}") for number, key in enumerate(MANY)}
    assert len(found) == len(MANY)


def test_a_key_may_have_several_rows_and_no_key_finds_what_is_not_its_own(account):
    account.keep_phones([("contact 1", "+12125559999"), ("contact 2", "+12125559999")])
    assert len(rows(account, PHONES, ["contact 1", "contact 3", "nobody"])) == 3
    assert sorted(user for user, _ in rows(account, USERS, {"+12125559999"})) == ["contact 1", "contact 2"]
    assert rows(account, PHONES, ["contact", "contact 1%", "Contact 1"]) == []


def test_another_account_has_rows_of_its_own(account):
    assert rows(account, PHONES, MANY, of="other") == []
    assert rows(account, PHONES, ()) == []
