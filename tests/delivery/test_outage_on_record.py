"""An outage is on record while it lasts, so that pages and commands can show it."""

from __future__ import annotations

import json
import sqlite3

import pytest

from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.hooks.regal import RegalHook

ROWS = [{"user_id": f"u{number}"} for number in range(40)]


def outage_of(file):
    with sqlite3.connect(file) as connection:
        (counts,) = connection.execute("SELECT counts FROM regal_deliveries ORDER BY id DESC LIMIT 1").fetchone()
    told = json.loads(counts)
    return told["outage_since"], told["outage_reason"]


def deliver(**options):
    return RegalHook().deliver(ROWS, call="identify", name="contacts", **options)


def test_since_when_regal_takes_nothing_and_what_it_says(regal, regal_ledger):
    regal.set_faults([{"on": {"from": 6}, "do": {"status": 503}}])
    with pytest.raises(RetryLaterError):
        deliver(outage_patience=2)
    since, reason = outage_of(regal_ledger)
    assert reason == "HTTP 503"
    assert since.startswith("20")
    assert since.endswith("Z")


def test_an_outage_that_ended_is_on_record_no_more(regal, regal_ledger):
    regal.set_faults([{"on": {"requests": [*range(6, 18)]}, "do": {"status": 503}}])
    report = deliver(outage_patience=60)
    assert report.acknowledged == len(ROWS)
    assert report.outages == 1
    assert outage_of(regal_ledger) == (None, None)
