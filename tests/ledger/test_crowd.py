"""Many processes at once on one ledger: nothing is lost, nothing is sent twice, and no one is locked out."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.databases import PROVED, on
from tests.ledger.accounts import BLOCKED, DUPLICATE, GO, DeliveryAccount, at, track
from tests.ledger.crowd import SHARED
from tests.ledger.view import LedgerView, open_database

CROWD = Path(__file__).with_name("crowd.py")
PROJECT = Path(__file__).parents[2]


def work_at_once(database_url, processes, rounds, *, warm_up_s):
    """Run so many processes; gives the events that each was let send."""
    starts_at = time.time() + warm_up_s
    started = [
        subprocess.Popen(
            [
                sys.executable,
                str(CROWD),
                json.dumps({"database": database_url, "number": number, "rounds": rounds, "starts_at": starts_at}),
            ],
            cwd=PROJECT,
            env={"PYTHONPATH": str(PROJECT), "PATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    ended = [process.communicate(timeout=900) for process in started]
    said = {line for _, complaints in ended for line in complaints.splitlines()}
    assert {line for line in said if not line.startswith("Waiting for the ledger")} == set()
    told = [json.loads(out) for out, _ in ended]
    assert [one["error"] for one in told if one["error"]] == []
    return [key for one in told for key in one["gone"]]


def check_nothing_was_lost(database_url, gone, *, processes, rounds):
    events = [track(f"message-{turn}-{n}") for turn in range(rounds) for n in range(SHARED)]
    assert sorted(gone) == sorted(event.key for event in events), "each event went exactly once"
    database = open_database(database_url)
    account = DeliveryAccount(database, "after", account="acme")
    assert set(account.claim(events)) == {DUPLICATE}
    consents = {row[0]: row for row in account.consents()}
    for number in range(processes):
        for n in range(5):
            assert consents[f"own-{number}-{n}"][3:6] == (at(rounds - 1), None, "acknowledged")
    for n in range(SHARED):
        assert consents[f"shared-{n}"][3:6] == (at(rounds - 1), at(rounds - 6), "acknowledged")
    assert len(account.contact_hashes([f"contact-{n}" for n in range(SHARED)])) == SHARED
    database.close()
    ledger = LedgerView(database_url)
    records = ledger.deliveries()
    assert len({record.run_id for record in records}) == len(records) == processes
    assert {(record.state, record.acknowledged) for record in records} == {("finished", rounds)}
    (lines,) = ledger.query("SELECT count(*) FROM regal_outcomes")[0]
    assert lines == processes * rounds


@on(PROVED)
@pytest.mark.slow
def test_sixteen_processes_at_once(database_url):
    gone = work_at_once(database_url, 16, 6, warm_up_s=6)
    check_nothing_was_lost(database_url, gone, processes=16, rounds=6)


@pytest.mark.long
@on(PROVED)
def test_two_hundred_processes_at_once(database_url):
    """PostgreSQL takes a hundred connections by default: the others wait."""
    gone = work_at_once(database_url, 200, 4, warm_up_s=45)
    check_nothing_was_lost(database_url, gone, processes=200, rounds=4)


def test_of_many_that_claim_an_event_at_once_one_goes(accounts):
    opened = [accounts(str(number)) for number in range(4)]
    keys = [f"message-{number}" for number in range(60)]

    def claim(number):
        order = random.Random(number).sample(keys, len(keys))
        return dict(zip(order, opened[number].claim([track(key, once=True) for key in order]), strict=True))

    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(claim, range(4)))
    for key in keys:
        assert sorted(each[key] for each in verdicts) == [BLOCKED, BLOCKED, BLOCKED, GO]


def test_many_may_open_a_new_ledger_at_once(accounts):
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda number: accounts(str(number)), range(6)))
    assert all(not account.has_consents() for account in opened)
