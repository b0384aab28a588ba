"""Accounts in one database as seen by several deliveries, and short helpers for claims."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.rules import OPT_IN, TRACK, Claim, Verdict
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.ledger.view import ACCOUNT

GO, DUPLICATE, STALE, BLOCKED, KNOWN, BUSY = Verdict
PHONE = "+15550100"
START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)


class DeliveryAccount:
    """An account as seen by one delivery; each claim and each settlement is its own transaction."""

    def __init__(self, database, delivery, **options):
        self.database = database
        self.on_record = Account(database, **options)
        self.on_record.delivery = delivery

    def __getattr__(self, name):
        return getattr(self.on_record, name)

    def claim(self, claims):
        return self.database.write(lambda connection: self.on_record.claim(connection, claims))

    def settle(self, **told):
        self.database.write(lambda connection: self.on_record.settle(connection, **told))

    def keep_contacts(self, contacts):
        self.database.write(lambda connection: self.on_record.keep_contacts(connection, contacts))

    def keep_phones(self, pairs):
        self.database.write(lambda connection: self.on_record.keep_phones(connection, pairs))

    def keep_types(self, types):
        self.database.write(lambda connection: self.on_record.keep_types(connection, types))


class Accounts:
    """Opens accounts in one database, each with its own connections, like separate workers.

    :param engine: makes an engine.
    """

    def __init__(self, engine):
        self.engine, self.clock, self.opened = engine, ManualClock(), []

    def __call__(self, delivery="1", *, account=ACCOUNT, **options):
        database = Database(self.engine())
        self.opened.append(database)
        return DeliveryAccount(database, delivery, account=account, now=self.clock, **options)

    def close(self):
        for database in self.opened:
            database.close()


def at(minute):
    """A time of the day before; a larger minute is newer."""
    return to_ledger_time(START - timedelta(days=1) + timedelta(minutes=minute))


def opt_in(minute, key=PHONE, **options):
    return Claim(OPT_IN, key, "sms", True, at(minute), **options)


def opt_out(minute, key=PHONE, **options):
    return Claim(OPT_IN, key, "sms", False, at(minute), **options)


def track(key="message-1", **options):
    return Claim(TRACK, key, **options)


def one(account, claim):
    (verdict,) = account.claim([claim])
    return verdict


def sent(account, claim):
    assert one(account, claim) is GO
    account.settle(acknowledged=[claim])


def known(account):
    """Return all consents on record, without inferred ones."""
    return [(*row[:9], row[10]) for row in account.consents()]
