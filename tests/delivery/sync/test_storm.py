"""Several processes on one ledger, killed at any moment: no opt-in follows a newer opt-out, and no opt-out is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import RegalError
from tests.delivery.consents import IP, known, phone
from tests.delivery.sync.syncing import run_sync
from tests.ledger.view import LedgerView

STORMS = int(os.environ.get("REGAL_STORMS", "1"))
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


def one_try(rows, regal, run, path, number, options):
    with suppress(RegalError):
        run_sync(rows, regal, run, path, number=number, clock=Clock(), lease_s=5, timeout_s=1.0, **options)


class Run:
    """One task instance, tried again until it is done."""

    def __init__(self, chance, regal, name, path):
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
        self.said, self.name, self.ledger = said, name, LedgerView(path)
        self.given = (rows, (regal.url, regal.api_key), name, path)
        self.options, self.number, self.process = options, 0, None

    def start(self):
        self.number += 1
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=one_try, args=(*self.given, self.number, self.options))
        self.process.start()

    def kill(self):
        self.process.kill()
        self.process.join()

    def finish(self):
        self.process.join(ONE_TRY_S)
        while not (found := self.ledger.deliveries(self.name)) or found[-1].state != "finished":
            assert self.number < 12
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


@pytest.mark.parametrize("seed", range(STORMS))
@pytest.mark.slow
def test_whatever_dies_the_newest_word_wins_and_the_ledger_says_what_regal_got(regal_sandbox, tmp_path, seed):
    chance, path, runs = random.Random(seed), tmp_path / "ledger.db", []
    for _ in range(2):
        first = regal_sandbox.stats()["requests"] + 1
        some = chance.sample(range(first, first + 60), 10)
        regal_sandbox.set_faults([{"on": {"requests": some}, "do": chance.choice(FAULTS)}])
        wave = [Run(chance, regal_sandbox, f"run-{len(runs) + n}", path) for n in range(3)]
        runs += wave
        for run in wave:
            run.start()
        for run in wave[:2]:
            time.sleep(chance.random() + 0.7)
            run.kill()
            run.start()
        for run in wave:
            run.finish()
    regal_sandbox.set_faults([])
    newest = {}
    for run in runs:
        for number, channel, subscribed, minute in run.said:
            key = (whose(number, channel), channel)
            newest[key] = max(newest.get(key, (0, False)), (minute, not subscribed))
    opted_out, got, by_event = {}, set(), []
    for key, subscribed, at, event in arrived(regal_sandbox):
        got.add((key, subscribed, at))
        by_event += [(key, at)] * event
        if subscribed:
            assert key not in opted_out or at > opted_out[key], "an opt-in followed a newer opt-out"
        else:
            opted_out[key] = max(opted_out.get(key, at), at)
    for key, (minute, opts_out) in newest.items():
        assert not opts_out or (key, False, BEGIN + timedelta(minutes=minute)) in got, "an opt-out was lost"
    for key, (subscribed, evidence, *_) in known(path).items():
        told = subscribed is not None and (key, bool(subscribed), datetime.fromisoformat(evidence))
        assert not told or told in got, "the ledger says more than Regal got"
    assert len(by_event) == len(set(by_event)), "an event went twice"
