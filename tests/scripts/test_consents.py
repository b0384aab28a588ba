"""The consents of the demo: the same on every machine, with the promised errors, and the changes of an hour."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime

import phonenumbers
import pytest

from airflow_provider_regal.events.identifiers import read_phone
from airflow_provider_regal.events.times import read_time
from scripts import warehouse
from scripts.consents import LEADS, NEW_LEADS, OPT_OUTS, change
from scripts.opt_ins import Newest

NOW = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM consents ORDER BY id")]


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory):
    path = warehouse.make_warehouse(tmp_path_factory.mktemp("warehouse") / "w.db", NOW)
    before = rows_of(path)
    phones = change(path, warehouse.SEED, NOW)
    return before, rows_of(path), phones


@pytest.fixture
def rows(before_and_after):
    return before_and_after[0]


def yes(row):
    return str(row["subscribed"]).lower() in ("1", "true")


def test_the_same_seed_and_moment_give_the_same_rows(rows, tmp_path):
    assert rows == rows_of(warehouse.make_warehouse(tmp_path / "again.db", NOW))
    assert rows != rows_of(warehouse.make_warehouse(tmp_path / "other.db", NOW, seed=1))


def test_it_is_a_history_with_repeats_and_rows_that_came_late(rows):
    words = Counter(tuple(value for name, value in row.items() if name != "id") for row in rows)
    assert sum(times > 1 for times in words.values()) > 20
    late = 0
    newest = {}
    for row in rows:
        key, at = (row["lead"], row["channel"].lower()), row["said_at"]
        if at is not None:
            late += read_time(at) < newest.get(key, read_time(at))
            newest[key] = max(read_time(at), newest.get(key, read_time(at)))
    assert late > 10
    assert all(time < NOW for time in newest.values())


def test_consent_lacks_its_evidence_and_opt_outs_lack_their_time(rows):
    assert sum(yes(row) and row["said_at"] is None for row in rows) > 10
    assert sum(yes(row) and row["ip"] is None for row in rows) > 10
    assert sum(not yes(row) and row["said_at"] is None for row in rows) > 5
    assert {row["subscribed"] for row in rows} == {0, 1, "true", "TRUE", "false"}


def test_phones_emails_and_channels_are_spelled_as_people_do(rows):
    assert {row["channel"] for row in rows} == {"sms", "SMS", "voice", "VOICE", "email", "EMAIL"}
    assert len({row["email"].strip().lower() for row in rows}) == LEADS
    assert len({row["email"] for row in rows}) > 1.5 * LEADS
    bad = 0
    for row in rows:
        try:
            assert phonenumbers.is_valid_number(phonenumbers.parse(read_phone(row["phone"])))
        except ValueError:
            bad += 1
    assert 5 < bad < 0.05 * len(rows)


def numbers(phones):
    found = set()
    for phone in phones:
        with suppress(ValueError):
            found.add(read_phone(phone))
    return found


def test_nobody_in_it_is_a_customer(rows, tmp_path):
    path = warehouse.make_warehouse(tmp_path / "w.db", NOW)
    with closing(sqlite3.connect(path)) as connection:
        customers = numbers(phone for (phone,) in connection.execute("SELECT phone FROM customers"))
    assert len(customers) > 1_500
    assert not customers & numbers(row["phone"] for row in rows)


def test_an_hour_brings_new_leads_opt_outs_and_one_yes_that_is_older_than_a_no(before_and_after):
    before, after, (stale, opted_out) = before_and_after
    known, now = Newest.of(before).consents, Newest.of(after).consents
    newer = {key: word for key, word in now.items() if word > known.get(key, ("", False))}
    assert Counter(no for _, no in newer.values()) == {False: NEW_LEADS, True: OPT_OUTS}
    assert (known[opted_out, "sms"][1], now[opted_out, "sms"][1]) == (False, True)
    assert known[stale, "sms"][1], "it was an opt-out"
    assert not now[stale, "sms"][1]
    assert now[stale, "sms"] < known[stale, "sms"]
