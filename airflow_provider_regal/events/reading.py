"""Bring events that people write into one shape.

An event may be written with our names (``user_id``, ``phone``), in Regal's format (``phones`` as a map with opt-ins
inside) or in Segment's (``phone``, ``optIn[]``, ``address.postalCode``)::

    written event ─▶ draft: our field names, phones and emails as lists, opt-ins where they belong ─▶ pydantic

The draft remembers where each part came from, so that faults use the writer's names. Nothing is validated here: a value
that can't be placed is a fault; pydantic judges everything else.

An opt-in outside the phones belongs to the single ``phone``, else to the only one there is. If there are none or
several, it has no place (``unplaced``): a yes is then withheld, and a no applies to every phone of the event.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events import names
from airflow_provider_regal.events.consent import is_opt_out, read_channel
from airflow_provider_regal.events.faults import Location, path_of
from airflow_provider_regal.events.identifiers import read_email, read_phone
from airflow_provider_regal.events.python_values import is_blank, is_missing, is_nothing, plain

# An opt-in as it was written, and where.
_Found = tuple[Location, Any]


@dataclass(slots=True)
class Draft:
    """An event with our field names, not yet validated."""

    fields: dict[str, Any] = field(default_factory=dict)
    origins: dict[Location, Location] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    lost: list[Any] = field(default_factory=list)  # opt-ins of a channel that Regal does not have
    left_out: list[tuple[str, Fault]] = field(default_factory=list)  # of phones and emails, if they are dropped
    bare: set[Location] = field(default_factory=set)  # places of a yes or no without an object around it

    def fault(self, where: Location, reason: str) -> None:
        """Record a fault: what can't be placed, and where it was written."""
        self.faults.append(Fault(path_of(where), reason))

    def take(self, name: str) -> _Found:
        """Take a field out of the draft, with the place where it was written."""
        return self.origins.get((name,), (name,)), self.fields.pop(name, None)

    def origin(self, location: Location) -> Location:
        """Return where the writer had put what is now at a place of the draft."""
        for length in range(len(location), 0, -1):
            if (start := self.origins.get(location[:length])) is not None:
                return start + location[length:]
        return location


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between phones and emails."""

    many: str
    one: str
    key: str
    channels: Mapping[str, names.Channel]
    read: Callable[[Any], str]


@dataclass(slots=True)
class _Entry:
    """One phone or email of the draft, and where it and each of its opt-ins were written."""

    where: Location
    given: dict[str, Any]
    opt_ins: list[_Found] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)  # our name -> as written, if they differ


def _channels(channels: tuple[names.Channel, ...]) -> dict[str, names.Channel]:
    return {names.OPT_IN_KEYS[channel]: channel for channel in channels}


_PHONE = _Kind(names.PHONES, "phone", "number", _channels(names.PHONE_CHANNELS), read_phone)
_EMAIL = _Kind(names.EMAILS, "email", "address", _channels(names.EMAIL_CHANNELS), read_email)


def draft_of(
    written: Mapping[Any, Any], aliases: Mapping[str, str], *, promotes: bool, drops: Collection[str] = ()
) -> Draft:
    """Bring a written event into one shape.

    :param aliases: wire name -> our name, for the fields of this event.
    :param promotes: whether a single ``phone`` or ``email`` becomes the primary one, as in Segment's identify.
    :param drops: fields (``phones``, ``emails``) from which invalid entries are dropped; their opt-ins become unplaced.
    """
    draft = Draft()
    for key, value in written.items():
        if not isinstance(key, str):
            draft.fault((), "the name of a field is not text")
        elif not is_nothing(value):
            name = aliases.get(key, key)
            if name in draft.fields:
                draft.fault((key,), "given twice under two names; give it once")
            draft.fields[name] = value
            draft.origins[(name,)] = (key,)
    if is_missing(draft.fields.get("user_id")):
        draft.fields.pop("user_id", None)
    traits = _take_traits(draft)
    opt_ins = [
        *_opt_ins(*draft.take("opt_in")),
        *_opt_ins((names.TRAITS, names.SEGMENT_OPT_IN), traits.pop(names.SEGMENT_OPT_IN, None)),
        *_opt_ins((names.TRAITS, "opt_in"), traits.pop("opt_in", None)),
        *_loose(draft, traits),
    ]
    for kind in (_PHONE, _EMAIL):
        is_null = any(
            kind.one in given and is_missing(given[kind.one])
            for given in (written, _mapping(written.get(names.TRAITS)))
        )
        opt_ins = _place(draft, traits, kind, opt_ins, promotes=promotes, is_null=is_null, drops=kind.many in drops)
    unplaced = _read_before(draft)
    for number, (where, opt_in) in enumerate(opt_ins, len(unplaced)):
        if _channel(opt_in) not in (*names.PHONE_CHANNELS, *names.EMAIL_CHANNELS):
            draft.fault((*where, "channel"), "must be sms, voice or email")
            draft.lost.append(opt_in)
            continue
        draft.origins[("unplaced", number)] = where
        unplaced.append(opt_in)
    if unplaced:
        draft.fields["unplaced"] = unplaced
    if traits:
        draft.fields[names.TRAITS] = traits
    if not draft.fields.keys() & {"user_id", names.PHONES, names.EMAILS}:
        draft.faults += [fault for _, fault in draft.left_out]
        draft.fault(("user_id, phone, email",), "at least one is needed, so that Regal knows the person")
    elif draft.left_out:
        draft.fields["left_out"] = draft.left_out
    return draft


def _read_before(draft: Draft) -> list[Any]:
    """Keep the unplaced opt-ins of an event that was read before."""
    where, unplaced = draft.take("unplaced")
    if isinstance(unplaced, (list, tuple)):
        return [*unplaced]
    if unplaced is not None:
        draft.fault(where, f"must be a list, not a {type(unplaced).__name__}")
    return []


def _take_traits(draft: Draft) -> dict[Any, Any]:
    where, given = draft.take(names.TRAITS)
    if given is not None and not isinstance(given, Mapping):
        draft.fault(where, f"must be an object, not a {type(given).__name__}")
        given = None
    traits = {} if given is None else dict(given)
    _rename(draft, traits, (names.TRAITS, names.SUB_BRAND), *draft.take("sub_brand"))
    if isinstance(traits.get(names.ADDRESS), Mapping):
        address = traits[names.ADDRESS] = dict(traits[names.ADDRESS])
        at = (names.TRAITS, names.ADDRESS)
        for alias, name in names.ADDRESS_ALIASES.items():
            _rename(draft, address, (*at, name), (*at, alias), address.pop(alias, None))
    return traits


def _rename(draft: Draft, values: dict[Any, Any], where: Location, written_at: Location, value: Any) -> None:
    """Store a value under the last part of ``where``, unless there is one already."""
    if is_blank(value):
        return
    if not is_nothing(values.get(where[-1])):
        draft.fault(written_at, f"given twice, also as {path_of(where)}; give it once")
    values[where[-1]] = value
    draft.origins[where] = written_at


def _opt_ins(where: Location, given: Any) -> list[_Found]:
    """Return one opt-in or a list of them, each with its place; omit empty ones."""
    given = plain(given)
    if isinstance(given, (list, tuple)):
        return [((*where, i), entry) for i, entry in enumerate(given) if not _unknown(entry)]
    return [] if _unknown(given) else [(where, given)]


def _loose(draft: Draft, traits: dict[Any, Any]) -> list[_Found]:
    """Take opt-ins that are written as separate traits or fields: ``smsOptIn``, ``sms_opt_in``."""
    found: list[_Found] = []
    for key, channel in names.LOOSE_OPT_INS.items():
        for where, value in (draft.take(key), ((names.TRAITS, key), traits.pop(key, None))):
            if not is_blank(value):
                found += _of_channel(draft, where, value, channel)
    return found


def _place(
    draft: Draft,
    traits: dict[Any, Any],
    kind: _Kind,
    opt_ins: list[_Found],
    *,
    promotes: bool,
    is_null: bool,
    drops: bool,
) -> list[_Found]:
    """Collect the phones (or emails) and assign the loose opt-ins to them; return the opt-ins left over.

    :param is_null: the single phone is present but empty: its opt-ins must not be assigned to another phone.
    """
    entries = _many(draft, *draft.take(kind.many), kind)
    entries += _many(draft, (names.TRAITS, kind.many), traits.pop(kind.many, None), kind, lists=False)
    owner: _Entry | None = None  # of the loose opt-ins: the single phone, else the only one
    for where, value in (draft.take(kind.one), ((names.TRAITS, kind.one), traits.pop(kind.one, None))):
        if is_missing(value):
            continue
        entry = _join(entries, where, value, kind)
        if owner is None and promotes:
            entry.given.setdefault("is_primary", True)
        elif owner is not None and owner is not entry:
            draft.fault(where, f"differs from the {kind.one} beside the traits; give one, or several as {kind.many}")
        owner = entry
    if owner is None and len(entries) == 1 and not is_null:
        owner = entries[0]
    left_over = [found for found in opt_ins if not _belongs(found, entries, owner, kind)]
    if drops:
        entries, left_out = _valid(draft, entries, kind)
        left_over += left_out
    for position, entry in enumerate(entries):
        location = (kind.many, position)
        draft.origins[location] = draft.origins[(*location, kind.key)] = entry.where
        for name, key in entry.members.items():
            draft.origins[(*location, name)] = (*entry.where, key)
        for number, (where, opt_in) in enumerate(entry.opt_ins):
            draft.origins[(*location, "opt_ins", number)] = where
            if where in draft.bare:
                draft.origins[(*location, "opt_ins", number, "subscribed")] = where
            for alias, name in names.OPT_IN_ALIASES.items():
                if isinstance(opt_in, Mapping) and alias in opt_in and name not in opt_in:
                    draft.origins[(*location, "opt_ins", number, name)] = (*where, alias)
        draft.fields.setdefault(kind.many, []).append(
            {**entry.given, "opt_ins": [opt_in for _, opt_in in entry.opt_ins]}
        )
    return left_over


def _valid(draft: Draft, entries: Sequence[_Entry], kind: _Kind) -> tuple[list[_Entry], list[_Found]]:
    """Return the valid phones, and the opt-ins of the others."""
    valid: list[_Entry] = []
    left_over: list[_Found] = []
    for entry in entries:
        try:
            kind.read(entry.given.get(kind.key))
        except ValueError as error:
            draft.left_out.append((kind.many, Fault(path_of(entry.where), str(error))))
            left_over += entry.opt_ins
        else:
            valid.append(entry)
    return valid, left_over


def _belongs(found: _Found, entries: Sequence[_Entry], owner: _Entry | None, kind: _Kind) -> bool:
    """Assign a loose opt-in, if its phone is known; an opt-out without a phone applies to all phones."""
    if _channel(found[1]) not in kind.channels.values():
        return False
    owners = [owner] if owner is not None else entries if is_opt_out(found[1]) else ()
    for one in owners:
        one.opt_ins.append(found)
    return bool(owners)


def _many(draft: Draft, where: Location, given: Any, kind: _Kind, *, lists: bool = True) -> list[_Entry]:
    """Read Regal's map or, outside the traits, our list; messages contain positions, not the map's keys."""
    given = plain(given)
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [_entry(draft, (*where, i), {kind.key: key}, info, kind) for i, (key, info) in enumerate(given.items())]
    if lists and isinstance(given, (list, tuple)):
        return [
            _entry(draft, (*where, i), {}, item, kind)
            if isinstance(item, (Mapping, BaseModel))
            else _Entry((*where, i), {kind.key: item})
            for i, item in enumerate(given)
            if not is_missing(item)
        ]
    draft.fault(where, f"must be an object keyed by the {kind.key}, not a {type(given).__name__}")
    return []


def _entry(draft: Draft, where: Location, given: dict[str, Any], info: Any, kind: _Kind) -> _Entry:
    """Read the details of one phone: ``{"isPrimary": true, "smsOptIn": {...}}``, in Regal's names or ours."""
    entry = _Entry(where, given)
    if isinstance(info, BaseModel):
        info = {name: getattr(info, name) for name in type(info).model_fields}
    if is_nothing(info):
        return entry
    if not isinstance(info, Mapping):
        draft.fault(where, f"must be an object, not a {type(info).__name__}")
        return entry
    for key, value in info.items():
        if is_nothing(value):
            continue
        if not isinstance(key, str):
            draft.fault(where, "the name of a member is not text")
        elif key in kind.channels:
            entry.opt_ins += _of_channel(draft, (*where, key), value, kind.channels[key])
        elif key == "opt_ins":
            entry.opt_ins += _opt_ins((*where, key), value)
        elif (name := names.CONTACT_ALIASES.get(key, key)) in given:
            draft.fault((*where, key), "given twice; give it once")
        else:
            given[name] = value
            if name != key:
                entry.members[name] = key
    return entry


