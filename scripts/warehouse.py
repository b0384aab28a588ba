"""A realistic warehouse in SQLite: customers, what they did, and consents, with the errors of real tables.

The same seed and time produce the same rows. All people are fictional; all numbers end in 555-01xx, which telephone
companies do not assign.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from scripts import consents

CUSTOMERS: Final = 2_000
EVENTS_OF_THE_DAY: Final = 2_400
EVENTS_AROUND_IT: Final = 400
SEED: Final = 20_260_101

SCHEMA: Final = """
CREATE TABLE customers (
    id INTEGER, loaded_at TEXT, first_name TEXT, last_name TEXT, phone TEXT, email TEXT, plan TEXT, balance, born TEXT,
    sms_ok INTEGER, sms_at TEXT, sms_ip TEXT, voice_ok INTEGER, voice_at TEXT, voice_ip TEXT, wording TEXT, brand TEXT
);
CREATE TABLE regal_webhooks (
    id INTEGER PRIMARY KEY, name TEXT, user_id TEXT, phone TEXT, email TEXT, channel TEXT, original_timestamp TEXT
);
CREATE TABLE events (id INTEGER, customer_id INTEGER, name TEXT, happened_at TEXT, amount, currency TEXT, course TEXT);
"""

_AREAS: Final = (
    *(212, 213, 214, 215, 216, 217, 218, 219, 301, 302, 303, 304, 305),
    *(307, 308, 309, 310, 312, 313, 314, 315, 316, 317, 318, 319, 415),
)
_FIRST: Final = ("Anne", "Zoë", "José", "Łukasz", "Siân", "Nguyễn", "美咲", "Олена", "Maryam", "Björn", "Aoife", "Ravi")
_LAST: Final = ("Smith", "O'Brien", "Müller", "García", "Šimić", "Østergård", "d'Angelo", "van der Berg", "李", "Ng")
_NAMES: Final = ("Lesson Booked", "Lesson Attended", "Invoice Paid", "Course Finished")
_COURSES: Final = ("Piano", "Violin", "Français", "Maths", None)
_BAD_PHONES: Final = ("+15551234567", "555-0100", "n/a", "(212) 555-0100 ext. 12", "2125550")
_WORDING: Final = "I agree to receive automated texts and calls about my lessons."
_CENTRAL_EUROPE: Final = timezone(timedelta(hours=2))

Row = tuple[object, ...]


def make_warehouse(path: Path, now: datetime, seed: int = SEED) -> Path:
    """Create the database, replacing an existing one.

    :param now: determines the days of the events: most are on the last whole day (UTC) before it.
    """
    # This protects no secret, and must be the same on every machine.
    dice = random.Random(seed)  # noqa: S311
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    with connection:
        connection.executescript(SCHEMA + consents.SCHEMA)
        connection.executemany("INSERT INTO customers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", customers(dice))
        connection.executemany("INSERT INTO events VALUES (?,?,?,?,?,?,?)", events(dice, now))
        connection.executemany(consents.INSERT, consents.consents(seed, now))
    connection.close()
    return path


def customers(dice: random.Random) -> Iterator[Row]:
    """Return the customers: some without a phone, some with a bad one, some twice, two who share a landline."""
    for number in range(CUSTOMERS):
        row = _customer(dice, number)
        yield row
        if number % 50 == 7:  # the next day's load, with another plan: the same id again
            yield (row[0], "2026-01-03 04:00:00", *row[2:6], "gold" if row[6] != "gold" else "basic", *row[7:])


def _customer(dice: random.Random, number: int) -> Row:
    first, last = dice.choice(_FIRST), dice.choice(_LAST)
    email = f"customer{number}@example.com"
    phone: str | None = _phone(dice, number)
    if number % 25 == 3:
        phone = None
    elif number % 40 == 11:
        phone = dice.choice(_BAD_PHONES)
    elif number == 201:
        phone = _phone(dice, 200)  # two people, one landline
    if dice.random() < 0.1:
        email = dice.choice((None, "", f"  {email.upper()} "))
    balance = dice.choice((None, f"{dice.randrange(100_000) / 100:.2f}", dice.randrange(100_000) / 100))
    born = f"{dice.randrange(1950, 2008)}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}"
    plan = dice.choice(("basic", "silver", "gold", None))
    sms, voice = _consent(dice), _consent(dice)
    if phone is None and number % 200 != 3:  # the others consented to calls, but for an unknown number
        sms = voice = (None, None, None)
    if phone in _BAD_PHONES and 0 in (sms[0], voice[0]):  # a no without a person would fail the task, as it should
        sms = voice = (None, None, None)
    wording = _WORDING if sms[0] or voice[0] else None
    return (
        1_000 + number,
        "2026-01-02 04:00:00",
        first,
        last,
        phone,
        email,
        plan,
        balance,
        born,
        *sms,
        *voice,
        wording,
        ("north", "south")[number % 2],
    )


def _phone(dice: random.Random, number: int) -> str:
    area, line = _AREAS[number // 100], 100 + number % 100
    forms = ("+1{0}555{1:04d}", "({0}) 555-{1:04d}", "{0}.555.{1:04d}", " 1-{0}-555-{1:04d} ")
    return dice.choice(forms).format(area, line)


def _consent(dice: random.Random) -> Row:
    """Return a yes, a no or nothing; a yes has its evidence, or lacks the time or the address."""
    said = dice.choice((None, None, 0, 1, 1, 1))
    when = f"2025-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}"
    at = f"{when}T{dice.randrange(24):02d}:15:30{dice.choice(('', 'Z', '+02:00'))}"
    address = f"203.0.113.{dice.randrange(1, 255)}"
    if said is None:
        return None, None, None
    lacks = dice.random()
    return said, None if lacks < 0.1 else at, None if 0.1 <= lacks < 0.2 else address


def events(dice: random.Random, now: datetime) -> Iterator[Row]:
    """Return the events: of the last whole day, of the day before it, and of today until now."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = timedelta(days=1)
    spans = (
        (EVENTS_AROUND_IT, midnight - 2 * day, day),
        (EVENTS_OF_THE_DAY, midnight - day, day),
        (EVENTS_AROUND_IT, midnight, now - midnight),
    )
    number = 0
    for count, begins, lasts in spans:
        for step in range(count):
            number += 1
            yield _event(dice, number, begins + lasts * (step / count))


def _event(dice: random.Random, number: int, happened: datetime) -> Row:
    customer: int | None = 1_000 + dice.randrange(CUSTOMERS)
    happened = happened.replace(microsecond=0)
    at: str | None = dice.choice(
        (
            f"{happened:%Y-%m-%d %H:%M:%S}",
            f"{happened:%Y-%m-%dT%H:%M:%SZ}",
            happened.astimezone(_CENTRAL_EUROPE).isoformat(),
        )
    )
    cents = dice.randrange(1_000, 20_000)
    amount: object = dice.choice((f"{cents / 100:.2f}", cents / 100, None))
    if number % 90 == 5:
        customer = None
    elif number % 110 == 9:
        amount = "n/a"
    elif number % 400 == 17:
        at = None
    return number, customer, dice.choice(_NAMES), at, amount, "USD", dice.choice(_COURSES)
