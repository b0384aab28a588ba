"""The warehouse of the demo: the same on every machine, with the promised errors."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import phonenumbers
import pytest

from airflow_provider_regal.events.identifiers import read_phone
from airflow_provider_regal.events.times import read_time
from scripts.warehouse import EVENTS_AROUND_IT, EVENTS_OF_THE_DAY, make_warehouse

NOW = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)


def rows_of(path, sql):
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_warehouse(tmp_path_factory.mktemp("warehouse") / "w.db", NOW)


@pytest.fixture(scope="module")
def customers(path):
    return rows_of(path, "SELECT * FROM customers")


@pytest.fixture(scope="module")
def events(path):
    return rows_of(path, "SELECT * FROM events")


def test_the_same_seed_and_moment_give_the_same_rows(path, tmp_path):
    again = make_warehouse(tmp_path / "again.db", NOW)
    other = make_warehouse(tmp_path / "other.db", NOW, seed=1)
    for table in ("customers", "events"):
        rows = rows_of(path, f"SELECT * FROM {table}")
        assert rows == rows_of(again, f"SELECT * FROM {table}")
        assert rows != rows_of(other, f"SELECT * FROM {table}")


def test_there_are_enough_rows_to_be_worth_a_delivery(customers, events):
    assert len({row["id"] for row in customers}) >= 2_000
    assert len({row["id"] for row in events}) == len(events) >= 3_000


def test_good_numbers_are_valid_and_made_up_and_some_are_bad_or_missing(customers):
    good, bad, missing = set(), 0, 0
    for row in customers:
        try:
            good.add(read_phone(row["phone"]))
        except ValueError:
            missing += row["phone"] is None
            bad += row["phone"] is not None
    assert bad > 20
    assert missing > 50
    assert len(good) > 1_500
    for number in good:
        assert phonenumbers.is_valid_number(phonenumbers.parse(number))
        assert number[5:10] == "55501"


def test_some_customers_stand_there_twice_with_another_plan(customers):
    ids = [row["id"] for row in customers]
    twice = {number for number in ids if ids.count(number) > 1}
    assert len(twice) > 20
    for number in twice:
        first, second = (row for row in customers if row["id"] == number)
        assert first["plan"] != second["plan"]
        assert first["loaded_at"] < second["loaded_at"]


def test_two_people_share_a_landline(customers):
    phones = {row["id"]: row["phone"] for row in customers if row["id"] in (1200, 1201)}
    assert read_phone(phones[1200]) == read_phone(phones[1201])


@pytest.mark.parametrize("channel", ["sms", "voice"])
def test_consent_is_given_refused_unknown_and_without_evidence(customers, channel):
    said = {row[f"{channel}_ok"] for row in customers}
    assert said == {None, 0, 1}
    given = [row for row in customers if row[f"{channel}_ok"] == 1]
    assert any(row[f"{channel}_at"] is None for row in given)
    assert any(row[f"{channel}_ip"] is None for row in given)
    assert any(row[f"{channel}_at"] and row[f"{channel}_ip"] for row in given)


def test_amounts_are_text_and_numbers_and_names_are_of_many_alphabets(customers, events):
    assert {type(row["amount"]) for row in events} == {str, float, type(None)}
    assert {type(row["balance"]) for row in customers} == {str, float, type(None)}
    assert any(not row["first_name"].isascii() for row in customers)


def test_times_name_a_zone_or_not_and_lie_in_the_last_days(events):
    times = [row["happened_at"] for row in events]
    assert None in times
    kinds = {(time.endswith("Z"), time.endswith("+02:00")) for time in times if time}
    assert kinds == {(True, False), (False, True), (False, False)}
    read = [read_time(time) for time in times if time]
    assert all(NOW - timedelta(days=3) < time <= NOW for time in read)
    midnight = NOW.replace(hour=0, minute=0)
    of_the_day = [time for time in read if midnight - timedelta(days=1) <= time < midnight]
    assert EVENTS_OF_THE_DAY - 10 < len(of_the_day) <= EVENTS_OF_THE_DAY
    assert len(times) == EVENTS_OF_THE_DAY + 2 * EVENTS_AROUND_IT
