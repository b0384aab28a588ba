"""A realistic consent table: every decision anyone ever made, in the order in which it was loaded.

Its people filled in a form and are not customers, so no other example mentions them. ``change`` applies the changes of
one hour to the table.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

LEADS: Final = 300
NEW_LEADS: Final = 18
OPT_OUTS: Final = 7

SCHEMA: Final = """
CREATE TABLE consents (
    id INTEGER PRIMARY KEY, lead TEXT, phone TEXT, email TEXT, channel TEXT, subscribed, said_at TEXT, ip TEXT,
    wording TEXT, form TEXT
);
"""
INSERT: Final = """
INSERT INTO consents (lead, phone, email, channel, subscribed, said_at, ip, wording, form) VALUES (?,?,?,?,?,?,?,?,?)
"""
#: Fictional numbers (555-01xx), distinct from those of customers.
AREAS: Final = (501, 502, 503, 504)

# Leads who opted out of texts or will do so, without other peculiarities.
_OPTED_OUT: Final = 42
_WILL_OPT_OUT: Final = range(20, 20 + OPT_OUTS)
_PLAIN: Final = (*_WILL_OPT_OUT, _OPTED_OUT)
_WORDINGS: Final = {
    "sms": "Text me about free trial lessons. Msg & data rates may apply. Reply STOP to end.",
    "voice": "You may call me about free trial lessons.",
    "email": "Send me the monthly newsletter.",
}
_FORMS: Final = ("landing_page", "open_day", "partner_site")
_YES: Final = (1, "true", "TRUE")
_BAD_PHONES: Final = ("+15551234567", "n/a", "415-555")

Row = tuple[object, ...]


def consents(seed: int, now: datetime) -> Iterator[Row]:
    """Return the rows of a table that has grown for months.

    :param now: all decisions are from the ten months that ended a day before.
    """
    dice = random.Random(seed)  # noqa: S311 - guards no secret, and must be the same on every machine
    for number in range(LEADS):
        rows = [*_said_by(dice, number, now)]
        if number % 12 == 5:  # two loads overlapped
            rows.append(rows[-1])
        if number % 15 == 4:  # an old export arrived late: the later row has the older decision
            lead, phone, email, channel, subscribed, said_at, *evidence = rows[0]
            if said_at is not None:
                other = int(subscribed not in _YES)
                rows.append((lead, phone, email, channel, other, _earlier(str(said_at)), *evidence))
        yield from rows


def change(path: Path, seed: int, now: datetime) -> tuple[str, str]:
    """Apply the changes of one hour to the table: new leads, opt-outs, and one subscription from a backup.

    :returns: the phone of that subscription, which is older than the opt-out it replaces; and one that opts out.
    """
    dice = random.Random(seed + 1)  # noqa: S311 - as above
    lately = f"{now - timedelta(minutes=20):%Y-%m-%dT%H:%M:%SZ}"
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(LEADS, LEADS + NEW_LEADS):
            row = _row(number, "sms", 1, lately, phone=_phone(dice, number))
            connection.execute(INSERT, row)
        for number in _WILL_OPT_OUT:
            row = _row(number, "sms", 0, lately, ip=None, form="preference_center", phone=_phone(dice, number))
            connection.execute(INSERT, row)
        stale = _row(_OPTED_OUT, "sms", 1, f"{now - timedelta(days=200):%Y-%m-%dT%H:%M:%SZ}", form="backup")
        connection.execute("DELETE FROM consents WHERE lead = ? AND lower(channel) = 'sms'", (stale[0],))
        connection.execute(INSERT, stale)
    return _number(_OPTED_OUT), _number(_WILL_OPT_OUT[0])


def _said_by(dice: random.Random, number: int, now: datetime) -> Iterator[Row]:
    """Return the decisions of one lead: mostly yes, on one to three channels; some changed their minds."""
    when = now - timedelta(days=dice.randrange(90, 300), seconds=dice.randrange(86_400))
    if number == _OPTED_OUT:
        when = now - timedelta(days=250)
    phone = dice.choice(_BAD_PHONES) if number % 60 == 13 else _phone(dice, number)
    for channel in dice.choice((("sms",), ("sms", "voice"), ("sms", "email"), ("sms", "voice", "email"))):
        at: str | None = dice.choice((f"{when:%Y-%m-%dT%H:%M:%SZ}", f"{when:%Y-%m-%d %H:%M:%S}"))
        ip: str | None = f"203.0.113.{dice.randrange(1, 255)}"
        lacks = dice.random()
        at, ip = (None if lacks < 0.04 else at), (None if 0.04 <= lacks < 0.08 else ip)
        yes = dice.choice(_YES)
        if number in _PLAIN:
            at, ip = f"{when:%Y-%m-%dT%H:%M:%SZ}", "203.0.113.42"
        yield _row(number, channel, yes, at, ip=ip, phone=phone, form=dice.choice(_FORMS), dice=dice)
        plain = number in _PLAIN
        # An opt-out with an invalid phone would fail the task, as it should.
        if number == _OPTED_OUT or (dice.random() < 0.15 and not plain and phone not in _BAD_PHONES):
            later = when + timedelta(days=dice.randrange(1, 60) if not plain else 150)
            said_at = None if dice.random() < 0.2 and not plain else f"{later:%Y-%m-%dT%H:%M:%SZ}"
            no = dice.choice((0, "false"))
            yield _row(number, channel, no, said_at, ip=None, phone=phone, form="preference_center", dice=dice)


def _row(
    number: int,
    channel: str,
    subscribed: object,
    said_at: str | None,
    *,
    ip: str | None = "203.0.113.7",
    phone: str | None = None,
    form: str = "landing_page",
    dice: random.Random | None = None,
) -> Row:
    """Return a row; with dice, in the varied spelling of real data."""
    email = f"lead{number}@example.com"
    if dice is not None:
        email = dice.choice((email, email.upper(), f" {email.title()}"))
        channel = dice.choice((channel, channel.upper()))
    phone = phone or _number(number)
    wording = _WORDINGS[channel.lower()] if subscribed in _YES else None
    return f"lead-{number}", phone, email, channel, subscribed, said_at, ip, wording, form


def _phone(dice: random.Random, number: int) -> str:
    forms = ("+1{0}555{1:04d}", "({0}) 555-{1:04d}", "{0}.555.{1:04d}", " 1-{0}-555-{1:04d} ")
    return dice.choice(forms).format(AREAS[number // 100], 100 + number % 100)


def _number(number: int) -> str:
    return f"+1{AREAS[number // 100]}555{100 + number % 100:04d}"


def _earlier(said_at: str) -> str:
    return f"{datetime.fromisoformat(said_at).replace(tzinfo=UTC) - timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"