def _of_channel(draft: Draft, where: Location, value: Any, channel: names.Channel) -> list[_Found]:
    """Read the value under a channel's name: an opt-in, or just yes or no."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    opt_in = value
    if not isinstance(value, Mapping):
        opt_in = {"subscribed": value}
        draft.bare.add(where)
    if _channel(opt_in) not in (None, channel):
        draft.fault((*where, "channel"), f"contradicts its place; here stands the opt-in for {channel}")
    return [] if _unknown(opt_in) else [(where, {**opt_in, "channel": channel})]


def _join(entries: list[_Entry], where: Location, value: Any, kind: _Kind) -> _Entry:
    """Add a single ``phone``/``email``, or merge it with the same one in the map."""
    for entry in entries:
        if _same(entry.given.get(kind.key), value, kind):
            return entry
    entries.append(_Entry(where, {kind.key: value}))
    return entries[-1]


def _same(one: Any, other: Any, kind: _Kind) -> bool:
    try:
        return kind.read(one) == kind.read(other)
    except ValueError:
        return False


def _channel(opt_in: Any) -> str | None:
    channel = opt_in.get("channel") if isinstance(opt_in, Mapping) else getattr(opt_in, "channel", None)
    return read_channel(channel) if isinstance(channel, str) else None


def _unknown(opt_in: Any) -> bool:
    """Return whether an opt-in is unknown, so that it is left out and never sent as a no."""
    if isinstance(opt_in, Mapping):
        return "subscribed" in opt_in and is_blank(opt_in["subscribed"])
    return is_nothing(opt_in)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
