"""Words to speak of a ledger with, and a maker of ledgers over one database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_regal.journal.ledger import Claim, Ledger, Verdict
from airflow_provider_regal.journal.ledger_rules import to_ledger_time

GO, DUPLICATE, STALE, BLOCKED, BUSY = Verdict
PHONE = "+15550100"
START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)


class Ledgers:
    """Opens ledgers over one database, each with connections of its own, as another worker would."""

    def __init__(self, engine):
        self.engine, self.clock, self.opened = engine, Clock(), []

    def __call__(self, run="run-1", *, account="acme", **options):
        ledger = Ledger(self.engine(), account=account, run=run, now=self.clock, **options)
        self.opened.append(ledger)
        return ledger

    def close(self):
        for ledger in self.opened:
            ledger.close()


def at(minute):
    return to_ledger_time(START - timedelta(days=1) + timedelta(minutes=minute))


def opt_in(minute, key=PHONE, **options):
    return Claim("opt_in", key, "sms", True, at(minute), **options)


def opt_out(minute, key=PHONE, **options):
    return Claim("opt_in", key, "sms", False, at(minute), **options)


def track(key="message-1", **options):
    return Claim("track", key, **options)


def one(ledger, claim):
    (verdict,) = ledger.claim([claim])
    return verdict


def sent(ledger, claim):
    assert one(ledger, claim) is GO
    ledger.settle(acknowledged=[claim])


def known(ledger):
    return list(ledger.consents())
