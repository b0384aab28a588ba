"""Random histories of consent: who decides what, in which form of a row, by which path, and what fails meanwhile.

A history is determined by its seed. It contains the package's input and, for each row, what the row means.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from tests.consent_model.model import Options, Row, Statement

PEOPLE = (1, 2, 3)
EVENT = "SMS Consent Given"
LEDGER_KEY = "the key of the ledger"
#: The clocks show an hour twice on the first Sunday of November, from 5:00 to 7:00 UTC.
NEW_YORK = "America/New_York"
CHANNELS = ("sms", "voice", "email")
YES = [True, True, "true", "T", 1, 1.0, "1", Decimal(1)]
NO = [
    False, False, 0, 0.0, "f", "no", "Off", "0.0", Decimal("0.00"), "unsubscribed", "OPTED_OUT", "opt-out", "STOP ",
    "revoked", "Denied",
]  # fmt: skip
UNREADABLE = ["yes", "maybe", 2, "ja"]
UNKNOWN = [None, "", float("nan")]
NO_TIMES = ["soon", "13/13/2026"]
NOT_ROUTABLE = ["10.0.0.5", "127.0.0.1", "0.0.0.0", "192.168.1.7"]
NO_ADDRESSES = ["unknown", "203.0.113.9:443"]
EVIDENCE = {"_at": "timestamp", "_ip": "ip"}
#: Columns for a second phone in a wide row, which SQL can't name.
WORK = {
    "work": "phones.work",
    **{f"w_{c}{e}": f"phones.work_{c}_opt_in{e}" for c in ("sms", "voice") for e in ("", "_at", "_ip")},
}


@dataclass(frozen=True)
class Crash:
    """What goes wrong.

    :param kind: ``answer`` (one bad answer), ``lost`` (bad answers from a request on), ``down`` (503 from then on),
        ``silent`` (no answer), ``killed`` (SIGKILL at that request), ``killed reading`` (after this many rows),
        ``ledger`` (the database fails after this many transactions), ``frozen`` (SIGSTOP at that request; another try
        takes over; SIGCONT), ``backends`` (PostgreSQL's are terminated from that transaction on, a few times).
    :param do: the script for the local Regal.
    """

    kind: str
    after: int
    do: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind} at {self.after}{f' {self.do}' if self.do else ''}"


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    :param kind: ``contacts``, ``segment``, ``named``, ``sync``, ``one`` (an event operator or hook call), ``regal``
        (Regal's own decisions, read with ``known_to_regal``), ``redeliver``, ``retry``, ``clear``, ``suppress``,
        ``release`` (taken off the list), ``forget``.
    :param source: the task.
    :param minutes: that pass before it.
    :param written: the rows as passed to the package.
    :param rows: what they mean.
    :param settings: of the delivery; so ``sync``.
    :param people: the people it is about, unless it is a delivery: phones, emails, ``user:<id>``.
    :param wrong: what was replaced: ``ledger`` (by an empty one), ``key`` (its secret), ``account``.
    """

    kind: str
    source: str = "dag.task"
    minutes: int = 1
    written: tuple[dict[str, Any], ...] = ()
    rows: tuple[Row, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    sync: dict[str, Any] | None = None
    options: Options = field(default_factory=Options)
    crash: Crash | None = None
    people: tuple[str, ...] = ()
    wrong: str | None = None

    def __str__(self) -> str:
        sync = "" if self.sync is None else f" sync={self.sync}"
        more = f" wrong {self.wrong}" if self.wrong else f" {', '.join(self.people)}"
        lines = [f"{self.kind} of {self.source}, {self.minutes} min later: {self.settings}{sync} crash: {self.crash}"]
        lines[0] += more
        lines += [f"    {row!r}" for row in self.written]
        return "\n".join(lines)


@dataclass(frozen=True)
class History:
    """Steps, and when they begin.

    :param ledger_key: identifiers are stored as an HMAC with it; None to store them in plain text.
    """

    seed: int
    begin: datetime
    steps: tuple[Step, ...]
    ledger_key: str | None = None

    def __str__(self) -> str:
        numbered = (f"{number:3} {step}" for number, step in enumerate(self.steps))
        key = ", with a ledger_key" if self.ledger_key else ""
        return f"history of seed {self.seed}, from {self.begin}{key}\n" + "\n".join(numbered)

    def draws(self) -> set[str]:
        """Name the rare features that were drawn."""
        found = {"ledger_key"} if self.ledger_key else set[str]()
        for step in self.steps:
            found |= {step.kind, f"crash: {step.crash.kind}" if step.crash else "", f"wrong {step.wrong}"}
            found |= {f"{name}={value}" for name, value in (step.sync or {}).items() if name in _TOLD}
            found |= {name for name in ("suppress_named_events", "lose_owed") if step.settings.get(name)}
            if any(_is_shown_twice(one.at, step.options.zone) for row in step.rows for one in row.statements):
                found.add("a time that a clock shows twice")
        return found


_TOLD = ("initial", "max_change_ratio", "on_removed", "full_resync", "known_to_regal")


def _is_shown_twice(at: Any, zone: str) -> bool:
    if not isinstance(at, datetime) or at.tzinfo is not None:
        return False
    early, late = (at.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
    return early != late


def last_hour_shown_twice(now: datetime) -> datetime:
    """Return when the clocks of New York were last set back, at least two days ago."""
    ends = []
    for year in (now.year, now.year - 1):
        first = datetime(year, 11, 1, 6, tzinfo=UTC)
        ends.append(first + timedelta(days=(6 - first.weekday()) % 7))
    return max(end for end in ends if end < now - timedelta(days=2))


def history(seed: int, *, steps: int = 10, kills: bool = True) -> History:
    """Make the history of a seed.

    :param kills: run some deliveries in separate processes, which are killed.
    """
    # Event operators read the real clock, so the history's clock runs behind it.
    chance, now = random.Random(seed), datetime.now(UTC)
    begin = (now - timedelta(days=2)).replace(hour=2, minute=0, second=0, microsecond=0)
    key = LEDGER_KEY if chance.random() < 0.15 else None
    zone = NEW_YORK if chance.random() < 0.25 else None
    if zone is not None:
        begin = last_hour_shown_twice(now) - timedelta(minutes=8)
    made = _Maker(chance, begin, kills=kills, zone=zone)
    happened = [made.step() for _ in range(steps)]
    if chance.random() < 0.15:
        happened += made.lost_ledger()
    return History(seed, begin, tuple(happened), key)


def home(person: int) -> str:
    return f"+1212555010{person}"


def work(person: int) -> str:
    return f"+1212555020{person}"


def email(person: int) -> str:
    return f"p{person}@example.com"


class _Maker:
    def __init__(self, chance: random.Random, begin: datetime, *, kills: bool, zone: str | None) -> None:
        self.chance, self.now, self.kills, self.zone = chance, begin, kills, zone
        self.table: list[tuple[dict[str, Any], Row]] = []
        self.by_event_table: list[tuple[dict[str, Any], Row]] = []
        self.removes = chance.random() < 0.4
        self.messages = 0
        self.naive = False  # whether times may be written without a zone
        self.script: list[Step] = []  # the rest of a scene

    def maybe(self, share: float) -> bool:
        return self.chance.random() < share

    def person(self) -> int:
        """Return a person; mostly the same, so that decisions meet."""
        return self.chance.choices(PEOPLE, [6, 3, 1])[0]

    def step(self) -> Step:
        minutes = self.chance.randint(1, 2)
        self.now += timedelta(minutes=minutes)
        self.naive = self.zone is not None
        makers: dict[Callable[[], Step], int] = {
            self.contacts: 24, self.segment: 10, self.named: 8, self.table_sync: 20, self.late_sync: 8,
            self.by_event: 10, self.one: 10, self.regal: 4, self.redeliver: 4, self.retry: 12, self.clear: 5,
            self.suppress: 5, self.release: 4, self.forget: 3,
        }  # fmt: skip
        scenes = [
            self.tie, self.by_user_id, self.unreadable_later, self.in_doubt, self.stop, self.broken_join,
            self.vanished, self.held_events, self.old_table, self.shown_twice,
        ]  # fmt: skip
        if not self.script and self.maybe(0.12):
            self.script = self.chance.choice(scenes)()
        if self.script:
            return replace(self.script.pop(0), minutes=minutes)
        (make,) = self.chance.choices([*makers], [*makers.values()])
        step = replace(make(), minutes=minutes)
        if step.kind in ("contacts", "segment", "named", "sync", "redeliver") and self.maybe(0.06):
            wrongs = ["key", "account"] + ["ledger"] * 3 * (step.kind in ("sync", "redeliver"))
            return replace(step, wrong=self.chance.choice(wrongs))
        return replace(step, crash=self.crash(step))

    # -- scenes that chance alone would rarely make

    def tie(self) -> list[Step]:
        """A no that Regal does not get, and a yes of the same second; neither delivery sends what is owed."""
        person, at = self.person(), self.now - timedelta(minutes=1)
        no = Statement(f"u{person}", home(person), "sms", False, at, None)
        yes = replace(no, answer=True, at=at + timedelta(milliseconds=900), ip="203.0.113.9")
        down = Crash("down", 1, {"status": 503, "retry_after": 900, "store": False})
        return [replace(self.event_of(no), crash=down), self.event_of(yes)]

    def event_of(self, one: Statement) -> Step:
        written = {"user_id": one.user, "phone": one.point, "event": "Lesson Booked", "opt_in": [self.opt_in(one)]}
        return self.made("named", [(written, Row((one,)))], {}, Options(contacts=False))

    def by_user_id(self) -> list[Step]:
        """A no by a user id whose phone is on record only later, and an older yes by the user id."""
        person, channel = self.person(), self.chance.choice(CHANNELS[:2])
        no = Statement(f"u{person}", None, channel, False, self.now - timedelta(minutes=1), None)
        yes = replace(no, answer=True, at=no.at - timedelta(minutes=self.chance.randint(0, 1)), ip="203.0.113.9")
        contact = {"user_id": f"u{person}", "phone": home(person)}
        return [
            self.sync_of([no], as_event=EVENT),
            self.made("contacts", [(contact, Row(()))], {}, Options()),
            self.sync_of([yes], as_event=EVENT),
        ]

    def unreadable_later(self) -> list[Step]:
        """A yes, and a later decision that can't be read, in one table."""
        person = self.person()
        yes = Statement(f"u{person}", home(person), "sms", True, self.now - timedelta(minutes=2), "203.0.113.9")
        odd = replace(yes, answer="maybe", at=yes.at + timedelta(minutes=self.chance.randint(0, 1)))
        return [self.sync_of([yes, odd])]

    def in_doubt(self) -> list[Step]:
        """An event that one delivery could not send, another may have sent, and the first still has to send."""
        person = self.person()
        yes = Statement(f"u{person}", home(person), "sms", True, self.now - timedelta(minutes=1), "203.0.113.9")
        down = Crash("down", 1, {"status": 503, "retry_after": 900, "store": False})
        lost = Crash("lost", 1, {"status": 500, "store": True})
        first, second = (self.sync_of([yes], as_event=EVENT) for _ in range(2))
        return [replace(first, crash=down), replace(second, crash=lost), Step("retry")]

    def stop(self) -> list[Step]:
        """A person replies STOP, which only Regal knows; a sync has an older yes."""
        person = self.person()
        no = Statement(f"u{person}", home(person), "sms", False, self.now)
        yes = replace(no, answer=True, at=self.now - timedelta(minutes=self.chance.randint(0, 1)), ip="203.0.113.9")
        return [self.regal_of(no), self.sync_of([yes])]

    def everybody(self) -> list[tuple[int, str, str]]:
        """Return every point and channel: more than a guard always allows."""
        phones = [(one, place(one), c) for one in PEOPLE for place in (home, work) for c in CHANNELS[:2]]
        return phones + [(one, email(one), "email") for one in PEOPLE]

    def all_of(self, subscribed: Callable[[int], bool], ago: int) -> list[Statement]:
        at = self.now - timedelta(minutes=ago)
        return [
            Statement(f"u{person}", point, channel, subscribed(number), at, "203.0.113.9")
            for number, (person, point, channel) in enumerate(self.everybody())
        ]

    def broken_join(self) -> list[Step]:
        """A table with the consents of all people, and the same table with all of them inverted."""
        first, turned = self.all_of(lambda n: n % 2 == 0, 1), self.all_of(lambda n: n % 2 == 1, 0)
        return [self.sync_of(first), self.sync_of(turned, max_change_ratio=self.chance.choice([0.0, 0.5, 0.5, 1.0]))]

    def vanished(self) -> list[Step]:
        """All people say yes, and then disappear from the table."""
        ratio = self.chance.choice([0.2, 0.5, None])
        gone = self.sync_of([], max_change_ratio=ratio, on_removed="opt_out")
        return [self.sync_of(self.all_of(lambda n: True, 1)), gone]

    def held_events(self) -> list[Step]:
        """A person says no to everything, and then has an event that is not an opt-in."""
        person = self.person()
        points = [(home(person), "sms"), (home(person), "voice"), (email(person), "email")]
        noes = [Statement(f"u{person}", point, channel, False, self.now) for point, channel in points]
        written = {"user_id": f"u{person}", "phone": home(person), "email": email(person), "event": "Lesson Booked"}
        settings = {"suppress_named_events": True, "max_rejected": 1.0}
        event = self.made("named", [(written, Row(()))], settings, Options(contacts=False, holds_events=True))
        return [self.sync_of(noes), event]

    def old_table(self) -> list[Step]:
        """A person is suppressed or forgotten, and returns with a new yes, and perhaps a new no."""
        person = self.person()
        yes = Statement(f"u{person}", home(person), "sms", True, self.now, "203.0.113.9")
        no = replace(yes, channel="voice", answer=False, at=self.now - timedelta(minutes=self.chance.randint(0, 3)))
        held = self.chance.choice([self.suppress_of(person, self.all_identifiers(person)), self.forget_of(person)])
        return [held, self.chance.choice([self.sync_of([yes, no]), self.event_of(yes)])]

    def lost_ledger(self) -> list[Step]:
        """A person withdraws a yes; then a table with only the yes is synced with an empty ledger."""
        person = self.person()
        yes = Statement(f"u{person}", home(person), "sms", True, self.now, "203.0.113.9")
        no = replace(yes, answer=False, at=self.now + timedelta(minutes=1))
        return [self.sync_of([yes, no]), replace(self.sync_of([yes]), wrong="ledger")]

    def shown_twice(self) -> list[Step]:
        """A yes, and a no of the same hour of a clock that shows it twice."""
        if self.zone is None:
            return [self.contacts()]
        person = self.person()
        no = Statement(f"u{person}", home(person), "sms", False, self.local(self.now - timedelta(minutes=2)), None)
        yes = replace(no, answer=True, ip="203.0.113.9", at=self.local(self.now - timedelta(minutes=1)))
        return [self.sync_of([no, yes])]

    def sync_of(self, told: list[Statement], **more: Any) -> Step:
        made = []
        for one in told:
            row = {"user_id": one.user, "channel": one.channel, "subscribed": one.answer, "ip": one.ip}
            whose = {} if one.point is None else {"email" if one.channel == "email" else "phone": one.point}
            made.append(({**row, **whose, "timestamp": self.written_time(one.at)}, Row((one,))))
        settings: dict[str, Any] = {"max_rejected": 1.0, "max_event_age": None}
        options = Options(
            by_changes=True, once=True, as_event="as_event" in more, max_change_ratio=more.get("max_change_ratio"),
            infers_opt_outs="on_removed" in more, is_sync=True,
        )  # fmt: skip
        if any(isinstance(one.at, datetime) and one.at.tzinfo is None for one in told):
            settings["timezone"], options = self.zone, replace(options, zone=self.zone or "UTC")
        sync = {"initial": "send", "max_change_ratio": None, **more}
        return self.made("sync", made, settings, options, sync, source="dag.scene")

    # -- what people say

    def statement(self, person: int, point: str | None, channel: str) -> Statement:
        (kind,) = self.chance.choices([YES, NO, UNREADABLE, UNKNOWN], [50, 34, 8, 8])
        ip = f"203.0.113.{self.chance.randint(1, 9)}"
        if self.maybe(0.2):
            ip = self.chance.choice([None, *NOT_ROUTABLE, *NO_ADDRESSES, "2001:4860:4860::8888"])
        return Statement(f"u{person}", point, self.spelled(channel), self.chance.choice(kind), self.time(kind), ip)

    def spelled(self, channel: str) -> str:
        return channel if self.maybe(0.8) else self.chance.choice([channel.upper(), f" {channel}", channel.title()])

    def time(self, kind: list[Any]) -> Any:
        """A time close to those of other decisions, or an odd one."""
        ago = timedelta(minutes=self.chance.choice([0, 1, 1, 2, 2, 3, 5]))
        if self.naive and self.maybe(0.5):
            return self.local(self.now - ago)
        if self.maybe(0.75):
            fraction = timedelta(milliseconds=self.chance.choice([0, 0, 0, 200, 900]))
            return self.now - ago + fraction * bool(ago)
        odd = [None, None, self.now + timedelta(minutes=2), self.now + timedelta(days=3), self.chance.choice(NO_TIMES)]
        odd += [self.now.date(), self.now.date() - timedelta(days=1), datetime(1970, 1, 1, tzinfo=UTC)]
        return self.chance.choice(odd) if kind is not NO or self.maybe(0.5) else None

    def local(self, at: datetime) -> datetime:
        """Return a time as shown by the clocks in the history's zone."""
        return at.astimezone(ZoneInfo(self.zone or "UTC")).replace(tzinfo=None)

    def written_time(self, at: Any) -> Any:
        if not isinstance(at, datetime):
            return at if at is None or isinstance(at, str) or self.maybe(0.5) else at.isoformat()
        if at.tzinfo is None:
            return self.chance.choice([at, at.isoformat(), at.isoformat(" ")])
        forms = [at.isoformat(), at.isoformat(" "), at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), at]
        if at.year > FIRST_EPOCH:
            forms += [int(at.timestamp()), int(at.timestamp() * 1000), str(int(at.timestamp()))]
        return self.chance.choice(forms)

    def written_phone(self, phone: str) -> Any:
        forms = [phone, phone, f"({phone[2:5]}) {phone[5:8]}-{phone[8:]}", phone[2:], int(phone[1:]), f" {phone}"]
        return self.chance.choice(forms)

    def opt_in(self, one: Statement) -> dict[str, Any]:
        """As an element of ``opt_in``; a no may have members that no opt-in has."""
        extra = {"optInDate": "2026"} if one.answer in (False, "STOP ") and self.maybe(0.3) else {}
        told = {"channel": one.channel, "subscribed": one.answer, "timestamp": self.written_time(one.at), "ip": one.ip}
        return {**told, **extra}

    # -- rows

    def wide(self, person: int, *, labeled: bool) -> tuple[dict[str, Any], Row]:
        """All channels of a person in one row; it may be otherwise invalid, or have only the user id."""
        if self.maybe(0.12):
            row, told = {"user_id": f"u{person}"}, [self.statement(person, None, self.chance.choice(CHANNELS[:2]))]
            row |= self.columns(told[0], f"{told[0].channel.strip().lower()}_opt_in")
            return (row | dict.fromkeys(WORK) if labeled else row), Row(tuple(told))
        row = {"user_id": f"u{person}", "phone": self.written_phone(home(person)), "email": email(person).upper()}
        places = [(home(person), c, f"{c}_opt_in") for c in CHANNELS[:2]]
        places += [(email(person), "email", "email_opt_in")]
        if labeled:
            row |= dict.fromkeys(WORK) | {"work": self.written_phone(work(person))}
            places += [(work(person), c, f"w_{c}") for c in CHANNELS[:2]]
        told = []
        for point, channel, column in places:
            if self.maybe(0.5):
                told.append(self.statement(person, point, channel))
                row |= self.columns(told[-1], column)
        yes = "sent"
        if self.maybe(0.12):
            yes = "never"
            row |= {"phone": float(home(person)[2:])} if self.maybe(0.3) else {"timestamp": "no time at all"}
        return row, Row(tuple(told), yes)

    def columns(self, one: Statement, column: str) -> dict[str, Any]:
        return {column: one.answer, f"{column}_at": self.written_time(one.at), f"{column}_ip": one.ip}

    def nested(self, person: int) -> tuple[dict[str, Any], Row]:
        """The same with a list of opt-ins."""
        chosen = self.chance.sample(CHANNELS, self.chance.randint(1, 3))
        told = [self.statement(person, email(person) if c == "email" else home(person), c) for c in chosen]
        opt_ins = [self.opt_in(one) for one in told]
        row = {
            "user_id": f"u{person}", "phone": self.written_phone(home(person)), "email": f" {email(person)}",
            "opt_in": opt_ins,
        }  # fmt: skip
        return row, Row(tuple(told))

    def long(self, person: int, *, channel: str | None = None, user_only: float = 0.1) -> tuple[dict[str, Any], Row]:
        """One consent."""
        channel = channel or self.chance.choice(CHANNELS)
        point = email(person) if channel == "email" else self.chance.choice([home(person), home(person), work(person)])
        if channel != "email" and self.maybe(user_only):
            point = None
        one = self.statement(person, point, channel)
        row: dict[str, Any] = {"user_id": f"u{person}"}
        if point is not None:
            row |= {"email": point} if channel == "email" else {"phone": self.written_phone(point)}
        opt_in = {name: value for name, value in self.opt_in(one).items() if name != "optInDate"}
        return {**row, **opt_in}, Row((one,))

    # -- ways

    def common(self, **more: Any) -> tuple[dict[str, Any], Options]:
        settings: dict[str, Any] = {"max_rejected": self.chance.choice([0, 1.0]), "max_unknown": 1.0}
        options = Options(**more)
        if self.zone is not None:
            settings["timezone"], options = self.zone, replace(options, zone=self.zone)
        if self.maybe(0.15):
            settings["require_ip"], options = False, replace(options, require_ip=False)
        if self.maybe(0.1):
            age = timedelta(minutes=3)
            settings["max_consent_age"], options = age, replace(options, max_age=age)
        if self.maybe(0.15):
            settings["opt_out_scope"], options = "person", replace(options, scope="person")
        if self.maybe(0.4):
            settings["max_connections"] = 1
        if self.maybe(0.07):
            settings["min_rows"], options = 1_000, replace(options, may_send="no")
        return settings, options

    def sync_common(self, **more: Any) -> tuple[dict[str, Any], Options, dict[str, Any]]:
        settings, options = self.common(by_changes=True, once=True, is_sync=True, **more)
        initial = self.chance.choices(["send", "baseline", None], [6, 2, 1])[0]
        ratio = self.chance.choice([None, None, 0.5, 0.0])
        options = replace(options, first_run=initial or "refused", max_change_ratio=ratio)
        return settings, options, {"initial": initial, "max_change_ratio": ratio}

    def contacts(self) -> Step:
        settings, options = self.common()
        labeled = self.maybe(0.4)
        people = [self.person() for _ in range(self.chance.randint(1, 4))]
        if self.maybe(0.3):
            people = [*dict.fromkeys(people)]
            settings["only_changed"], options = True, replace(options, by_changes=True)
        if self.maybe(0.15):
            settings["guarantee"] = "at_most_once"
        if labeled:
            settings["mapping"] = WORK
        nested = not labeled and self.maybe(0.4)
        made = [self.nested(one) if nested else self.wide(one, labeled=labeled) for one in people]
        if not settings.get("only_changed") and self.maybe(0.2):
            made = self.with_message_ids(made)
        return self.made("contacts", made, settings, options)

    def with_message_ids(self, made: list[tuple[dict[str, Any], Row]]) -> list[tuple[dict[str, Any], Row]]:
        """Make all rows one message: the first is sent, and of the others only their opt-outs."""
        self.messages += 1
        sound = [row.yes == "sent" for _, row in made]
        return [
            ({**written, "message_id": f"m{self.messages}"}, replace(row, yes="perhaps") if any(sound[:n]) else row)
            for n, (written, row) in enumerate(made)
        ]

    def segment(self) -> Step:
        settings, options = self.common()
        made = []
        for _ in range(self.chance.randint(1, 3)):
            person = self.person()
            traits: dict[str, Any] = {"phone": home(person), "email": email(person)}
            told: list[Statement] = []
            if self.maybe(0.3):
                infos = {}
                for phone in (home(person), work(person)):
                    told.append(self.in_json(self.statement(person, phone, "sms")))
                    infos[phone] = {"smsOptIn": {k: v for k, v in self.opt_in(told[-1]).items() if k != "channel"}}
                traits = {"phones": infos}
            elif self.maybe(0.2):
                told.append(Statement(f"u{person}", home(person), "sms", False))
                traits["smsOptIn"] = False
            else:
                _, row = self.nested(person)
                told += [self.in_json(one) for one in row.statements]
                traits["optIn"] = [self.opt_in(one) for one in told]
            message = {"type": "identify", "userId": f"u{person}", "traits": traits, "timestamp": self.now.isoformat()}
            off = self.maybe(0.25)
            if off:
                message["integrations"] = self.chance.choice([{"All": False}, {"Regal": False}, {"all": "false"}])
            made.append((json.loads(json.dumps(message, default=str)), Row(tuple(told), "never" if off else "sent")))
        return self.made("segment", made, settings, options)

    def in_json(self, one: Statement) -> Statement:
        answer = one.answer
        if isinstance(answer, Decimal):
            answer = float(answer)
        return replace(one, answer=None if answer != answer else answer)  # noqa: PLR0124 - NaN

    def named(self) -> Step:
        settings, options = self.common(contacts=False)
        if self.maybe(0.3):
            settings["suppress_named_events"], options = True, replace(options, holds_events=True)
        made = []
        for _ in range(self.chance.randint(1, 3)):
            written, row = self.nested(self.person())
            old = self.maybe(0.15)
            at = self.now - timedelta(days=30 * old)
            written |= {"event": "Lesson Booked", "timestamp": at.isoformat()}
            if old:
                row = replace(row, yes="never")
            elif self.maybe(0.5):
                number = self.chance.randint(1, 3)
                written["message_id"], row = f"named-{number}", replace(row, yes="perhaps")
            made.append((written, row))
        return self.made("named", made, settings, options)

    def table_sync(self) -> Step:
        """A consent table that gains and loses rows, each in one of the two forms."""
        for _ in range(self.chance.randint(0, 3)):
            person = self.person()
            made = self.long(person) if self.maybe(0.7) else self.wide(person, labeled=False)
            written, row = made
            if "channel" not in written and "phone" in written:  # each of its consents is read separately
                written, row = {**written, "phone": home(person), "timestamp": None}, replace(row, yes="sent")
            self.table.append((written, row))
        if self.table and self.maybe(0.25):
            del self.table[self.chance.randrange(len(self.table))]
        settings, options, sync = self.sync_common(infers_opt_outs=self.removes)
        if self.removes:
            sync["on_removed"] = "opt_out"
        if self.maybe(0.15):
            sync["full_resync"], options = True, replace(options, by_changes=False, once=False)
        return self.made("sync", [*self.table], settings, options, sync, source="dag.table")

    def late_sync(self) -> Step:
        settings, options, sync = self.sync_common()
        made = [self.long(self.person()) for _ in range(self.chance.randint(1, 4))]
        return self.made("sync", made, settings, options, sync, source="dag.late")

    def by_event(self) -> Step:
        settings, options, sync = self.sync_common(as_event=True)
        for _ in range(self.chance.randint(1, 3)):
            channel = self.chance.choice(CHANNELS[:2])
            self.by_event_table.append(self.long(self.person(), channel=channel, user_only=0.6))
        made = self.by_event_table[-4:]
        settings["max_event_age"] = None
        return self.made("sync", made, settings, options, {**sync, "as_event": EVENT}, source="dag.by_event")

    def one(self) -> Step:
        """One event, by an operator or the hook."""
        _, options = self.common()
        options, self.naive = replace(options, may_send="all", max_age=None, zone="UTC"), False
        call = self.chance.choice(["identify", "identify", "track"])
        written, row = self.nested(self.person())
        if self.maybe(0.2):
            person = self.person()
            told = self.statement(person, None, self.chance.choice(CHANNELS[:2]))
            written, row = {"user_id": f"u{person}", "opt_in": [self.opt_in(told)]}, Row((told,))
        if call == "track":
            written["event"] = "Lesson Booked"
        if self.maybe(0.1):
            written["timestamp"], row = "no time at all", replace(row, yes="never")
        settings = {"call": call, "by": self.chance.choice(["hook", "operator"])}
        if call == "track" and self.maybe(0.3):
            settings["suppress_named_events"], options = True, replace(options, holds_events=True)
        options = replace(options, contacts=settings["call"] == "identify")
        return self.made("one", [(written, row)], settings, options)

    def regal(self) -> Step:
        """A person replies STOP or START; the table of Regal's webhooks is read."""
        person, channel = self.person(), self.chance.choice(CHANNELS)
        point = email(person) if channel == "email" else home(person)
        answer = self.maybe(0.25)
        return self.regal_of(Statement(f"u{person}", point, channel, answer, self.now))

    def regal_of(self, one: Statement) -> Step:
        name = "email" if one.channel == "email" else "phone"
        written = {name: one.point, "channel": one.channel, "subscribed": one.answer, "timestamp": one.at.isoformat()}
        options = Options(require_ip=False, contacts=False, may_send="nothing")
        return self.made(
            "regal", [(written, Row((one,)))], {}, options, {"known_to_regal": True}, source="dag.webhooks"
        )

    def redeliver(self) -> Step:
        statuses = self.chance.choice([("rejected",), ("rejected", "unknown")])
        settings = {"status": statuses, "max_rejected": 1.0, "max_unknown": 1.0, "timezone": self.zone or "UTC"}
        return Step(
            "redeliver",
            "dag.redeliver",
            settings=settings,
            options=Options(contacts=False, repeats_unknown="unknown" in statuses),
        )

    def retry(self) -> Step:
        return Step("retry")

    def clear(self) -> Step:
        return Step("clear")

    # -- who must not be contacted

    def all_identifiers(self, person: int) -> tuple[str, ...]:
        return (f"user:u{person}", home(person), work(person), email(person))

    def suppress(self) -> Step:
        """Put a person on the list, by some or all of their identifiers."""
        person = self.person()
        every = self.all_identifiers(person)
        return self.suppress_of(person, self.chance.sample(every, self.chance.choice([1, 1, 2, len(every)])))

    def suppress_of(self, person: int, people: Sequence[str]) -> Step:
        return Step("suppress", people=tuple(people))

    def release(self) -> Step:
        return Step("release", people=self.all_identifiers(self.person()))

    def forget(self) -> Step:
        return self.forget_of(self.person())

    def forget_of(self, person: int) -> Step:
        return Step("forget", people=self.all_identifiers(person), settings={"lose_owed": self.maybe(0.5)})

    def made(
        self, kind: str, made: list[tuple[dict[str, Any], Row]], settings: dict[str, Any], options: Options,
        sync: dict[str, Any] | None = None, source: str = "dag.task",
    ) -> Step:  # fmt: skip
        written, rows = tuple(one for one, _ in made), tuple(row for _, row in made)
        return Step(kind, source, 1, written, rows, settings, sync, options)

    # -- what fails

    def crash(self, step: Step) -> Crash | None:
        if step.kind in ("regal", "suppress", "release", "forget") or self.maybe(0.5):
            return None
        after = self.chance.randint(1, 4)
        bad: list[Crash] = [
            Crash("answer", after, {"status": 400}),
            Crash("answer", after, {"status": 413}),
            Crash("lost", after, {"status": 500, "store": self.maybe(0.5)}),
            Crash("lost", after, {"drop": True, "store": self.maybe(0.5)}),
            Crash("down", after, {"status": 503, "retry_after": 900, "store": False}),
            Crash("silent", after, {"hang": True, "store": self.maybe(0.5)}),
        ]
        weights = [3, 1, 3, 3, 3, 0.3]
        if step.kind != "one":
            bad += [
                Crash("ledger", self.chance.randint(3, 25)),
                Crash("backends", self.chance.randint(3, 25), {"times": self.chance.randint(1, 3)}),
            ]
            weights += [3, 2]
            if self.kills:
                bad += [
                    Crash("killed", after, {"hang": True, "store": self.maybe(0.5)}),
                    Crash("killed reading", self.chance.randint(0, 2)),
                    Crash("frozen", after, {"hang": True, "store": self.maybe(0.5)}),
                ]
                weights += [4, 1, 0.7]
        (chosen,) = self.chance.choices(bad, weights)
        return chosen


FIRST_EPOCH = 2000
