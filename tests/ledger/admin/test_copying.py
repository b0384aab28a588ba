"""A ledger copied into another database."""

from __future__ import annotations

import itertools
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import select

from airflow_provider_regal.errors import WrongLedgerError
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.copying import copy_ledger
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from tests.databases import PROVED, SERVERS, on
from tests.ledger.view import open_database
from tests.ledger.written import NOW, line, write

PHONE = "+12125550100"
YES_AT = "2026-11-01T08:00:00.000000Z"
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def source_url(tmp_path):
    return f"sqlite:///{tmp_path / 'source.db'}"


@pytest.fixture
def both(source_url, database_url, tmp_path):
    """Open a source with something of everything, and an empty target."""
    if database_url == f"sqlite:///{tmp_path / 'ledger.db'}":
        database_url = f"sqlite:///{tmp_path / 'target.db'}"
    fill(source_url)
    with closing(open_database(source_url)) as source, closing(open_database(database_url)) as target:
        yield source, target, database_url


def fill(url, **options):
    log = [
        LoggedConsent(
            PHONE, "sms", True, YES_AT, "203.0.113.9", "I agree ✓ \N{GRINNING FACE}", "form", 1, None, "acknowledged"
        )
    ]
    lines = [
        line(number, user_id=f"u{number % 7}", payload={"n": number, "text": "é\0 \ud800"})
        for number in range(1, 2_345)
    ]
    write(
        url, run="a", lines=lines, state="failed", log=log * 30, acknowledged=[(PHONE, "sms", True, YES_AT)], **options
    )
    consents = [(f"+1212555{number:04d}", "sms", True, YES_AT) for number in range(1_500)]
    contacts = [(f"u{number}", "r", None) for number in range(1_100)]
    phones = [(f"u{number % 40}", f"+1212555{number:04d}") for number in range(1_100)]
    rows = [{"user_id": f"u{number}"} for number in range(100)]
    more = {"acknowledged": consents, "contacts": contacts, "phones": phones, "at": LATER}
    write(url, run="b", rows=rows, state="stopped", **more, **options)


def everything(database):
    tables = [table for table in schema.metadata.sorted_tables if table is not schema.schema_version]
    return {
        table.name: database.read(
            lambda connection, table=table: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
        )
        for table in tables
    }


@on([*PROVED, SERVERS[1]])
def test_everything_is_copied_as_it_is(both):
    source, target, _ = both
    told = {}
    copied = copy_ledger(source, target, on_table=told.__setitem__)
    there = everything(target)
    assert there == everything(source)
    assert copied == told == {name: len(rows) for name, rows in there.items()}
    assert copied["regal_outcomes"] == 2_344


@on(PROVED)
def test_the_copy_can_be_used_at_once(both):
    source, target, url = both
    source.write(
        lambda connection: connection.exec_driver_sql(
            "UPDATE sqlite_sequence SET seq = 70 WHERE name = 'regal_deliveries'"
        )
    )
    copy_ledger(source, target)
    # The same account, recognized by the hash of its API key.
    assert Account(target, account="acme").register("key") is None
    with pytest.raises(WrongLedgerError, match="have the same API key"):
        Account(target, account="other").register("key")
    log = [LoggedConsent(PHONE, "sms", False, YES_AT, None, None, None, 1, None, "acknowledged")]
    number = write(url, run="c", lines=[line(1)], at=LATER + timedelta(hours=1), log=log)
    assert number == 71  # an id is never reused
    assert [record.id for record in history.list_deliveries(target)] == [71, 2, 1]


@on(PROVED)
def test_a_target_that_holds_something_is_refused_and_left_as_it_was(both):
    source, target, url = both
    write(url, lines=[line(1)], account="zenith")
    before = everything(target)
    with pytest.raises(
        WrongLedgerError, match=r"not empty \(regal_accounts 1, regal_deliveries 1, regal_outcomes 1, regal_tries 1\)"
    ):
        copy_ledger(source, target)
    assert everything(target) == before


@on(PROVED)
def test_what_fails_half_way_leaves_nothing(both):
    source, target, _ = both
    tables = itertools.count()

    def fail(name, rows):
        if next(tables) == 4:
            raise RuntimeError(name)

    with pytest.raises(RuntimeError):
        copy_ledger(source, target, on_table=fail)
    assert not any(everything(target).values())
    copy_ledger(source, target)


def test_a_ledger_in_use_is_not_copied(source_url, tmp_path):
    number = write(source_url, rows=[{"a": 1}], state=None)
    with closing(open_database(source_url)) as source, closing(open_database(tmp_path / "target.db")) as target:
        source.write(lambda connection: connection.exec_driver_sql(
            f"UPDATE regal_deliveries SET held_at = {source.now_sql}"
        ))  # fmt: skip
        with pytest.raises(WrongLedgerError, match=rf"Deliveries are running on the ledger \({number}\)"):
            copy_ledger(source, target)


@pytest.mark.services
def test_a_ledger_in_postgres_can_be_copied_too(postgres_url, tmp_path):
    fill(postgres_url)
    with closing(open_database(postgres_url)) as source, closing(open_database(tmp_path / "target.db")) as target:
        copy_ledger(source, target)
        assert everything(target) == everything(source)
