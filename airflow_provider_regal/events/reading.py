"""From what people write to one shape.

An event may be written with our names (``user_id``, ``phone``), in Regal's form (``phones`` as a map with opt-ins
inside) or in Segment's (``phone``, ``optIn[]``, ``address.postalCode``)::

    written event ─▶ draft: our field names, phones and emails as lists, opt-ins where they belong ─▶ pydantic

The draft remembers where each part came from, so that a fault is named in the writer's words. Nothing is
validated here: a value that cannot be placed is a fault, everything else is pydantic's to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events import names
from airflow_provider_regal.events.identifiers import is_blank, read_email, read_phone

Location = tuple[int | str, ...]


@dataclass(slots=True)
class Draft:
    """An event with our field names, not yet validated."""

    fields: dict[str, Any] = field(default_factory=dict)
    origins: dict[Location, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: str, reason: str) -> None:
        self.faults.append(Fault(path, reason))

    def origin(self, location: Location) -> str:
        """Name a place of the draft in the words of whoever wrote the event."""
        for length in range(len(location), 0, -1):
            if (start := self.origins.get(location[:length])) is not None:
                return start + _path(location[length:])
        return _path(location).lstrip(".")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between phones and emails."""

    many: str
    one: str
    key: str
    channels: tuple[names.Channel, ...]
    read: Callable[[Any], str]


_PHONE = _Kind(names.PHONES, "phone", "number", names.PHONE_CHANNELS, read_phone)
_EMAIL = _Kind(names.EMAILS, "email", "address", names.EMAIL_CHANNELS, read_email)


def draft_of(written: Mapping[str, Any], aliases: Mapping[str, str], *, promotes: bool) -> Draft:
    """Bring a written event into one shape.

    :param aliases: wire name -> our name, for the fields of this event.
    :param promotes: whether a single ``phone`` or ``email`` becomes the primary one, as in Segment's identify.
    """
    draft = Draft()
    for key, value in written.items():
        name = aliases.get(key, key)
        if name in draft.fields:
            draft.fault(key, f"given twice (also as {name}); give it once")
        elif value is not None:
            draft.fields[name] = value
            draft.origins[(name,)] = key
    if "user_id" in draft.fields and is_blank(draft.fields["user_id"]):
        del draft.fields["user_id"]
    traits = _take_traits(draft)
    opt_ins = _take_opt_ins(draft, traits)
    for kind in (_PHONE, _EMAIL):
        _place(draft, traits, kind, opt_ins, promotes)
    for path, entry in opt_ins:
        _no_place(draft, path, entry)
    if traits:
        draft.fields["traits"] = traits
    if not draft.fields.keys() & {"user_id", names.PHONES, names.EMAILS}:
        draft.fault("user_id, phone, email", "at least one is needed: Regal could not tell whom this is about")
    return draft


def _take_traits(draft: Draft) -> dict[Any, Any]:
    given = draft.fields.pop("traits", None)
    sub_brand = draft.fields.pop("sub_brand", None)
    if given is not None and not isinstance(given, Mapping):
        draft.fault("traits", f"must be an object, not a {type(given).__name__}")
        given = None
    traits = dict(given or {})
    if sub_brand is not None:
        traits.setdefault(names.SUB_BRAND, sub_brand)
    address = traits.get(names.ADDRESS)
    if isinstance(address, Mapping):
        traits[names.ADDRESS] = {names.ADDRESS_ALIASES.get(key, key): value for key, value in address.items()}
    return traits


def _take_opt_ins(draft: Draft, traits: dict[Any, Any]) -> list[tuple[str, Any]]:
    """Take the opt-ins that are not under a phone or email yet, with their paths."""
    taken: list[tuple[str, Any]] = []
    top = draft.origins.get(("opt_in",), "opt_in")
    for path, given in (
        (top, draft.fields.pop("opt_in", None)),
        (f"traits.{names.OPT_IN}", traits.pop(names.OPT_IN, None)),
        ("traits.opt_in", traits.pop("opt_in", None)),
    ):
        entries = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
        single = not isinstance(given, (list, tuple))
        taken += [
            (path if single else f"{path}[{i}]", entry)
            for i, entry in enumerate(entries)
            if not _unknown(entry)
        ]
    return taken


def _place(
    draft: Draft, traits: dict[Any, Any], kind: _Kind, opt_ins: list[tuple[str, Any]], promotes: bool
) -> None:
    """Gather the phones (or emails) of an event and put the loose opt-ins where they belong."""
    entries = _many(draft, draft.fields.pop(kind.many, None), draft.origins.get((kind.many,), kind.many), kind)
    entries += _many(draft, traits.pop(kind.many, None), f"traits.{kind.many}", kind)
    owner: _Entry | None = None  # of the loose opt-ins: the single phone, else the only one
    for path, value in (
        (kind.one, draft.fields.pop(kind.one, None)),
        (f"traits.{kind.one}", traits.pop(kind.one, None)),
    ):
        if not is_blank(value):
            owner = _join(entries, path, value, kind, promotes)
    if owner is None and len(entries) == 1:
        owner = entries[0]
    if owner is not None:
        for loose in [loose for loose in opt_ins if _channel(loose[1]) in kind.channels]:
            opt_ins.remove(loose)
            owner.add(*loose)
    if entries:
        draft.fields[kind.many] = [entry.given for entry in entries]
        for position, entry in enumerate(entries):
            entry.name_in(draft, (kind.many, position), kind)


