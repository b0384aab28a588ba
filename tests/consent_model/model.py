"""The consent rules again, as a model that shares no code with the package: what must always hold.

::

    generator ─▶ history ─▶ world: the package, a local Regal, a ledger ─▶ what was read, what Regal received
                    └─────────────────▶ model ◀──────────────────────────────────────┘ └─▶ broken rules

The driver of the package reports here, in order, what each delivery has *read* and what Regal then *received*; the
model returns the rules that were broken. Numbers are those of the page *Opt-ins and consent*.

=============  =========================================================================================
point          a phone or an email
key            a point and a channel
statement      what one row says about one channel
decision       a yes or a no about a key, with its time in whole seconds
barrier        the newest no that was read for a key: no yes of that time or before may follow
certain        surely read or recorded, since no crash was near; otherwise it may or may not have happened
held           not to be contacted: suppressed, or forgotten
=============  =========================================================================================
"""

from __future__ import annotations

import ipaddress
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

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
FLIPS_ALWAYS_ALLOWED = 10

Key = tuple[str, str]  # point, or user:<id> if an event has no phone; channel


@dataclass(frozen=True)
class Statement:
    """A row's statement about one channel.

    :param point: the phone or email, in its usual form; None if the row has only the user id.
    :param channel: as written.
    :param answer: as written.
    :param at: when the person decided: a time with or without a zone, a date alone, None, or a text that is not a time.
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
    """The statements of one row, and whether its yes may be sent; a no is sent from every row.

    :param yes: ``sent``; ``perhaps`` (a message that repeats another); ``never`` (otherwise invalid, switched off).
    """

    statements: tuple[Statement, ...]
    yes: str = "sent"


@dataclass(frozen=True)
class Options:
    """The options of a delivery.

    :param contacts: it sends contacts or is a sync, so it first sends what is owed.
    :param may_send: ``all``; ``no`` (a guard stops the rest); ``owed`` (the rows are recorded, as a baseline);
        ``nothing`` (the rows are Regal's own).
    :param by_changes: rows that were read before need not be read again.
    :param once: what Regal acknowledged is not sent again.
    :param repeats_unknown: send again what Regal may have.
    :param zone: of times without one.
    :param first_run: what a sync does while nothing is on record: ``send``, ``baseline`` or ``refused``.
    :param max_change_ratio: the share of the consents on record that a sync may flip; None for any.
    :param holds_events: no named event is sent to people who opted out of all channels on record.
    :param is_sync: it is a sync of consents, so a no that belongs to no phone is a lost row.
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
    zone: str = "UTC"
    first_run: str = "send"
    max_change_ratio: float | None = None
    holds_events: bool = False
    is_sync: bool = False


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


def time_of(written: Any, *, latest: bool, zone: str = "UTC") -> datetime | None:
    """Read a time. A date alone is its first second for a yes, and its last for anything else; text is not a time here.

    Likewise in the hour that occurs twice when clocks change: a yes has the earlier time, anything else the later.
    """
    if not isinstance(written, date):
        return None
    if not isinstance(written, datetime):
        written = datetime.combine(written, time(23, 59, 59) if latest else time())
    if written.tzinfo is None:
        shown = written.replace(tzinfo=ZoneInfo(zone))
        written = (max if latest else min)(shown.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    return written.replace(microsecond=0)


def is_routable(ip: str) -> bool:
    """Rule 1: an address of the internet."""
    try:
        return not any(ipaddress.ip_address(ip) in network for network in PRIVATE)
    except ValueError:
        return False


def meaning_of(statement: Statement, options: Options, moment: datetime) -> Yes | No | Unreadable | None:
    """Return what a statement means when it is read; None if nothing is sent for it."""
    answer = answer_of(statement.answer)
    at = time_of(statement.at, latest=answer is not True, zone=options.zone)
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
        return None  # unreadable evidence never counts, whatever is required
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

    :param point: None in an event with only the user id.
    :param at: None without a time.
    :param stored: Regal has it.
    :param told: Regal has acknowledged it.
    :param refused: Regal certainly does not have it.
    :param event: it is an event that represents an opt-in.
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


@dataclass(frozen=True)
class Request:
    """One request, whatever its content.

    :param people: all identifiers in it: phones, emails, ``user:<id>``.
    :param named: it is a named event.
    :param opts_out_only: it contains only opt-outs.
    """

    number: int
    people: frozenset[str]
    named: bool
    opts_out_only: bool
    decisions: tuple[Received, ...] = ()


@dataclass
class Delivery:
    """The model's knowledge of one delivery.

    :param on_record: whether anything was on record for the account; None if not known.
    :param before: what was settled when it was read.
    :param flips: what was sent although the opposite was settled.
    :param guarded: its guard has stopped it.
    """

    options: Options
    on_record: bool | None = None
    before: dict[Key, bool] = field(default_factory=dict)
    flips: set[Key] = field(default_factory=set)
    opts_in: bool = False
    guarded: bool = False
    nos: dict[Key, datetime] = field(default_factory=dict)
    unreadable: dict[Key, datetime] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # user ids that said no, without any phone on record
    mentioned: set[Key] = field(default_factory=set)
    owed_before: set[Key] = field(default_factory=set)
    moments: set[datetime] = field(default_factory=set)  # when it may have read its source


class ConsentModel:
    """Follows a history. Each report returns the rules that it broke, as text."""

    def __init__(self, *, hashed: bool = False) -> None:
        self.hashed = hashed  # the ledger knows only identifiers that it is given
        self.on_record: bool | None = False  # whether any consent is; None if that is not known
        self.erased = False  # whether anybody was ever forgotten
        self.held: set[str] = set()  # who must not be contacted: phones, emails, user:<id>
        self.forgotten: dict[str, dict[Key, datetime]] = {}  # of these, those whose only remaining records are opt-outs
        self.barriers: dict[Key, datetime] = {}  # certain
        self.perhaps: dict[Key, datetime] = {}  # a no that may have been read
        self.yeses: dict[Key, set[Yes]] = defaultdict(set)  # evidence that exists: what may be sent at all
        self.stated: dict[Key, Yes] = {}  # the newest yes stated by a valid row
        self.no_times: dict[Key, set[datetime]] = defaultdict(set)  # every no that was stated
        self.inferred: dict[Key, datetime] = {}  # withdrawn because the person vanished from a source
        self.inferred_when: dict[Key, set[datetime]] = defaultdict(set)  # when that may have been detected
        self.regal: dict[Key, tuple[bool, datetime | None]] = {}  # what Regal received last
        self.newest_sent: dict[Key, datetime] = {}  # the newest yes that was ever sent
        self.settled: dict[Key, tuple[bool, datetime | None]] = {}  # acknowledged, and surely recorded
        self.events: dict[tuple[Key, datetime | None], int] = defaultdict(int)
        self.phones: dict[str, set[str]] = defaultdict(set)  # user id -> phones on record
        self.perhaps_phones: dict[str, set[str]] = defaultdict(set)
        self.deliveries: dict[str, Delivery] = {}
        self.heard: set[Key] = set()  # what Regal received from others
        self._seen: set[tuple[str, Statement]] = set()
        self._rows: list[tuple[Options, Row]] = []
        self._taken: set[Statement] = set()  # by a redelivery

    # -- reports

    def begins(self, delivery: str, options: Options, *, anew: bool) -> None:
        """A delivery, or another try of it, begins.

        :param anew: it has to read its source.
        """
        this = self.deliveries.setdefault(delivery, Delivery(options))
        this.owed_before = {key for key in self.barriers if self.is_owed(key)}
        if anew:
            this.on_record, this.before = self.on_record, {key: yes for key, (yes, _) in self.settled.items()}
            this.options = options
            if options.first_run == "baseline" and this.on_record is False and options.may_send != "no":
                this.options = replace(options, may_send="owed")

    def reads(
        self, delivery: str, source: str, rows: Sequence[Row], moments: Sequence[datetime], *, certain: bool
    ) -> None:
        """A delivery has read its source.

        :param source: the task.
        :param moments: the first and the last possible time.
        :param certain: it has certainly read it completely.
        """
        this, (first, last) = self.deliveries[delivery], moments
        this.moments |= {first, last}
        this.lost = {
            one.user for row in rows for one in row.statements if certain and self._is_lost(this.options, one)
        }  # fmt: skip
        newest = dict[Key, datetime]()
        for row in rows:
            self._rows.append((this.options, row))
            overtaken = self._newest_yeses(row, this.options, first) if row.yes != "never" else {}
            for key, at in overtaken.items():
                _raise(newest, key, at)
            for statement in row.statements:
                known = this.options.by_changes and (source, statement) in self._seen
                self._seen.add((source, statement))
                self._read(this, row, statement, (first, last), overtaken, certain=certain and not known)
        # It sends the newest of each; an older no, if the newest is refused, is owed.
        this.nos = {key: at for key, at in this.nos.items() if newest.get(key, at) <= at}

    def reads_letters(self, moment: datetime) -> None:
        """A redelivery may take any row; it fails for unreadable ones, and a time in the future may have come."""
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
        """Return the newest yes of each key in a row: an older no in the same row never counted."""
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
        if answer_of(statement.answer) is not None:  # otherwise the person is not in the source
            this.mentioned.update(keys)
        for key in keys:
            if row.yes != "never":
                self.yeses[key] |= {meaning for meaning in (early, late) if isinstance(meaning, Yes)}
            if isinstance(early, Yes) and row.yes == "sent" and certain:
                self.stated[key] = max(self.stated.get(key, early), early, key=lambda yes: yes.at)
            elif isinstance(early, Unreadable) and row.yes == "sent" and self._counts(statement):
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
            if certain and overtaken.get(key, early.at) <= early.at and self._is_news(statement, key, early):
                _raise(self.barriers, key, early.at)
                if this.options.may_send not in ("owed", "nothing"):
                    _raise(this.nos, key, early.at)

    def _keys_of(self, statement: Statement, channel: str, options: Options) -> Iterator[Key]:
        """Return the keys of a decision: without a phone in the row, those of every phone on record (rule 2)."""
        if statement.point is not None:
            yield statement.point, channel
        if statement.point is None and channel in PHONE_CHANNELS and answer_of(statement.answer) is False:
            yield from ((phone, channel) for phone in sorted(self.phones[statement.user]) if not self.hashed)
        if statement.point is None or answer_of(statement.answer) is False:
            yield f"user:{statement.user}", channel

    # -- who must not be contacted

    def suppresses(self, people: Collection[str]) -> None:
        """A person is put on the list, by some of their identifiers."""
        self.held |= {*people}

    def releases(self, people: Collection[str]) -> None:
        """A person is taken off the list. The opt-outs of a forgotten person are on record again, and owed."""
        self.held -= {*people}
        for one in people:
            self.forgotten.pop(one, None)

    def forgets(self, people: Collection[str]) -> None:
        """Everything on record about a person is removed, except the times of their opt-outs."""
        self.held |= {*people}
        self.erased, self.on_record = True, None
        for key in [key for key in self.inferred if key[0] in people]:
            self.no_times[key] |= {self.inferred[key], *self.inferred_when[key]}  # these can't be distinguished anymore
            _raise(self.perhaps, key, self.inferred[key])
        for one in people:
            known = {key: at for key, at in self.perhaps.items() if key[0] == one}
            self.forgotten[one] = self.forgotten.get(one, known)
            self.phones.pop(one.removeprefix("user:"), None)
        for key in [key for key in self.settled if key[0] in self.forgotten]:
            del self.settled[key]
        for event in [event for event in self.events if event[0][0] in self.forgotten]:
            del self.events[event]

    def _counts(self, statement: Statement) -> bool:
        """Return whether an unreadable statement fails the task: for forgotten people, nothing is kept."""
        return statement not in self._taken and not self._is_forgotten(statement)

    def _is_lost(self, options: Options, statement: Statement) -> bool:
        """Return whether a no certainly reaches no phone (rule 2): the sync that reads it fails."""
        reaches = statement.point is not None or self.perhaps_phones[statement.user]
        is_no = answer_of(statement.answer) is False
        return options.is_sync and is_no and not reaches and not self._is_forgotten(statement)

    def _is_forgotten(self, statement: Statement) -> bool:
        return statement.point in self.forgotten or f"user:{statement.user}" in self.forgotten

    def _is_news(self, statement: Statement, key: Key, no: No) -> bool:
        """Return whether a no is recorded: for a forgotten person, only one that is not older than the known one."""
        if not self._is_forgotten(statement):
            return True
        known = self.forgotten.get(key[0], {}).get(key)
        return not key[0].startswith("user:") and (known is None or (no.dated and no.at > known))

    def is_owed(self, key: Key) -> bool:
        """Rule 3: return whether Regal certainly lacks an opt-out that the ledger has."""
        known = self.forgotten.get(key[0], {}).get(key)
        return not key[0].startswith("user:") and self.lacks(key) and (known is None or self.barriers[key] > known)

    def _points_of(self, people: Collection[str]) -> set[str]:
        """Return all points of a request, with the phones on record of its user ids."""
        known = (self.phones[one.removeprefix("user:")] for one in people if one.startswith("user:"))
        return {*people}.union(*known)

    def _have_opted_out(self, people: Collection[str]) -> bool:
        """Return whether these have certainly opted out of every channel on record for them."""
        every = {*self.barriers, *self.perhaps, *self.regal, *self.newest_sent, *self.inferred}
        every |= {key for key, yeses in self.yeses.items() if yeses}  # perhaps being sent
        perhaps = set[str]().union(*(self.perhaps_phones[one.removeprefix("user:")] for one in people))
        keys = [key for key in every if key[0] in self._points_of(people) | perhaps]
        # Only some paths record a user id's decision without a phone.
        by_address = [key for key in keys if not key[0].startswith("user:")]
        return bool(by_address) and all(self._has_opted_out(key) for key in keys)

    def _has_opted_out(self, key: Key) -> bool:
        newest_yes = max((yes.at for yes in self.yeses[key]), default=None)
        barrier = self.barriers.get(key)
        if barrier is None or self.newest_sent.get(key, barrier) > barrier:
            return False
        return newest_yes is None or newest_yes <= barrier

    def _check_people(self, this: Delivery, one: Request) -> Iterator[str]:
        opts_in = any(decision.subscribed for decision in one.decisions)
        if not one.opts_out_only and (held := sorted(self._points_of(one.people) & self.held)):
            yield f"request {one.number}: {', '.join(held)} must not be contacted"
        if this.options.holds_events and one.named and not opts_in and self._have_opted_out(one.people):
            yield f"request {one.number}: an event to people who opted out of every channel: {sorted(one.people)}"

    # -- what was sent

    def receives(self, delivery: str, found: Sequence[Request], *, anew: bool, calm: bool) -> list[str]:
        """Regal has received what a delivery sent, in this order.

        :param anew: the delivery has read its source in this try, and does not resume.
        :param calm: nothing failed.
        """
        this, broken = self.deliveries[delivery], list[str]()
        seen: set[str | None] = set()
        for request in found:
            broken += self._check_people(this, request)
            broken += self._receives(this, request.decisions, seen, anew=anew, calm=calm)
        return [*broken, *self._check_flips(this)]

    def _receives(
        self, this: Delivery, found: Sequence[Received], seen: set[str | None], *, anew: bool, calm: bool
    ) -> list[str]:
        broken = list[str]()
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
            recorded = this.options.may_send == "owed" and not (this.guarded and not one.subscribed)
            if recorded and (one.subscribed or one.key not in this.owed_before):
                broken.append(f"a baseline is only recorded, and {one} was sent")
            if this.before.get(one.key, one.subscribed) != one.subscribed and not one.refused:
                this.flips.add(one.key)
            again = one.at is not None and self.settled.get(one.key) == (one.subscribed, one.at)
            if anew and again and this.options.once:
                broken.append(f"rule 5: Regal had acknowledged it: {one}")
            self._note(one)
        return broken

    def _check_flips(self, this: Delivery) -> Iterator[str]:
        """If too many consents would flip, a guard stops opt-ins and what ``on_removed`` infers."""
        most, inferred = this.options.max_change_ratio, {key for key in this.flips if key not in this.mentioned}
        if most is None or not (this.opts_in or inferred):
            return
        flips = this.flips & (this.mentioned | (inferred if this.options.infers_opt_outs else set()))
        known = len({*self.regal, *self.newest_sent, *self.no_times})  # at most
        if len(flips) > max(FLIPS_ALWAYS_ALLOWED, most * known):
            yield f"a guard (max_change_ratio={most:g}) let {len(flips)} consents flip"

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
        this.opts_in = True
        if this.options.may_send == "no" or this.guarded:
            yield "a guard lets no opt-in pass"
        if one.event and not one.refused:
            self.events[one.key, at] += 1
            if self.events[one.key, at] > 1 and not this.options.repeats_unknown:
                yield "rule 5: the event may be at Regal already"

    def _check_no(self, this: Delivery, one: Received) -> Iterator[str]:
        stated = self.no_times[one.key]
        for user, known in self.perhaps_phones.items():  # its phones may be known by now
            if one.point in known and (by_user := self.no_times[f"user:{user}", one.channel]):
                stated = stated | by_user
                _raise(self.perhaps, one.key, max(by_user))
        if this.options.infers_opt_outs and one.key not in this.mentioned and one.at not in stated:
            if this.guarded or this.options.may_send == "no":
                yield "a guard lets no opt-out pass that nobody has stated"
            _raise(self.inferred, one.key, one.at or datetime.max.replace(tzinfo=UTC))
            self.inferred_when[one.key] |= this.moments
        elif not stated:
            yield "nobody has opted out"
        elif one.at is not None and one.at not in stated:
            yield f"no opt-out has this time ({sorted(map(str, stated))})"

    def _note(self, one: Received) -> None:
        keys, perhaps = [one.key], set[Key]()
        if one.point is None:  # the event applies to the phones that Regal has for the contact
            keys += [(phone, one.channel) for phone in self.phones[one.user or ""]]
            perhaps = {(phone, one.channel) for phone in self.perhaps_phones[one.user or ""]}
        for key in keys:
            if one.stored:
                self.regal[key] = (one.subscribed, one.at)
        for key in perhaps.union(keys):
            if one.subscribed and one.at is not None and not one.refused:
                _raise(self.newest_sent, key, one.at)

    def fills(self, rows: Sequence[Row], options: Options, moment: datetime) -> None:
        """Regal received everything in these rows from others: the assumption of a baseline."""
        newest: dict[Key, tuple[datetime, bool]] = {}
        for statement in (statement for row in rows for statement in row.statements):
            meaning, channel = meaning_of(statement, options, moment), statement.channel.strip().lower()
            if statement.point is None or not isinstance(meaning, (Yes, No)):
                continue
            is_no = isinstance(meaning, No)
            for one in channels_closed(channel, options) if is_no else (channel,):
                key = (statement.point, one)
                newest[key] = max(newest.get(key, (meaning.at, is_no)), (meaning.at, is_no))
        for key, (at, is_no) in newest.items():
            if self.newest_sent.get(key, at) <= at:
                self.regal_hears(key, subscribed=not is_no, at=at)

    def regal_hears(self, key: Key, *, subscribed: bool, at: datetime) -> None:
        """The person or an agent has informed Regal; we sent nothing."""
        self.heard.add(key)
        if subscribed and at <= self.barriers.get(key, at - SOON):
            return  # Regal learned this before a no that it has from us
        self.regal[key] = (subscribed, at)
        if subscribed:
            _raise(self.newest_sent, key, at)

    def stops(self, delivery: str, why: str) -> list[str]:
        """A sync was stopped: it sends nothing, or only opt-outs.

        :param why: ``initial`` (the behavior of a first run is not set), ``lost`` (the ledger has less than before),
            ``guard`` (too many consents would flip), ``hashed`` (the people to opt out are known only as hashes).
        """
        this, options = self.deliveries[delivery], self.deliveries[delivery].options
        this.guarded = True
        allowed = {
            "initial": options.first_run == "refused" and not this.on_record,
            "lost": bool(self.erased),
            "hashed": options.infers_opt_outs and self.hashed,
            "guard": options.max_change_ratio is not None
            and (options.infers_opt_outs or len(this.mentioned) > FLIPS_ALWAYS_ALLOWED),
        }
        return [] if allowed[why] else [f"it was stopped without a reason: {why}"]

    def ends(
        self,
        delivery: str,
        found: Sequence[Request],
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
        for one in (decision for request in found for decision in request.decisions):
            if orderly and one.told:
                self.settled[one.key] = (one.subscribed, one.at)
            elif not (orderly and one.refused):
                self.settled.pop(one.key, None)
            if one.told:
                self.on_record = self.on_record or orderly or None
        if this.options.may_send == "owed":
            self.on_record = self.on_record or None
        broken = [f"rule 4: it succeeded, though {key} can't be read" for key in this.unreadable if green]
        lost = this.lost if green else ()
        broken += [f"rule 2: it succeeded, though the opt-out of {user} belongs to no phone" for user in lost]
        if this.options.first_run == "refused" and this.on_record is False and (found or green):
            broken.append("nothing is on record, and a sync without initial= was not refused")
        for key in [key for key in self.barriers if self.is_owed(key)]:
            own = key in this.nos and this.nos[key] >= self.barriers[key]
            if key not in owed:
                broken.append(f"rule 3: Regal lacks the opt-out of {key}, and the ledger does not owe it")
            if faultless and this.options.contacts and this.options.may_send != "nothing" and (own or not self.hashed):
                broken.append(f"rule 3: the opt-out of {key} is owed, and a delivery of contacts did not send it")
            if green and own:
                broken.append(f"rule 2: it succeeded, though the opt-out of {key} is not at Regal")
        return broken

    # -- states

    def lacks(self, key: Key) -> bool:
        """Rule 3: return whether Regal lacks an opt-out that was certainly read; a newer yes supersedes it."""
        barrier = self.barriers[key]
        if key in self.newest_sent and self.newest_sent[key] > barrier:
            return False
        return self.regal.get(key, (True, None))[0]

    def keys(self) -> set[Key]:
        """Return every key with a statement, except those with only a user id."""
        found = {*self.barriers, *self.perhaps, *self.stated, *self.regal}
        return {key for key in found if not key[0].startswith("user:")}

    def final(self, key: Key) -> set[bool | None]:
        """Rule 5: return what Regal may have once every valid decision was delivered again without a fault."""
        yes, barrier, perhaps = self.stated.get(key), self.barriers.get(key), self.perhaps.get(key)
        if yes is not None and (barrier is None or yes.at > barrier):
            if key[0] in self.held:
                return {True, False, None}
            if self.newest_sent.get(key, yes.at) > yes.at:  # such as that of a repeated message, which Regal may have
                return {True, False, None}
            doubtful = (perhaps is not None and yes.at <= perhaps) or (key in self.inferred)
            return {True, False} if doubtful else {True}
        if barrier is not None:
            newer = self.newest_sent.get(key)  # of a yes that no valid row states, such as that of a repeated message
            return {False} if newer is None or newer <= barrier else {True, False, None}
        return {None, True, False} if perhaps is not None or key in self.newest_sent else {None}


def _raise(times: dict[Key, datetime], key: Key, at: datetime) -> None:
    times[key] = max(times.get(key, at), at)
