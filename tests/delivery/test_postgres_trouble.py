"""A delivery whose ledger server restarts, or whose network drops connections at the worst moment."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from airflow_provider_regal.errors import LedgerError
from airflow_provider_regal.ledger.database import Database
from tests.databases import POSTGRES, administer
from tests.delivery.consents import NOW
from tests.delivery.test_delivery import adds_up, arrivals, longest_pause_s, people
from tests.ledger.proxy import Door
from tests.ledger.view import LedgerView

pytestmark = pytest.mark.services


@pytest.fixture
def door():
    made = Door(make_url(POSTGRES).port or 5432)
    yield made
    made.shut()


@pytest.fixture
def database(postgres_url, door):
    made = Database(create_engine(make_url(postgres_url).set(port=door.port), hide_parameters=True))
    yield made
    made.close()


@pytest.fixture
def ledger(postgres_url):
    return LedgerView(postgres_url)


def once_sent(regal, requests, what):
    """Do something once Regal has had so many requests."""

    def wait():
        while regal._ask(lambda account: account.stats()["requests"]) < requests:
            threading.Event().wait(0.005)
        what()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_server_that_is_gone_for_some_seconds_costs_only_time(deliver, database, door, regal_sandbox, ledger):
    def gone():
        door.shut()
        threading.Timer(5.0, door.open).start()

    once_sent(regal_sandbox, 50, gone)
    report = deliver(people(400), database=database, rate=100, timeout_s=1)
    assert report.acknowledged == len(ledger.outcomes()) == 400
    assert set(arrivals(regal_sandbox).values()) == {1}
    assert longest_pause_s(regal_sandbox) > 1.5


def test_backends_killed_again_and_again_cost_nothing(deliver, database, regal_sandbox, ledger):
    def kill():
        name = make_url(ledger.where).database
        for _ in range(5):
            administer(POSTGRES, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            threading.Event().wait(0.4)

    thread = once_sent(regal_sandbox, 50, kill)
    report = deliver(people(400), database=database, rate=100, timeout_s=1)
    thread.join()
    assert report.acknowledged == len(ledger.outcomes()) == 400
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_a_server_that_stays_away_stops_it_and_the_next_try_resumes(deliver, database, door, regal_sandbox, ledger):
    database.patience_s = 0.5
    once_sent(regal_sandbox, 50, door.shut)
    with pytest.raises(LedgerError):
        deliver(people(400), database=database, rate=100, timeout_s=1, outage_patience=1)
    assert regal_sandbox.stats()["requests"] < 400
    door.open()
    report = deliver(people(400), database=database, number=2, timeout_s=1)
    assert adds_up(report)
    assert report.acknowledged + report.unknown == 400
    assert report.unknown_of_outage == report.unknown
    assert max(arrivals(regal_sandbox).values()) == 1


@pytest.mark.parametrize("which", range(1, 25))
def test_a_commit_that_was_made_though_nobody_was_told_counts_once(
    which, deliver, database, door, regal_sandbox, ledger
):
    """The connection drops after COMMIT was sent and before it is answered: it is made again, and must count once."""
    when = (NOW - timedelta(hours=1)).isoformat()
    rows = [
        {
            "user_id": f"u{n}", "phone": f"+1212555{n:04d}", "message_id": f"m{n}", "sms_opt_in": True,
            "sms_opt_in_at": when, "sms_opt_in_ip": "203.0.113.77",
        }
        for n in range(80)
    ]  # fmt: skip
    door.commits, door.cut_at_commits = 0, [which]
    deliver(rows, database=database, timeout_s=1, now=NOW, guarantee="at_most_once")
    if door.commits < which:
        assert which > 12, "the moments of this test are those of the commits"
        pytest.skip("it has fewer commits")
    record = ledger.delivery()
    assert (record.state, record.read_rows, record.acknowledged, record.unknown) == ("finished", 80, 80, 0)
    assert set(arrivals(regal_sandbox).values()) == {1}
    assert len(ledger.outcomes()) == 80
    assert Counter(line.position for line in ledger.consent_log()) == dict.fromkeys(range(1, 81), 1)
    assert Counter(ledger.messages().values()) == {"acknowledged": 80}
    assert ledger.query(text("SELECT count(*) FROM regal_row_chunks")) == [(0,)]