@dataclass(slots=True)
class _Entry:
    """One phone or email of the draft, and where each part of it was written."""

    path: str
    given: Any
    opt_in_paths: list[str] = field(default_factory=list)

    def add(self, path: str, opt_in: Any) -> None:
        if isinstance(self.given, BaseModel):
            self.given = {name: getattr(self.given, name) for name in type(self.given).model_fields}
        self.given["opt_ins"] = [*self.given.get("opt_ins", ()), opt_in]
        self.opt_in_paths.append(path)

    def name_in(self, draft: Draft, location: Location, kind: _Kind) -> None:
        draft.origins[location] = draft.origins[(*location, kind.key)] = self.path
        count = len(self.opt_in_paths)
        first = len(self.given.get("opt_ins", ())) - count if isinstance(self.given, dict) else 0
        for position, path in enumerate(self.opt_in_paths):
            draft.origins[(*location, "opt_ins", first + position)] = path


def _many(draft: Draft, given: Any, path: str, kind: _Kind) -> list[_Entry]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [_from_map(draft, key, info, f"{path}[{i}]", kind) for i, (key, info) in enumerate(given.items())]
    if isinstance(given, (list, tuple)) and not path.startswith("traits."):
        return [_Entry(f"{path}[{i}]", _member(entry, kind)) for i, entry in enumerate(given)]
    draft.fault(path, f"must be an object keyed by the {kind.key}, not a {type(given).__name__}")
    return []


def _member(given: Any, kind: _Kind) -> Any:
    if isinstance(given, Mapping):
        return dict(given)
    return {kind.key: given} if isinstance(given, str) else given


def _from_map(draft: Draft, key: Any, info: Any, path: str, kind: _Kind) -> _Entry:
    """Read one member of Regal's map: ``"+1212...": {"isPrimary": true, "smsOptIn": {...}}``."""
    entry = _Entry(path, {kind.key: key})
    if info is None:
        return entry
    if not isinstance(info, Mapping):
        draft.fault(path, f"must be an object, not a {type(info).__name__}")
        return entry
    keys: dict[str, names.Channel] = {names.OPT_IN_KEYS[channel]: channel for channel in kind.channels}
    for name, value in info.items():
        if value is None:
            continue
        if name not in keys:
            entry.given[names.CONTACT_ALIASES.get(name, name)] = value
        elif isinstance(value, Mapping):
            if not _unknown(value):
                entry.add(f"{path}.{name}", {**value, "channel": keys[name]})
        else:
            draft.fault(f"{path}.{name}", f"must be an object, not a {type(value).__name__}")
    return entry


def _join(entries: list[_Entry], path: str, value: Any, kind: _Kind, promotes: bool) -> _Entry:
    """Add a single ``phone``/``email``; where the map has the same one, they are one."""
    entry = next((entry for entry in entries if _same(entry.given, value, kind)), None)
    if entry is None:
        entry = _Entry(path, {kind.key: value})
        entries.append(entry)
    if promotes and isinstance(entry.given, dict):
        entry.given.setdefault("is_primary", True)
    return entry


def _same(given: Any, value: Any, kind: _Kind) -> bool:
    other = given.get(kind.key) if isinstance(given, dict) else getattr(given, kind.key, None)
    try:
        return kind.read(other) == kind.read(value)
    except ValueError:
        return False


def _channel(opt_in: Any) -> Any:
    return opt_in.get("channel") if isinstance(opt_in, Mapping) else getattr(opt_in, "channel", None)


def _unknown(opt_in: Any) -> bool:
    """Whether an opt-in says that nothing is known: then it is left out, never sent as a no."""
    return isinstance(opt_in, Mapping) and "subscribed" in opt_in and opt_in["subscribed"] is None


def _no_place(draft: Draft, path: str, opt_in: Any) -> None:
    channel = _channel(opt_in)
    if channel in _PHONE.channels:
        one, many = _PHONE.one, _PHONE.many
    elif channel in _EMAIL.channels:
        one, many = _EMAIL.one, _EMAIL.many
    else:
        draft.fault(f"{path}.channel", "must be sms, voice or email")
        return
    if many in draft.fields:
        draft.fault(path, f"the event has several {many}; put the opt-in under the one it belongs to")
    else:
        draft.fault(path, f"needs a {one} in the same event: consent belongs to a {one}")


def _path(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
