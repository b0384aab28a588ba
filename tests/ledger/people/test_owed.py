"""Which opt-outs are owed, in real databases."""

from __future__ import annotations

from contextlib import closing

import pytest

from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.people.owed import count_owed, owed_opt_outs
from tests.databases import EVERY, on
from tests.ledger.accounts import ManualClock, at, opt_in, opt_out
from tests.ledger.view import open_database

MANY = 2_300  # more than two pages


@pytest.fixture
def opened(database_url):
    with closing(open_database(database_url)) as database:
        yield database


def account(database, name="acme", delivery="7", **options):
    found = Account(database, account=name, source="dag.task", **options)
    found.delivery = delivery
    return found


def phones(found):
    return [one.identifier for one in found]


@on(EVERY)
def test_they_are_streamed_the_oldest_first_whatever_is_paid_meanwhile(opened):
    clock = ManualClock()
    acme = account(opened, now=clock)
    numbers = [f"+1212{number:07d}" for number in range(MANY)]
    acme.bar((number, channel, at(5)) for number in numbers[:-1] for channel in ("sms", "voice"))
    clock.wait(60)
    acme.bar([(numbers[-1], "sms", at(5)), ("a@b.co", "email", at(6))])
    account(opened, "other").bar([(numbers[0], "sms", at(5))])

    found = []
    for number, one in enumerate(acme.owed_opt_outs()):
        if number % 500 == 0:
            paid = opt_out(5, key=one.identifier)
            opened.write(lambda connection, paid=paid: acme.settle(connection, acknowledged=[paid]))
        found.append(one)
    assert phones(found) == [*(number for number in numbers[:-1] for _ in "sv"), numbers[-1], "a@b.co"]
    assert found[-1] == ("acme", "a@b.co", "email", at(6), found[-1].since, "dag.task", "7")
    assert found[-1].since > found[0].since
    assert len({*owed_opt_outs(opened)}) == 2 * MANY - 10 + 1 + 1 - 1


@on(EVERY)
def test_they_are_counted_and_what_a_delivery_is_sending_is_left_out(opened):
    mine, theirs = account(opened), account(opened, delivery="8")
    mine.bar([("+12125550100", "sms", at(5)), ("user:u1", "sms", at(5))])
    theirs.bar([("+12125550101", "sms", at(5))])
    assert phones(mine.owed_opt_outs()) == ["+12125550100", "+12125550101"]
    assert phones(mine.owed_opt_outs(on_their_way=[8, 9])) == ["+12125550100"]
    assert (mine.count_owed(), mine.count_owed(on_their_way=[7, 8])) == (2, 0)
    assert count_owed(opened, "nobody") == (0, None)
    yes = opt_in(6, key="+12125550100")
    opened.write(lambda connection: mine.settle(connection, acknowledged=[yes]))
    assert count_owed(opened).opt_outs == 1
