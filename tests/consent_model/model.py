"""The consent rules once more, as a model that shares no code with the package: what must hold whatever happens.

::

    generator ─▶ history ─▶ world: the package, a local Regal, a ledger ─▶ what was read, what Regal received
                    └─────────────────▶ model ◀──────────────────────────────────────┘ └─▶ broken rules

Whoever drives the package reports here, in order, what each delivery has *read* and what Regal then *received*; the
model says which rule was broken. Numbers are those of the page *Opt-ins and consent*.

=============  =========================================================================================
point          a phone or an email
key            a point and a channel
statement      what one row says about one channel
decision       a yes or a no about a key, with its time in whole seconds
barrier        the newest no that was read for a key: no yes of that time or before may follow
certain        surely read, or surely recorded: no crash was near. What is not certain may have happened
=============  =========================================================================================
"""

from __future__ import annotations

import ipaddress
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

PHONE_CHANNELS, EMAIL_CHANNELS = ("sms", "voice"), ("email",)
NO_WORDS = {
    "false", "f", "no", "n", "off", "unsubscribed", "opted_out", "opt-out", "stop", "revoked", "denied",
}  # fmt: skip
YES_WORDS = {"true", "t"}
PRIVATE = [
    ipaddress.ip_network(one)
    for one in ("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
]
FIRST_REAL_YEAR = 1991
SOON = timedelta(days=1)

Key = tuple[str, str]  # point, or user:<id> where an event names no phone; channel


@dataclass(frozen=True)
class Statement:
    """What one row says about one channel.

    :param point: the phone or email, in its usual form; None if the row names only the user id.
    :param channel: as written.
    :param answer: as written.
    :param at: when the person decided: a time, a day alone, None, or a text that is no time.
    :param ip: as written.
    """

    user: str
    point: str | None
    channel: str
    answer: Any
    at: datetime | date | str | None = None
    ip: str | None = None


@dataclass(frozen=True)
class Row:
    """The statements of one row, and what else its row means for a yes; a no is sent from every row.

    :param yes: ``sent``; ``perhaps`` (a message that repeats another); ``never`` (wrong elsewhere, switched off).
    """

    statements: tuple[Statement, ...]
    yes: str = "sent"


@dataclass(frozen=True)
class Options:
    """What a delivery was told.

    :param contacts: it sends contacts or is a sync, so it sends first what is owed.
    :param may_send: ``all``; ``no`` (a guard stops the rest); ``nothing`` (the rows are Regal's own).
    :param by_changes: rows that were read before need not be read again.
    :param once: what Regal acknowledged is not sent again.
    :param repeats_unknown: told to send again what Regal may have.
    """

    require_ip: bool = True
    max_age: timedelta | None = None
    scope: str = "channel"
    contacts: bool = True
    may_send: str = "all"
    by_changes: bool = False
    once: bool = False
    infers_opt_outs: bool = False
    as_event: bool = False
    repeats_unknown: bool = False


class Yes(NamedTuple):
    """An opt-in with its evidence."""

    at: datetime
    ip: str | None


class No(NamedTuple):
    """An opt-out; one without a usable time counts as given when it was read."""

    at: datetime
    dated: bool


class Unreadable(NamedTuple):
    """Neither yes nor no, and perhaps a no."""

    at: datetime


# -- one statement -----------------------------------------------------------------------------------------------------


def answer_of(written: Any) -> bool | str | None:
    """Rules 2 and 3: True, False, None for unknown, or ``unreadable``."""
    if isinstance(written, str):
        word = written.strip().lower()
        if not word:
            return None
        if word in NO_WORDS or word in YES_WORDS:
            return word in YES_WORDS
        try:
            written = Decimal(word)
        except ArithmeticError:
            return "unreadable"
    if written is None or (isinstance(written, float) and math.isnan(written)):
        return None
    if isinstance(written, (bool, int, float, Decimal)) and written in (0, 1):
        return bool(written)
    return "unreadable"


def time_of(written: Any, *, latest: bool) -> datetime | None:
    """A day alone is its first second for a yes, and its last for anything else; text is no time here."""
    if isinstance(written, datetime):
        return written.replace(microsecond=0)
    if isinstance(written, date):
        return datetime.combine(written, time(23, 59, 59) if latest else time(), UTC)
    return None


def is_routable(ip: str) -> bool:
    """Rule 1: an address of the internet."""
    try:
        return not any(ipaddress.ip_address(ip) in network for network in PRIVATE)
    except ValueError:
        return False


def meaning_of(statement: Statement, options: Options, moment: datetime) -> Yes | No | Unreadable | None:
    """Return what a statement means when it is read; None if nothing is sent for it."""
    answer, at = answer_of(statement.answer), time_of(statement.at, latest=answer_of(statement.answer) is not True)
    if answer is None:
        return None
    if answer == "unreadable":
        return Unreadable(at or moment)
    if answer is False:
        dated = at is not None and at.year >= FIRST_REAL_YEAR and at <= moment + SOON
        return No(at, True) if dated and at is not None else No(moment, False)
    if at is None or not at.year >= FIRST_REAL_YEAR or at > moment:
        return None
    if options.max_age is not None and moment - at > options.max_age:
        return None
    if statement.ip is None:
        return None if options.require_ip else Yes(at, None)
    try:
        ipaddress.ip_address(statement.ip)
    except ValueError:
        return None  # unreadable evidence is none, whatever is required
    return Yes(at, statement.ip) if is_routable(statement.ip) or not options.require_ip else None


def channels_closed(channel: str, options: Options) -> Sequence[str]:
    """Rule 9: which channels of a point a no closes."""
    if options.scope == "person":
        return PHONE_CHANNELS if channel in PHONE_CHANNELS else EMAIL_CHANNELS
    return (channel,)


# -- what Regal received -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Received:
    """One decision in one request.

    :param point: None in an event that names only the user id.
    :param at: None if it says no time.
    :param stored: Regal has it. :param told: and has said so. :param refused: Regal surely does not have it.
    :param event: it is an event that stands for an opt-in.
    """

    number: int
    user: str | None
    point: str | None
    channel: str
    subscribed: bool
    at: datetime | None
    ip: str | None
    stored: bool
    told: bool
    refused: bool
    event: bool = False

    @property
    def key(self) -> Key:
        return (self.point or f"user:{self.user}", self.channel)

    def __str__(self) -> str:
        what = f"{'event, ' * self.event}{'yes' if self.subscribed else 'no'} of {self.at or 'no time'}, ip {self.ip}"
        fate = "acknowledged" if self.told else "refused" if self.refused else "unknown"
        return f"request {self.number}: {' '.join(self.key)}: {what}; {fate}, {'' if self.stored else 'not '}stored"


@dataclass
class Delivery:
    """What the model knows of one delivery."""

    options: Options
    nos: dict[Key, datetime] = field(default_factory=dict)
    unreadable: dict[Key, datetime] = field(default_factory=dict)
    mentioned: set[Key] = field(default_factory=set)
    owed_before: set[Key] = field(default_factory=set)


class ConsentModel:
    """Follows a history. Each report returns the rules that it broke, as text."""

    def __init__(self) -> None:
        self.barriers: dict[Key, datetime] = {}  # certain
        self.perhaps: dict[Key, datetime] = {}  # a no that may have been read
        self.yeses: dict[Key, set[Yes]] = defaultdict(set)  # evidence that exists: what may be sent at all
        self.stated: dict[Key, Yes] = {}  # the newest yes that some row says soundly
        self.no_times: dict[Key, set[datetime]] = defaultdict(set)  # every no that was stated
        self.inferred: dict[Key, datetime] = {}  # withdrawn since somebody was no longer in a source
        self.regal: dict[Key, tuple[bool, datetime | None]] = {}  # what Regal has, the last received
        self.newest_sent: dict[Key, datetime] = {}  # the newest yes that was ever sent
        self.settled: dict[Key, tuple[bool, datetime | None]] = {}  # acknowledged, and surely recorded
        self.events: dict[tuple[Key, datetime | None], int] = defaultdict(int)
        self.phones: dict[str, set[str]] = defaultdict(set)  # user id -> phones on record
        self.perhaps_phones: dict[str, set[str]] = defaultdict(set)
        self.deliveries: dict[str, Delivery] = {}
        self.heard: set[Key] = set()  # what Regal was told by others than us
        self._seen: set[tuple[str, Statement]] = set()
        self._rows: list[tuple[Options, Row]] = []
        self._taken: set[Statement] = set()  # by a redelivery

    # -- reports

    def begins(self, delivery: str, options: Options) -> None:
        """A delivery, or another try of it, begins."""
        known = self.deliveries.setdefault(delivery, Delivery(options))
        known.owed_before = {key for key in self.barriers if self.lacks(key) and not key[0].startswith("user:")}

    def reads(
        self, delivery: str, source: str, rows: Sequence[Row], moments: Sequence[datetime], *, certain: bool
    ) -> None:
        """A delivery has read its source.

        :param source: the task.
        :param moments: the first and the last at which that may have been.
        :param certain: it surely has, to the end.
        """
        this, (first, last) = self.deliveries[delivery], moments
        for row in rows:
            self._rows.append((this.options, row))
            overtaken = self._newest_yeses(row, this.options, first) if row.yes != "never" else {}
            for statement in row.statements:
                known = this.options.by_changes and (source, statement) in self._seen
                self._seen.add((source, statement))
                self._read(this, row, statement, (first, last), overtaken, certain=certain and not known)

    def reads_letters(self, moment: datetime) -> None:
        """A redelivery may take any row: it fails then for what can't be read, and the time of a yes may have come."""
        for delivery in self.deliveries.values():
            delivery.unreadable.clear()
        for options, row in self._rows:
            self._taken.update(row.statements)
            for statement in row.statements:
                meaning = meaning_of(statement, options, moment)
                if isinstance(meaning, Yes) and row.yes != "never":
                    for key in self._keys_of(statement, statement.channel.strip().lower(), options):
                        self.yeses[key].add(meaning)

    def _newest_yeses(self, row: Row, options: Options, moment: datetime) -> dict[Key, datetime]:
        """Return the newest yes of each key in a row: an older no of the same row was never the last word."""
        found: dict[Key, datetime] = {}
        for statement in row.statements:
            meaning = meaning_of(statement, options, moment)
            if isinstance(meaning, Yes):
                for key in self._keys_of(statement, statement.channel.strip().lower(), options):
                    _raise(found, key, meaning.at)
        return found

    def _read(
        self, this: Delivery, row: Row, statement: Statement, moments: tuple[datetime, datetime],
        overtaken: dict[Key, datetime], *, certain: bool,
    ) -> None:  # fmt: skip
        channel = statement.channel.strip().lower()
        early, late = (meaning_of(statement, this.options, moment) for moment in moments)
        keys = [*self._keys_of(statement, channel, this.options)]
        if answer_of(statement.answer) is not None:  # else the person is not in the source
            this.mentioned.update(keys)
        for key in keys:
            if row.yes != "never":
                self.yeses[key] |= {meaning for meaning in (early, late) if isinstance(meaning, Yes)}
            if isinstance(early, Yes) and row.yes == "sent" and certain:
                self.stated[key] = max(self.stated.get(key, early), early, key=lambda yes: yes.at)
            elif isinstance(early, Unreadable) and row.yes == "sent" and statement not in self._taken:
                _raise(this.unreadable, key, early.at)
        if isinstance(early, No) and isinstance(late, No):
            for closed in channels_closed(channel, this.options):
                self._read_no(this, statement, closed, (early, late), overtaken, certain=certain)

    def _read_no(
        self, this: Delivery, statement: Statement, channel: str, nos: tuple[No, No], overtaken: dict[Key, datetime],
        *, certain: bool,
    ) -> None:  # fmt: skip
        early, late = nos
        surely = {*self._keys_of(statement, channel, this.options)}
        phones = self.perhaps_phones[statement.user] if statement.point is None else ()
        for key in surely | {(phone, channel) for phone in phones}:
            self.no_times[key] |= {early.at.replace(microsecond=0), late.at.replace(microsecond=0)}
            _raise(self.perhaps, key, late.at)
        this.mentioned |= surely
        for key in surely:
            if certain and overtaken.get(key, early.at) <= early.at:
                _raise(self.barriers, key, early.at)
                if this.options.may_send != "nothing":
                    _raise(this.nos, key, early.at)

    def _keys_of(self, statement: Statement, channel: str, options: Options) -> Iterator[Key]:
        """Whose decision it is: where the row names no phone, that of every phone on record (rule 2)."""
        if statement.point is not None:
            yield statement.point, channel
        if statement.point is None and channel in PHONE_CHANNELS and answer_of(statement.answer) is False:
            yield from ((phone, channel) for phone in sorted(self.phones[statement.user]))
        if statement.point is None or answer_of(statement.answer) is False:
            yield f"user:{statement.user}", channel

    def receives(self, delivery: str, found: Sequence[Received], *, anew: bool, calm: bool) -> list[str]:
        """Regal has received what a delivery sent, in this order.

        :param anew: the delivery has read its source in this try; it does not resume. :param calm: nothing failed.
        """
        this, broken = self.deliveries[delivery], list[str]()
        seen: set[str | None] = set()
        for one in found:
            owed = one.key in this.owed_before and not one.subscribed and one.key not in this.mentioned
            if anew and calm and this.options.contacts and owed and one.point in seen:
                broken.append(f"rule 3: the owed opt-out of {one.key} was not the first that was sent of it")
            if one.subscribed or one.user is not None:  # what is owed goes without a user id
                seen.add(one.point)
            if one.user is not None and one.point is not None:
                self.perhaps_phones[one.user].add(one.point)
            check = self._check_yes if one.subscribed else self._check_no
            broken += [f"{text}: {one}" for text in check(this, one)]
            if this.options.may_send == "nothing":
                broken.append(f"rule 10: the rows are Regal's own, and {one} was sent")
            again = one.at is not None and self.settled.get(one.key) == (one.subscribed, one.at)
            if anew and again and this.options.once:
                broken.append(f"rule 5: Regal had acknowledged it: {one}")
            self._note(one)
        return broken

    def _check_yes(self, this: Delivery, one: Received) -> Iterator[str]:
        at = one.at
        if at is None:
            yield "rule 1: an opt-in without a time"
            return
        keys = [one.key] if one.point else [one.key, *((phone, one.channel) for phone in self.phones[one.user or ""])]
        for key in keys:
            if (barrier := self.barriers.get(key)) is not None and at <= barrier:
                yield f"rule 5: not newer than the opt-out of {barrier} of {key[0]}"
        if Yes(at, one.ip) not in self.yeses[one.key]:
            yield "rule 1: nobody has said so, with this evidence"
        if (doubt := this.unreadable.get(one.key)) is not None and at <= doubt:
            yield "rule 4: not newer than a decision that can't be read"
        if this.options.may_send == "no":
            yield "a guard lets no opt-in pass"
        if one.event and not one.refused:
            self.events[one.key, at] += 1
            if self.events[one.key, at] > 1 and not this.options.repeats_unknown:
                yield "rule 5: the event may be at Regal already"

    def _check_no(self, this: Delivery, one: Received) -> Iterator[str]:
        stated = self.no_times[one.key]
        for user, known in self.perhaps_phones.items():  # one that names a user id: its phones may be known by now
            if one.point in known and (by_user := self.no_times[f"user:{user}", one.channel]):
                stated = stated | by_user
                _raise(self.perhaps, one.key, max(by_user))
        if this.options.infers_opt_outs and one.key not in this.mentioned and one.at not in stated:
            _raise(self.inferred, one.key, one.at or datetime.max.replace(tzinfo=UTC))
        elif not stated:
            yield "nobody has opted out"
        elif one.at is not None and one.at not in stated:
            yield f"no opt-out has this time ({sorted(map(str, stated))})"

    def _note(self, one: Received) -> None:
        keys, perhaps = [one.key], set[Key]()
        if one.point is None:  # the event counts for the phones that Regal has of the contact
            keys += [(phone, one.channel) for phone in self.phones[one.user or ""]]
            perhaps = {(phone, one.channel) for phone in self.perhaps_phones[one.user or ""]}
        for key in keys:
            if one.stored:
                self.regal[key] = (one.subscribed, one.at)
        for key in perhaps.union(keys):
            if one.subscribed and one.at is not None and not one.refused:
                _raise(self.newest_sent, key, one.at)

    def regal_hears(self, key: Key, *, subscribed: bool, at: datetime) -> None:
        """Regal is told by the person, or by an agent: nothing of ours was sent."""
        self.heard.add(key)
        if subscribed and at <= self.barriers.get(key, at - SOON):
            return  # Regal heard it before a no that it has from us
        self.regal[key] = (subscribed, at)
        if subscribed:
            _raise(self.newest_sent, key, at)

    def ends(
        self,
        delivery: str,
        found: Sequence[Received],
        phones: Sequence[tuple[str, str]],
        *,
        green: bool,
        orderly: bool,
        faultless: bool,
        owed: set[Key],
    ) -> list[str]:
        """A try has ended.

        :param found: what Regal received of it. :param phones: user ids and phones that it acknowledged.
        :param green: the task succeeded. :param orderly: all that is known was recorded.
        :param faultless: it has read its source, every request was answered well, and nothing else failed.
        :param owed: what the ledger says Regal lacks.
        """  # fmt: skip
        this = self.deliveries[delivery]
        for user, phone in phones:
            self.perhaps_phones[user].add(phone)
            if orderly:
                self.phones[user].add(phone)
        for one in found:
            if orderly and one.told:
                self.settled[one.key] = (one.subscribed, one.at)
            elif not (orderly and one.refused):
                self.settled.pop(one.key, None)
        broken = [f"rule 4: it succeeded, though {key} can't be read" for key in this.unreadable if green]
        lacking = [key for key in self.barriers if not key[0].startswith("user:") and self.lacks(key)]
        for key in lacking:
            if key not in owed:
                broken.append(f"rule 3: Regal lacks the opt-out of {key}, and the ledger does not owe it")
            if faultless and this.options.contacts and this.options.may_send != "nothing":
                broken.append(f"rule 3: the opt-out of {key} is owed, and a delivery of contacts did not send it")
            if green and key in this.nos and this.nos[key] >= self.barriers[key]:
                broken.append(f"rule 2: it succeeded, though the opt-out of {key} is not at Regal")
        return broken

    # -- states

    def lacks(self, key: Key) -> bool:
        """Rule 3: whether Regal lacks an opt-out that was surely read; a yes given after it takes its place."""
        barrier = self.barriers[key]
        if key in self.newest_sent and self.newest_sent[key] > barrier:
            return False
        return self.regal.get(key, (True, None))[0]

    def keys(self) -> set[Key]:
        """Every key that somebody said something of, but for those of a user id alone."""
        found = {*self.barriers, *self.perhaps, *self.stated, *self.regal}
        return {key for key in found if not key[0].startswith("user:")}

    def final(self, key: Key) -> set[bool | None]:
        """Rule 5: what Regal may have once every sound decision was delivered again without a fault."""
        yes, barrier, perhaps = self.stated.get(key), self.barriers.get(key), self.perhaps.get(key)
        if yes is not None and (barrier is None or yes.at > barrier):
            if self.newest_sent.get(key, yes.at) > yes.at:  # such as that of a repeated message; Regal may have it
                return {True, False, None}
            doubtful = (perhaps is not None and yes.at <= perhaps) or (key in self.inferred)
            return {True, False} if doubtful else {True}
        if barrier is not None:
            newer = self.newest_sent.get(key)  # of a yes that no row says soundly, such as that of a repeated message
            return {False} if newer is None or newer <= barrier else {True, False, None}
        return {None, True, False} if perhaps is not None or key in self.newest_sent else {None}


def _raise(times: dict[Key, datetime], key: Key, at: datetime) -> None:
    times[key] = max(times.get(key, at), at)
