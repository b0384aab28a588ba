"""Five processes on one ledger, killed at any time: no opt-in follows a newer opt-out, and no opt-out is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import RegalError
from tests.databases import PROVED, on
from tests.delivery.consents import IP, known, phone
from tests.delivery.sync.syncing import run_sync
from tests.ledger.view import LedgerView, engine_of

STORMS = int(os.environ.get("REGAL_STORMS", "10"))
AT_ONCE, KILLED = 5, 3
LONGEST_S = 0.4
PROJECT = Path(__file__).parents[3]
# Processes are forked from one that has imported this and has no threads.
IMPORTED = [
    "tests.delivery.sync.test_storm",
    "airflow_provider_regal.client.many",
    "airflow_provider_regal.delivery.sending.engine",
]
CHANNELS = ("sms", "voice", "email")
EVENT = "SMS Consent Given"
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
ONE_TRY_S = 60
FAULTS = [
    {"status": 500, "store": True},
    {"status": 500, "store": False},
    {"drop": True},
    {"status": 429, "retry_after": 1},
]


def whose(number, channel):
    return f"a{number}@example.com" if channel == "email" else phone(number)


def one_try(rows, regal, run, url, epoch, number, options):
    with suppress(RegalError):
        run_sync(
            rows, regal, run, None, engine=lambda: engine_of(url), epoch=epoch, number=number, clock=Clock(), lease_s=9,
            fresh_for_s=3, timeout_s=1.0, source=run, **options,
        )  # fmt: skip


class Run:
    """One task instance, tried again until it is done."""

    def __init__(self, chance, regal, name, url):
        said = [
            (chance.randrange(20), chance.choice(CHANNELS), chance.random() < 0.5, chance.randrange(1, 10_000))
            for _ in range(60)
        ]
        kind = chance.choice(["sync", "as_event", "identify", "only_changed", "at_most_once"])
        if kind == "as_event":
            said = [(number, "sms", *rest) for number, _, *rest in said]
        if kind == "only_changed":  # a contact is one row
            said = list({one[0]: one for one in said}.values())
        options = {"initial": "send", "max_change_ratio": None} if kind in ("sync", "as_event") else {"sync": False}
        options |= {"as_event": EVENT, "max_event_age": None} if kind == "as_event" else {}
        options |= {"only_changed": True} if kind == "only_changed" else {}
        options |= {"guarantee": "at_most_once", "max_unknown": 1.0} if kind == "at_most_once" else {}
        rows = [row_of(*one, wide="sync" in options) for one in said]
        self.said, self.name, self.ledger = said, name, LedgerView(url)
        self.given = (rows, (regal.url, regal.api_key), name, url)
        self.options, self.epoch, self.number, self.process = options, 0, 0, None

    def start(self):
        self.number += 1
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.process = context.Process(target=one_try, args=(*self.given, self.epoch, self.number, self.options))
        self.process.start()

    def kill(self):
        """Kill it; returns whether it was still at work."""
        alive = self.process.is_alive()
        self.process.kill()
        self.process.join()
        return alive

    def finish(self):
        self.process.join(ONE_TRY_S)
        while not (found := self.ledger.deliveries(self.name)) or found[-1].state != "finished":
            assert self.number < 12
            self.epoch += bool(found) and found[-1].state == "failed"  # a retry does not fix that; a clear may
            self.start()
            self.process.join(ONE_TRY_S)


def row_of(number, channel, subscribed, minute, *, wide):
    person = {"user_id": f"u{number}", "phone": phone(number), "email": whose(number, "email")}
    at = (BEGIN + timedelta(minutes=minute)).isoformat()
    if wide:
        return {
            **person,
            f"{channel}_opt_in": subscribed,
            f"{channel}_opt_in_at": at,
            f"{channel}_opt_in_ip": IP,
        }
    return {**person, "channel": channel, "subscribed": subscribed, "timestamp": at, "ip": IP}


def arrived(regal):
    """What arrived, in order: whose, channel, yes or no, when it was given, whether by an event that stayed."""
    for event in regal.events():
        body = event["body"]
        if "name" in body:
            (number,) = body["traits"]["phones"]
            yield (number, body["properties"]["channel"]), True, moment(body["originalTimestamp"]), event["stored"]
            continue
        for member in ("phones", "emails"):
            for identifier, info in body.get("traits", {}).get(member, {}).items():
                for channel in CHANNELS:
                    if (opt_in := info.get(f"{channel}OptIn")) is not None:
                        yield (identifier, channel), opt_in["subscribed"], moment(opt_in["timestamp"]), False


def moment(text):
    return datetime.fromisoformat(text.replace(" +", "+"))


@pytest.fixture
def storm(regal_sandbox, database_url, monkeypatch, record_property):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # in the forked process

    def storm(seed):
        chance, runs, killed = random.Random(seed), [], 0
        for _ in range(2):
            first = regal_sandbox.stats()["requests"] + 1
            some = chance.sample(range(first, first + 60), 10)
            regal_sandbox.set_faults([{"on": {"requests": some}, "do": chance.choice(FAULTS)}])
            wave = [Run(chance, regal_sandbox, f"run-{len(runs) + n}", database_url) for n in range(AT_ONCE)]
            runs += wave
            for run in wave:
                run.start()
            for run in chance.sample(wave, KILLED):
                time.sleep(0.1 + chance.random() * LONGEST_S)
                killed += run.kill()
                run.start()
            for run in wave:
                run.finish()
        regal_sandbox.set_faults([])
        record_property("killed", killed)
        check(runs, regal_sandbox, database_url)

    return storm


def check(runs, regal, url):
    newest = {}
    for run in runs:
        for number, channel, subscribed, minute in run.said:
            key = (whose(number, channel), channel)
            newest[key] = max(newest.get(key, (0, False)), (minute, not subscribed))
    opted_out, got, by_event = {}, set(), []
    for key, subscribed, at, event in arrived(regal):
        got.add((key, subscribed, at))
        by_event += [(key, at)] * event
        if subscribed:
            assert key not in opted_out or at > opted_out[key], "an opt-in followed a newer opt-out"
        else:
            opted_out[key] = max(opted_out.get(key, at), at)
    for key, (minute, opts_out) in newest.items():
        assert not opts_out or (key, False, BEGIN + timedelta(minutes=minute)) in got, "an opt-out was lost"
    for key, (subscribed, evidence, *_) in known(url).items():
        told = subscribed is not None and (key, bool(subscribed), datetime.fromisoformat(evidence))
        assert not told or told in got, "the ledger says more than Regal got"
    assert len(by_event) == len(set(by_event)), "an event went twice"


@pytest.mark.slow
def test_whatever_dies_the_newest_decision_wins_and_the_ledger_says_what_regal_got(storm):
    storm(0)


@pytest.mark.long
@on(PROVED)
@pytest.mark.parametrize("seed", range(100, 100 + STORMS))
def test_in_any_storm_the_newest_decision_wins(storm, seed):
    storm(seed)
