"""The example DAGs together over a month in which people change their minds: Regal ends with the newest decisions."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.dags.test_examples import example, report_of, reported, run_of_the_day, say, warehouse

__all__ = ["warehouse"]  # a fixture
DAYS, PEOPLE, CUSTOMERS_KEPT = 30, 12, 200
CHANNELS = ("sms", "voice")
IP = "203.0.113.9"
TASKS = {
    "02_contacts_and_events": ("contacts",),
    "03_opt_in_sync": ("opt_ins",),
    "04_segment_archive": ("archive",),
    "05_opt_outs_of_regal": ("opt_outs_of_regal", "opt_ins"),
}


def user(person):
    return str(9_000 + person)


def phone(person):
    return f"+1505555{100 + person:04d}"


class Month:
    """What people decide, where it is written down, and what counts in the end."""

    def __init__(self, seed, path, regal):
        self.chance = random.Random(seed)
        self.path, self.regal = path, regal
        self.archive = Path(os.environ["AIRFLOW_HOME"]) / "segment-logs"
        shutil.rmtree(self.archive, ignore_errors=True)
        self.newest: dict[tuple[str, str], tuple[datetime, bool]] = {}  # time, and whether it is an opt-out
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM customers WHERE id >= ?", (1_000 + CUSTOMERS_KEPT,))
            connection.executemany(
                "INSERT INTO customers (id, loaded_at, first_name, phone) VALUES (?, '2026-01-02 04:00:00', 'Anne', ?)",
                [(int(user(person)), phone(person)) for person in range(PEOPLE)],
            )

    def passes(self, day):
        """Let somebody decide something, somewhere; a file may come some days late."""
        ways = (self.in_the_table, self.as_a_customer, self.on_the_website, self.to_regal)
        keys = [(person, channel) for person in range(PEOPLE) for channel in CHANNELS]
        for person, channel in self.chance.sample(keys, self.chance.randint(3, 8)):
            late = timedelta(days=self.chance.choice([0, 0, 0, 1, 5]), minutes=self.chance.randrange(1_000))
            at = (day - late).replace(microsecond=0)
            self.chance.choice(ways)(person, channel, self.chance.random() < 0.6, at)

    def decided(self, person, channel, yes, at):
        key = (phone(person), channel)
        self.newest[key] = max(self.newest.get(key, (at, not yes)), (at, not yes))

    def in_the_table(self, person, channel, yes, at):
        ip = IP if self.chance.random() < 0.9 else None
        timeless = not yes and self.chance.random() < 0.1
        written = None if timeless else at.isoformat()
        say(self.path, (user(person), phone(person), None, channel, int(yes), written, ip, "I agree", "form"))
        if timeless:
            self.decided(person, channel, yes, datetime.now(UTC))  # without a time, it counts as given when read
        elif ip is not None or not yes:
            self.decided(person, channel, yes, at)

    def as_a_customer(self, person, channel, yes, at):
        columns = f"{channel}_ok = ?, {channel}_at = ?, {channel}_ip = ?"
        with closing(sqlite3.connect(self.path)) as connection, connection:
            told = (int(yes), at.isoformat(), IP, int(user(person)))
            connection.execute(f"UPDATE customers SET {columns} WHERE id = ?", told)
        self.decided(person, channel, yes, at)

    def on_the_website(self, person, channel, yes, at):
        opt_in = {"channel": channel, "subscribed": yes, "timestamp": at.isoformat(), "ip": IP}
        traits = {"phone": phone(person), "optIn": [opt_in]}
        message = {"type": "identify", "userId": user(person), "traits": traits, "timestamp": at.isoformat()}
        if not yes and self.chance.random() < 0.5:
            message["integrations"] = {"All": False}
        self.archive.mkdir(exist_ok=True)
        with gzip.open(self.archive / "calls.gz", "at") as file:
            file.write(json.dumps(message) + "\n")
        self.decided(person, channel, yes, at)

    def to_regal(self, person, channel, yes, at):
        """STOP or START, which is at once; the webhook reports it, and Regal has it already."""
        name = "contact.subscribed" if yes else "contact.unsubscribed"
        at = max([at, *(told[0] for key, told in self.newest.items() if key == (phone(person), channel))])
        at = min(at + timedelta(seconds=1), datetime.now(UTC).replace(microsecond=0))
        reported(self.path, (name, phone(person), None, channel, str(int(at.timestamp()))))
        opt_in = {"subscribed": yes, "timestamp": f"{at:%Y-%m-%d %H:%M:%S} +00:00", "ip": IP}
        body = {"traits": {"phones": {phone(person): {f"{channel}OptIn": opt_in}}}, "eventSource": "agent"}
        headers = {"Authorization": self.regal.api_key, "Content-Type": "application/json"}
        with urlopen(Request(f"{self.regal.url}/events", json.dumps(body).encode(), headers), timeout=10):
            self.decided(person, channel, yes, at)

    def at_regal(self):
        found = {}
        for number, channel in self.newest:
            contact = self.regal.contact(phone=number)
            found[number, channel] = contact and contact["phones"][number][channel]["status"]
        return found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_after_a_month_regal_has_the_newest_decision_of_everybody(run_dag, regal, warehouse, tmp_path, seed):
    month, runs = Month(seed, tmp_path / "warehouse.db", regal), Counter()
    begin = datetime.now(UTC) - timedelta(days=DAYS)
    for number in range(DAYS + 1):
        month.passes(begin + timedelta(days=number))
        # Regal's own opt-outs are read before anything is sent, as the docs on consent say.
        first = ["05_opt_outs_of_regal"]
        rest = month.chance.sample(sorted({*TASKS} - {*first}), 3 if number == DAYS else 2)
        for stem in [*first, *rest]:
            run = run_of_the_day(run_dag, example(stem), warehouse + timedelta(days=number))
            assert str(run.state) == "success", (number, stem)
            for task in TASKS[stem]:
                runs[task] += report_of(run, task)["read"] is not None
    assert sum(runs.values()) > 3 * DAYS

    words = {True: "Unsubscribed", False: "Subscribed"}
    assert month.at_regal() == {key: words[no] for key, (_, no) in month.newest.items()}
    assert len(month.newest) == PEOPLE * len(CHANNELS)
    assert {no for _, no in month.newest.values()} == {True, False}
