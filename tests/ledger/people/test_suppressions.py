"""Suppressed and forgotten people, in real databases."""

from __future__ import annotations

from contextlib import closing

import pytest

from airflow_provider_regal.errors import WrongLedgerError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.people.suppressions import (
    Suppressions,
    find_suppressions,
    leave_hashes,
    list_suppressions,
    read_identifier,
    suppress,
    unsuppress,
)
from tests.databases import EVERY, on
from tests.ledger.accounts import ManualClock, at
from tests.ledger.view import open_database

PHONE, OTHER, EMAIL, USER = "+12125550100", "+12125550101", "anne@example.com", "user:u1"


@pytest.fixture
def opened(database_url):
    with closing(open_database(database_url)) as database:
        yield database


def account(database, name="acme", **options):
    return Account(database, account=name, source="dag.task", **options)


def forget(acme, opt_outs):
    acme.database.write(lambda connection: leave_hashes(connection, acme, opt_outs, by="root"))


def held(acme, *people):
    """Whether each of these is held back, and for good: None, ``suppressed`` or ``forgotten``."""
    found = Suppressions(acme).find(people)
    return [None if hold is None else "forgotten" if hold.is_forgotten else "suppressed" for hold in found]


@on(EVERY)
@pytest.mark.parametrize("secret", [None, b"pepper"])
def test_a_person_is_found_by_any_identifier(opened, secret):
    acme = account(opened, secret=secret)
    assert suppress(acme, [PHONE, EMAIL, USER, PHONE]) == 3
    assert suppress(acme, [EMAIL, OTHER]) == 1
    people = [("user:u2", PHONE), ("user:u2", EMAIL), (USER,), ("user:u2", "+12125550109"), (), (OTHER,)]
    assert held(acme, *people) == ["suppressed", "suppressed", "suppressed", None, None, "suppressed"]
    assert held(account(opened, "other", secret=secret), (PHONE,)) == [None]


@on(EVERY)
@pytest.mark.parametrize("secret", [None, b"pepper"])
def test_the_phones_on_record_of_a_user_id_count_as_well(opened, secret):
    acme = account(opened, secret=secret)
    opened.write(lambda connection: acme.keep_phones(connection, [("u1", PHONE), ("u2", OTHER)]))
    suppress(acme, [PHONE])
    assert held(acme, ("user:u1",), ("user:u2",)) == ["suppressed", None]


def test_a_user_id_that_is_an_email_or_a_phone_is_held_for_it(opened):
    acme = account(opened)
    suppress(acme, [PHONE, EMAIL])
    assert held(acme, ("user:Anne@Example.com",), (f"user:{PHONE}",), ("user:2125550100",)) == [
        "suppressed", "suppressed", None,
    ]  # fmt: skip


@on(EVERY)
@pytest.mark.parametrize("secret", [None, b"pepper"])
def test_of_the_forgotten_there_is_a_hash_only_and_their_opt_outs_are_known(opened, secret):
    acme = account(opened, secret=secret)
    key = acme.identifiers.stored(PHONE)
    forget(acme, {key: {"sms": at(5)}})
    forget(acme, {key: {"sms": at(4), "voice": at(6)}})
    (line,) = list_suppressions(opened)
    assert (line.kind, line.added_by, len(line.identifier)) == ("forgotten", "root", 64)
    assert line.identifier not in (key, PHONE)
    (hold,) = Suppressions(acme).find([(PHONE,)])
    assert hold.is_forgotten
    assert not hold.is_news(PHONE, "sms", at(5))
    assert not hold.is_news(PHONE, "sms", None)
    assert hold.is_news(PHONE, "sms", at(6))
    assert hold.is_news(OTHER, "sms", at(1))
    assert hold.is_news(PHONE, "email", None)


@on(EVERY)
@pytest.mark.parametrize("secret", [None, b"pepper"])
def test_who_is_removed_may_be_contacted_and_the_opt_outs_of_the_forgotten_bar_again(opened, secret):
    acme = account(opened, secret=secret, now=ManualClock())
    suppress(acme, [OTHER, USER])
    forget(acme, {acme.identifiers.stored(PHONE): {"sms": at(5)}, acme.identifiers.stored(EMAIL): {}})
    assert unsuppress(acme, [OTHER, PHONE, "+12125550109"]) == {"suppressed": 1, "forgotten": 1, "opt_outs": 1}
    assert held(acme, (OTHER,), (PHONE,), (USER,), (EMAIL,)) == [None, None, "suppressed", "forgotten"]
    assert [row[:5] for row in acme.consents()] == [(acme.identifiers.stored(PHONE), "sms", None, None, at(5))]
    assert acme.count_owed() == 1
    assert unsuppress(acme, [PHONE]) == {}


@on(EVERY)
def test_two_hashes_of_one_person_in_two_ledgers_are_not_alike(opened, tmp_path):
    with closing(open_database(tmp_path / "another.db")) as another:
        for database in (opened, another):
            forget(account(database), {PHONE: {}})
        assert {one.identifier for one in list_suppressions(opened)}.isdisjoint(
            one.identifier for one in list_suppressions(another)
        )


@on(EVERY)
def test_long_lists_are_streamed_and_some_people_found_in_them(opened):
    acme, other = account(opened), account(opened, "other")
    many = [f"+1212{number:07d}" for number in range(2_300)]
    suppress(acme, many, by="root", source="file list.csv", note="asked by letter")
    suppress(other, many[:1_000])
    assert [one.identifier for one in list_suppressions(opened)] == many + many[:1_000]
    assert [one.identifier for one in list_suppressions(opened, "other")] == many[:1_000]
    found = find_suppressions(opened, [many[7], "+12125550100"], identifiers=acme.identifiers)
    assert [(one.account, one.identifier, one.kind) for one in found] == [
        ("acme", many[7], "suppressed"), ("other", many[7], "suppressed"),
    ]  # fmt: skip
    assert (found[0].added_by, found[0].source, found[0].note) == ("root", "file list.csv", "asked by letter")
    assert sum(hold is not None for hold in Suppressions(acme).find([(one,) for one in many])) == 2_300


def test_an_account_without_any_is_looked_at_again_a_second_later(opened):
    acme, now = account(opened), [0.0]
    suppressions = Suppressions(acme, monotonic=lambda: now[0])
    assert suppressions.find([(PHONE,)]) == [None]
    suppress(acme, [PHONE])
    now[0] = 0.5
    assert suppressions.find([(PHONE,)]) == [None]
    now[0] = 1.0
    assert suppressions.find([(PHONE,)])[0] is not None


def test_an_account_with_another_secret_is_refused(opened):
    suppress(account(opened), [PHONE])
    for change in (suppress, unsuppress):
        with pytest.raises(WrongLedgerError, match="ledger_key"):
            change(account(opened, secret=b"pepper"), [OTHER])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (" (212) 555-0100 ", PHONE),
        ("2125550100", PHONE),
        ("Anne@Example.COM ", EMAIL),
        (" u1 ", USER),
        ("12345", "user:12345"),
        ("user: 2125550100", "user:2125550100"),
        ("user:anne@nowhere", "user:anne@nowhere"),
    ],
)
def test_a_text_is_read_as_phone_email_or_user_id(text, read):
    assert read_identifier(text) == read


@pytest.mark.parametrize("text", ["", "  ", "user:", "anne@nowhere", "+1 212 555", "(212) 555-01"])
def test_a_text_that_was_meant_to_be_a_phone_or_an_email_is_no_user_id(text):
    with pytest.raises(ValueError):
        read_identifier(text)
