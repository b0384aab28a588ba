"""The rows of the incidents: healthy days are alike, and each fault matches its name."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from scripts.incidents.data import EARLIER_RUNS, INCIDENTS, rows_of, with_trouble, write_tables


def people_of(name: str) -> set[str]:
    return {row[key] for row in rows_of(INCIDENTS[name], 0) for key in ("user_id", "phone")}


@pytest.mark.parametrize("name", INCIDENTS)
def test_healthy_days_are_alike_and_no_two_incidents_share_a_person(name):
    days = [rows_of(INCIDENTS[name], ago) for ago in range(EARLIER_RUNS + 1)]
    assert all(0.9 < len(one) / len(days[0]) < 1.1 for one in days)
    people, others = people_of(name), [people_of(other) for other in INCIDENTS if other != name]
    assert all(people.isdisjoint(one) for one in others)
    assert days[0][0] != days[1][0], "only_changed sends it each day"


def test_seven_percent_of_the_phones_are_bad():
    right = rows_of(INCIDENTS["bad-phones"], 0)
    bad = [row for row, was in zip(with_trouble(INCIDENTS["bad-phones"], right), right, strict=True) if row != was]
    assert 0.065 < len(bad) / len(right) < 0.075
    assert all("xxx" in row["phone"] for row in bad)


def test_a_number_is_text_in_the_warehouse_and_a_number_in_its_twin(tmp_path):
    write_tables(tmp_path / "warehouse.db", INCIDENTS["text-column"])
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as warehouse:
        for table, kind in (("customers", "text"), ("customers_right", "integer")):
            found = warehouse.execute(f"SELECT DISTINCT typeof(credit_score) FROM {table}").fetchall()
            assert found == [(kind,)]
