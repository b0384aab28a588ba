"""One rate for all senders of an account: the granted rates never exceed the limit."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_regal.ledger.schema import senders as table
from airflow_provider_regal.ledger.shares import Sender, Share, Shares, next_slot, share_of, split, wants_of_singles
from airflow_provider_regal.ledger.text import from_ledger_time, to_ledger_time

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = to_ledger_time(NOW + timedelta(days=1))


@given(wants=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 200)), limit=st.integers(1, 400))
def test_a_rate_is_split_equally_and_what_one_cannot_use_goes_to_the_others(wants, limit):
    shares = split(wants, limit)
    assert sum(shares.values()) == min(limit, sum(wants.values())) or len(wants) > limit
    assert sum(shares.values()) <= limit
    for name, share in shares.items():
        assert share <= wants[name]
        if share < wants[name]:  # then no other sender has more, except for the remainder
            assert all(other <= share + 1 for other in shares.values())


def test_more_senders_than_requests_take_turns():
    wants, had = dict.fromkeys(map(str, range(7)), 100), dict.fromkeys(map(str, range(7)), 0)
    for turn in range(70):
        shares = split(wants, 2, turn=turn)
        assert sorted(shares.values()) == [0, 0, 0, 0, 0, 1, 1]
        for name, share in shares.items():
            had[name] += share
    assert set(had.values()) == {20}


def lines(**granted):
    return {name: Sender(100, one, 100, LATER) for name, one in granted.items()}


@pytest.mark.parametrize(
    ("senders", "wants", "due", "granted"),
    [
        ({}, 100, 100, 100),
        (lines(a=100), 100, 50, 0),  # until "a" has committed to less
        (lines(a=50), 100, 50, 50),
        (lines(a=70), 100, 50, 30),
        (lines(a=50, me=50), 100, 50, 50),
        (lines(a=50, b=50), 100, 34, 0),
        (lines(a=33, b=33), 100, 34, 34),
        (lines(a=33, b=33), 10, 10, 10),
    ],
)
def test_who_joins_is_granted_what_the_others_leave(senders, wants, due, granted):
    assert share_of("me", wants, senders, 100) == (due, granted)


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 60),
    steps=st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"), st.sampled_from(["renew", "renew", "renew", "leave"]), st.integers(1, 90)
        ),
        max_size=60,
    ),
)
def test_no_order_of_commits_grants_more_than_the_limit(limit, steps):
    granted: dict[str, Sender] = {}
    for name, step, wants in steps:
        if step == "leave":
            granted.pop(name, None)
            continue
        _, mine = share_of(name, wants, granted, limit)
        granted[name] = Sender(wants, mine, limit, LATER)
        assert sum(one.granted for one in granted.values()) <= limit
    for _ in range(2):  # after two commits each, the remaining senders have the whole limit
        for name, one in granted.items():
            granted[name] = one._replace(granted=share_of(name, one.wants, granted, limit)[1])
    due = split({name: one.wants for name, one in granted.items()}, limit)
    assert {name: one.granted for name, one in granted.items()} == due


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 40)), min_size=1, max_size=150))
def test_slots_are_never_closer_together_than_what_is_granted_says(steps):
    now, mine, slots = NOW, None, []
    for pause_s, granted in steps:
        now += timedelta(seconds=pause_s)
        slot, next_at, draining = next_slot(mine, granted, now)
        reported = granted if draining is None else max(granted, mine.granted)
        mine = Sender(40, reported, 100, LATER, to_ledger_time(next_at), draining)
        assert mine.granted >= granted
        if slot is not None:
            assert now <= slot <= now + timedelta(seconds=1)
            assert not slots or slot >= slots[-1][0]
            slots.append((slot, reported))
    for first, (at, _) in enumerate(slots):
        within = [most for slot, most in slots[first:] if slot < at + timedelta(seconds=1)]
        assert len(within) <= max(within) + 1


def test_single_events_want_more_while_they_wait_and_less_while_slots_go_unused():
    assert wants_of_singles(None, NOW, 100) == 10
    assert wants_of_singles(None, NOW, 3) == 3
    waiting = Sender(10, 10, 100, LATER, to_ledger_time(NOW + timedelta(seconds=0.5)))
    assert wants_of_singles(waiting, NOW, 100) == 20
    assert wants_of_singles(waiting._replace(wants=80), NOW, 100) == 100
    idle = Sender(10, 10, 100, LATER, to_ledger_time(NOW - timedelta(seconds=0.5)))
    assert wants_of_singles(idle, NOW, 100) == 8
    assert wants_of_singles(idle._replace(wants=2), NOW, 100) == 2


def renewing(account, name, *, rate_limit=100, hold_s=3.5):
    """Return what renews the share of one sender."""
    shares = Shares(account, sender=name, rate_limit=rate_limit, hold_s=hold_s)
    return lambda wants=100, sent=0: account.database.write(
        lambda connection: shares.renew(connection, wants, lambda granted: max(granted, sent))
    )


def leave(account, name, *, sent=0):
    shares = Shares(account, sender=name, rate_limit=100)
    account.database.write(lambda connection: shares.leave(connection, lambda granted: max(granted, sent)))


def test_two_senders_agree_on_halves_and_one_gets_all_of_it_back(accounts):
    account = accounts("a")
    account.register("a key of twenty char")
    first, second = renewing(account, "first"), renewing(account, "second")
    assert first() == Share(100, 100, 0)
    assert second() == Share(0, 50, 1)
    assert first() == Share(50, 50, 1)
    assert second() == Share(50, 50, 1)
    leave(account, "second")
    assert first() == Share(100, 100, 0)


def test_what_one_cannot_use_is_lent_and_given_back(accounts):
    account = accounts("a")
    account.register("a key of twenty char")
    slow, quick = renewing(account, "slow"), renewing(account, "quick")
    slow(10), quick()
    assert quick() == Share(90, 90, 1)
    assert slow(100).granted == 10
    assert quick().granted == 50
    assert slow(100).granted == 50


def test_a_sender_that_was_killed_gives_its_share_back_when_its_hold_ends(accounts):
    account = accounts("a")
    account.register("a key of twenty char")
    renewing(account, "killed", hold_s=0.5)()
    other = renewing(account, "other")
    assert other().granted == 0
    time.sleep(0.6)
    assert other() == Share(100, 100, 0)
    (left,) = account.database.read(lambda connection: connection.execute(table.select()).fetchall())
    assert left.sender == "other"


def test_a_frozen_sender_gets_no_more_than_the_others_leave_when_it_wakes_up(accounts):
    account = accounts("a")
    account.register("a key of twenty char")
    frozen, other = renewing(account, "frozen", hold_s=0.5), renewing(account, "other")
    assert frozen().granted == 100
    time.sleep(0.6)
    assert other().granted == 100
    assert frozen() == Share(0, 50, 1)


def test_the_lowest_limit_of_the_connections_of_an_account_holds(accounts):
    account = accounts("a")
    account.register("a key of twenty char")
    low, high = renewing(account, "low", rate_limit=40), renewing(account, "high", rate_limit=300)
    assert high(300).granted == 300
    assert low().granted == 0
    assert high(300).granted == 20
    assert low().granted == 20


def test_accounts_do_not_share(accounts):
    for name in ("a", "b"):
        account = accounts(name)
        account.register(f"a key of twenty char {name}")
        assert renewing(account, "s")().granted == 100


def test_single_events_get_slots_at_their_share(accounts):
    account = accounts("a")
    account.register("a key of twenty char")
    singles = Shares(account, rate_limit=100)
    delivery = renewing(account, "delivery")
    assert delivery().granted == 100
    assert singles.take_slot() is None  # until the delivery has committed to a smaller share
    delivery()
    slots = [singles.take_slot() for _ in range(3)]
    assert slots[0] == 0.0
    assert 0 < slots[1] < slots[2] < 0.5


def test_threads_that_take_slots_at_once_never_get_the_same(accounts):
    account, taken = accounts("a"), []
    account.register("a key of twenty char")

    def take():
        shares = Shares(account, rate_limit=50)
        for _ in range(10):
            if (wait_s := shares.take_slot()) is not None:
                taken.append(time.monotonic() + wait_s)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (line,) = account.database.read(lambda connection: connection.execute(table.select()).fetchall())
    assert len(taken) >= 10
    # At 90 % of 50/s, slots are 22 ms apart.
    assert from_ledger_time(line.next_at) - datetime.now(UTC) > timedelta(seconds=0.2)
    assert max(taken) - min(taken) >= (len(taken) - 1) / 45 - 0.2


def test_threads_that_renew_at_once_are_never_granted_more_than_the_limit(accounts):
    account, sums = accounts("a"), []
    account.register("a key of twenty char")

    def renew(name):
        mine = renewing(account, name)
        for _ in range(15):
            mine()
            rows = account.database.read(lambda connection: connection.execute(table.select()).fetchall())
            sums.append(sum(row.granted for row in rows))

    threads = [threading.Thread(target=renew, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(sums) <= 100
    assert [renewing(account, name)() for name in "abcdabcd"][4:] == [Share(25, 25, 3)] * 4
