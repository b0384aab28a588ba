"""Concurrent syncs on one ledger in PostgreSQL, each in a separate process, against one local Regal."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from contextlib import closing

import pytest
from sqlalchemy import event

from airflow_provider_regal.ledger.account import Account
from tests.delivery.consents import NOW, no, phone, yes
from tests.delivery.sync.syncing import run_sync
from tests.ledger.view import ACCOUNT, engine_of, open_database

pytestmark = pytest.mark.services
SHARDS, ROWS = 4, 400


def shard(number):
    """Everybody of a shard has neighbors of the others in the ledger; one in eight opts out."""
    own = range(number, SHARDS * ROWS, SHARDS)
    return [no(person) if person % 8 == 0 else yes(person) for person in own]


def _in_process(url, regal, run, rows, options, results):
    def watched():
        engine = engine_of(url)
        event.listen(engine, "handle_error", lambda context: codes.append(context.original_exception.pgcode))
        return engine

    codes = []
    try:
        report = run_sync(rows, regal, run, None, engine=watched, initial="send", **options)
        assert "40P01" not in codes, "a deadlock, though it was tried again"
        results.put((report.acknowledged, dict(report.skips), None))
    except Exception as error:  # noqa: BLE001 - reported by the parent
        results.put((0, {}, f"{error!r} {error.__cause__!r}"))


def at_once(url, regal, told):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    target = (regal.url, regal.api_key)
    started = [
        context.Process(target=_in_process, args=(url, target, run, rows, options, results))
        for run, rows, options in told
    ]
    for process in started:
        process.start()
    found = [results.get(timeout=300) for _ in started]
    for process in started:
        process.join()
    return found


def consents_of(url):
    with closing(open_database(url)) as database:
        return {row[0]: row for row in Account(database, account=ACCOUNT, now=lambda: NOW).consents()}


def test_shards_synced_at_once_lose_and_repeat_nothing_and_lock_no_one_out(postgres_url, regal_sandbox):
    for turn in range(2):
        told = [(f"{turn}-{n}", shard(n), {"source": f"dag.shard_{n}"}) for n in range(SHARDS)]
        found = at_once(postgres_url, regal_sandbox, told)
        assert [error for *_, error in found] == [None] * SHARDS
        expected = (ROWS, {}) if turn == 0 else (0, {"unchanged": ROWS})
        assert [result[:2] for result in found] == [expected] * SHARDS
    arrived = Counter(event["body"]["userId"] for event in regal_sandbox.events())
    assert arrived == {f"u{person}": 1 for person in range(SHARDS * ROWS)}
    known = consents_of(postgres_url)
    assert len(known) == SHARDS * ROWS
    assert {row[5] for row in known.values()} == {"acknowledged"}
    assert all(known[phone(person)][2] == int(person % 8 != 0) for person in range(SHARDS * ROWS))


def test_syncs_of_the_same_contacts_at_once_end_in_the_newest_decision(postgres_url, regal_sandbox):
    people = range(150)
    older = [yes(person, 5) for person in people]
    newer = [no(person, 6) if person % 2 else yes(person, 7) for person in people]
    told = [(name, rows, {"source": name, "lease_s": 5.0}) for name, rows in (("a", older), ("b", newer))]
    found = at_once(postgres_url, regal_sandbox, told)
    assert [error for *_, error in found] == [None, None]
    for person in people:
        status = regal_sandbox.contact(phone=phone(person))["phones"][phone(person)]["sms"]["status"]
        assert status == ("Unsubscribed" if person % 2 else "Subscribed")
    known = consents_of(postgres_url)
    assert all(known[phone(person)][2] == int(not person % 2) for person in people)
    again = run_sync(newer, regal_sandbox, "c", None, engine=lambda: engine_of(postgres_url))
    assert again.acknowledged == 0
