"""The consent log: lines stay, each wording is stored once, and what may be removed."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin.retention import KeptFor, prune
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent, LogLine, lines_of, stream_lines
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import PROVED, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW

PHONE, YES_AT = "+12125550100", "2016-01-01T08:00:00.000000Z"
OTHER = "+12125550199"
AGREED = "I agree to receive texts ✓ \N{GRINNING FACE}"


def said(identifier=PHONE, *, subscribed=True, status="acknowledged", given_at=YES_AT, text=AGREED, **more):
    ip, form, position = ("203.0.113.9", "form", 4) if subscribed else (None, None, 5)
    line = LoggedConsent(identifier, "sms", subscribed, given_at, ip, text, form, position, "a.csv line 5", status)
    return line._replace(**more)


@pytest.fixture
def database(database_url):
    with closing(open_database(database_url)) as database:
        yield database


@pytest.fixture
def account(database):
    made = Account(database, account="acme", source="dag.task", now=lambda: NOW)
    made.delivery = "7"
    return made


@pytest.fixture
def log(account):
    """Add lines."""
    return lambda *lines: account.database.write(lambda connection: account.log(connection, lines))


@on(PROVED)
def test_a_line_says_all_that_proves_a_decision(database_url, database, log):
    log(said(acknowledged_at=to_ledger_time(NOW)))
    assert list(stream_lines(database)) == [
        LogLine(
            logged_at=to_ledger_time(NOW), account="acme", identifier=PHONE, channel="sms", subscribed=True,
            given_at=YES_AT, ip="203.0.113.9", text=AGREED, form="form", task="dag.task", delivery="7", position=4,
            place="a.csv line 5", status="acknowledged", reason=None, acknowledged_at=to_ledger_time(NOW),
        )
    ]  # fmt: skip


@on(PROVED)
def test_a_wording_is_kept_once_however_many_agreed_to_it(database_url, database, log):
    log(*(said(f"+1212555{number:04}") for number in range(50)))
    log(said(), said(text="Another"), said(text=None))
    texts = database.read(lambda connection: connection.execute(select(schema.consent_texts.c.text)).scalars().all())
    assert sorted(texts) == ["Another", AGREED]
    assert [line.text for line in lines_of_person(database, PHONE)] == [AGREED, "Another", None]


def lines_of_person(database, *identifiers, **options):
    return database.read(lambda connection: lines_of(connection, identifiers, **options))


@on(PROVED)
def test_lines_are_read_back_by_person_delivery_status_and_time(database_url, database, account, log):
    log(said(), said(OTHER, subscribed=False, text=None, status="withheld", reason="no ip"))
    account.delivery, account.now = "8", lambda: NOW + timedelta(days=1)
    log(said(subscribed=False, text=None))
    assert [line.subscribed for line in lines_of_person(database, PHONE)] == [True, False]
    assert [line.delivery for line in lines_of_person(database, PHONE, limit=1)] == ["8"]
    assert lines_of_person(database, PHONE, account="another") == []
    later = to_ledger_time(NOW + timedelta(hours=1))

    def found(**options):
        return [(line.identifier, line.delivery) for line in stream_lines(database, **options)]

    assert found(delivery=7) == [(PHONE, "7"), (OTHER, "7")]
    assert found(status="withheld") == [(OTHER, "7")]
    assert found(since=later) == [(PHONE, "8")]
    assert found(until=later) == [(PHONE, "7"), (OTHER, "7")]
    assert found(account="another") == []


def test_many_lines_are_streamed_in_order(database, log):
    log(*(said(position=number) for number in range(1_203)))
    assert [line.position for line in stream_lines(database)] == list(range(1_203))


@on(PROVED)
def test_what_was_withheld_for_the_same_reason_is_not_logged_again(database_url, database, account):
    withheld = said(status="withheld", reason="no ip")

    def log_withheld(*lines):
        database.write(lambda connection: account.log_withheld(connection, lines))

    log_withheld(withheld)
    log_withheld(withheld, withheld._replace(reason="no timestamp"), withheld._replace(channel="voice"))
    assert [(line.channel, line.reason) for line in stream_lines(database)] == [
        ("sms", "no ip"), ("sms", "no timestamp"), ("voice", "no ip"),
    ]  # fmt: skip


@on(PROVED)
def test_lines_are_kept_for_ever_unless_consent_days_is_set(database_url, database, account, log):
    account.now = lambda: NOW - timedelta(days=4_000)
    log(said())
    assert not prune(database, now=NOW).decisions
    assert prune(database, now=NOW, kept_for=KeptFor(consent_days=4_001)).decisions == 0
    assert prune(database, now=NOW, kept_for=KeptFor(consent_days=3_999)).decisions == 1
    assert list(stream_lines(database)) == []


@on(PROVED)
def test_what_proves_an_opt_in_that_regal_has_is_kept_longer(database_url, database, account, log):
    account.now = lambda: NOW - timedelta(days=4_000)
    log(said(), said(OTHER), said(given_at="2020-01-01T00:00:00.000000Z"), *(said(OTHER, status="unknown"),) * 1_100)
    yes = Claim(OPT_IN, PHONE, "sms", True, YES_AT)
    database.write(lambda connection: account.settle(connection, acknowledged=[yes]))
    days = KeptFor(consent_days=365)
    assert prune(database, now=NOW, kept_for=days).decisions == 1_102
    assert [(line.identifier, line.given_at) for line in stream_lines(database)] == [(PHONE, YES_AT)]
    database.write(
        lambda connection: account.settle(connection, acknowledged=[Claim(OPT_IN, PHONE, "sms", False, YES_AT)])
    )
    assert prune(database, now=NOW, kept_for=days).decisions == 1
    count = select(func.count()).select_from(schema.consent_log)
    assert database.read(lambda connection: connection.execute(count).scalar_one()) == 0
