"""A delivery requests what it can use, keeps what it is granted, and releases it."""

from __future__ import annotations

from contextlib import closing

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.delivery.sending.share import RateShare, SlotPacer
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.shares import Shares
from tests.ledger.view import open_database
from tests.ledger_file import table


class Time:
    """A clock that moves only when a test moves it."""

    def __init__(self):
        self.now = 1_000.0
        self.clock = Clock(monotonic=lambda: self.now)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def account(ledger_path):
    with closing(open_database(ledger_path)) as database:
        account = Account(database, account="a")
        account.register("a-key-of-the-account")
        yield account


class Sending:
    """A delivery as its share sees it: it asks, commits, and takes from its pacer."""

    def __init__(self, account, time, name, *, limit=100, most=100, keen=True):
        """:param keen: it always has something to send."""
        self._keen = keen
        self.pacer = Pacer(0)
        self.share = RateShare(
            Shares(account, sender=name, rate_limit=limit, hold_s=4.5), self.pacer, most=most, clock=time.clock
        )
        self._account, self._time = account, time

    def commit(self, left=10_000):
        self._time.now += 0.21
        while self._keen and not (self.pacer.take(self._time.now) or self.pacer.go(self._time.now)):
            pass
        assert self.share.ask(left)
        self._account.database.write(self.share.renew)
        self.share.committed()
        return self.pacer.limit

    def send_all_it_may(self, seconds):
        sent, ends = 0, self._time.now + seconds
        while self._time.now < ends:
            wait_s = self.pacer.take(self._time.now) or self.pacer.go(self._time.now)
            sent += not wait_s
            self._time.now += wait_s
        return sent

    def send_some(self, count, seconds):
        for _ in range(count):
            self._time.now += seconds / count
            assert not (self.pacer.take(self._time.now) or self.pacer.go(self._time.now))


def test_nothing_goes_before_a_share_is_agreed_on(account, time):
    sending = Sending(account, time, "one")
    assert sending.pacer.take(time.now) > 0
    assert sending.commit() == 100
    assert sending.pacer.take(time.now) == 0


def test_its_own_rate_caps_a_task_below_its_share(account, time):
    assert Sending(account, time, "one", most=30).commit() == 30
    assert Sending(account, time, "two").commit() == 70


def test_a_few_rows_ask_for_no_more_than_they_are(account, time):
    few, many = Sending(account, time, "few"), Sending(account, time, "many")
    assert few.commit(left=7) == 100, "nobody else could use the rest"
    many.commit()
    assert few.commit(left=7) == 50, "it knows of the other from here on"
    assert few.commit(left=7) == 14, "they are gone within half a second"
    time.now += 1.1
    assert many.commit() == 86


def test_what_counts_is_what_went_in_the_last_second(account, time):
    first, second = Sending(account, time, "first"), Sending(account, time, "second")
    first.commit()
    first.send_all_it_may(2.0)
    second.commit()
    assert first.commit() == 50
    assert 30 <= second.commit() < 45, "the first has sent some 60 in the last second"
    first.send_all_it_may(1.1)
    first.commit()
    assert second.commit() == 50


def test_a_delivery_that_is_slow_lends_what_it_cannot_use_and_has_it_back(account, time):
    slow, quick = Sending(account, time, "slow", keen=False), Sending(account, time, "quick")
    slow.commit(), quick.commit(), slow.commit()
    assert slow.pacer.limit == 50
    for _ in range(3):  # it sends 10/s, below the limit
        slow.send_some(10, 1.0)
        slow.commit()
    assert 10 <= slow.pacer.limit <= 15
    assert quick.commit() >= 85
    slow.send_all_it_may(1.0)  # now it would send more
    quick.commit()
    slow.commit()
    quick.commit()
    time.now += 1.1
    quick.commit()
    assert slow.commit() == 50


def test_one_that_waits_for_its_turn_at_a_low_rate_lends_nothing(account, time):
    first, second = Sending(account, time, "first", limit=2), Sending(account, time, "second", limit=2)
    first.commit(), second.commit(), first.commit(), second.commit()
    for _ in range(10):
        for one in (first, second):
            assert one.pacer.take(time.now) or not one.pacer.go(time.now)
            one.commit()
    assert (first.pacer.limit, second.pacer.limit) == (1, 1)


def test_a_share_that_is_not_committed_is_not_used(account, time):
    sending = Sending(account, time, "one")
    time.now += 1
    sending.share.ask(100)
    account.database.write(sending.share.renew)
    assert sending.pacer.limit == 0
    sending.share.committed()
    assert sending.pacer.limit == 100


def test_it_is_given_back_a_second_after_the_last_request(account, time, ledger_path):
    sending = Sending(account, time, "one")
    sending.commit()
    sending.send_all_it_may(1.0)
    account.database.write(sending.share.leave)
    (line,) = table(ledger_path, "regal_senders")
    assert line["wants"] == 0
    assert 90 <= line["granted"] <= 100
    assert sending.pacer.take(time.now) > 0


def test_commits_come_more_often_while_others_share_the_rate(account, time):
    first, second = Sending(account, time, "first"), Sending(account, time, "second")
    first.commit()
    assert first.share.every_s == 1.0
    second.commit()
    assert second.share.every_s == 0.25
    first.commit()
    assert first.share.every_s == 0.5


def test_single_events_wait_for_their_slots(account, time):
    slots = SlotPacer(Shares(account, rate_limit=10), Pacer(1_000), clock=time.clock)
    assert slots.take(time.now) == 0.0
    wait_s = slots.take(time.now)
    assert 0 < wait_s < 0.2
    time.now += wait_s
    assert slots.take(time.now) == 0.0


def test_a_slot_that_went_by_while_the_process_was_frozen_is_not_used(account, time):
    slots = SlotPacer(Shares(account, rate_limit=10), Pacer(1_000), clock=time.clock)
    slots.take(time.now)
    slots.take(time.now)
    time.now += 60
    assert slots.take(time.now) > 0, "the ledger gives another, which is ahead by its own clock"


@pytest.mark.parametrize(("late_s", "is_used"), [(0.05, True), (0.2, False)])
def test_a_slot_is_used_late_only_if_the_margin_makes_up_for_it(account, time, late_s, is_used):
    slots = SlotPacer(Shares(account, rate_limit=10), Pacer(1_000), clock=time.clock)
    slots.take(time.now)
    time.now += slots.take(time.now) + late_s
    assert (slots.take(time.now) == 0.0) is is_used


def test_a_pause_holds_back_single_events_of_the_process(account, time, ledger_path):
    pacer = Pacer(1_000)
    slots = SlotPacer(Shares(account, rate_limit=10), pacer, clock=time.clock)
    pacer.pause(time.now + 7)
    assert slots.take(time.now) == slots.pause_left(time.now) == 7
    assert not table(ledger_path, "regal_senders"), "no slot was taken meanwhile"
