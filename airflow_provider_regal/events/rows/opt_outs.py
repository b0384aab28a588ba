"""Extract opt-outs from an otherwise invalid event, since nothing may hold them back.

Also finds decisions that can't be read as yes or no, so that no older yes of the same person and channel follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time, tzinfo
from decimal import Decimal
from typing import Any, Final, NamedTuple

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import names
from airflow_provider_regal.events.consent import is_opt_out, is_unreadable, read_channel
from airflow_provider_regal.events.identifiers import read_email, read_phone
from airflow_provider_regal.events.models import Identify
from airflow_provider_regal.events.options import USUAL, Reading
from airflow_provider_regal.events.python_values import is_blank, is_nothing, plain, trimmed
from airflow_provider_regal.events.reading import Draft, draft_of
from airflow_provider_regal.events.times import read_time


class Unreadable(NamedTuple):
    """A decision that can't be read as yes or no.

    :param at: when it was given; None if that can't be read either.
    """

    identifier: str
    channel: str
    at: datetime | None


_KEYS: Final = {names.PHONES: "number", names.EMAILS: "address"}
_EXPONENT: Final = re.compile(r"\+?(\d)\.(\d{9,14})[eE]\+?(\d{1,2})")
_ZEROS: Final = re.compile(r"(?<=\d)\.0{0,2}$")
_LONGEST: Final = 10**15  # E.164 allows 15 digits, and a float represents them exactly


def opt_outs_of(written: Mapping[str, Any], reading: Reading | None = None) -> Identify | None:
    """Make an event of the readable opt-outs of a written one, each with its phone or email; None if there are none.

    The user id is omitted unless an opt-out has neither phone nor email: it may be invalid, and the phone or email
    identifies the person.
    """
    draft = _draft(written)
    found: dict[str, Any] = {}
    for member, identifier, opt_ins in _points(draft):
        if opt_outs := [one for one in opt_ins if is_opt_out(one) and _has_channel(one, member)]:
            found.setdefault(member, {}).setdefault(identifier, []).extend(opt_outs)
    fields: dict[str, Any] = {
        member: [{_KEYS[member]: identifier, "opt_ins": outs} for identifier, outs in many.items()]
        for member, many in found.items()
    }
    unplaced = [one for one in draft.fields.get("unplaced", ()) if is_opt_out(one)]
    try:
        if unplaced and "user_id" in draft.fields:
            return Identify.read({**fields, "user_id": draft.fields["user_id"], "unplaced": unplaced}, reading)
    except InvalidEventError:
        pass
    try:
        return Identify.read(fields, reading) if fields else None
    except InvalidEventError:  # pragma: no cover - each part of it was read before
        return None


def unreadable_decisions(written: Mapping[str, Any], reading: Reading | None = None) -> list[Unreadable]:
    """Return the decisions that can't be read as yes or no, if their person and channel can be read."""
    zone = (reading or USUAL).timezone
    return [
        Unreadable(identifier, channel, _time(opt_in, zone))
        for member, identifier, opt_ins in _points(_draft(written))
        for opt_in in opt_ins
        if is_unreadable(opt_in) and (channel := _channel(opt_in)) in names.CHANNELS_OF[member]
    ]


def loses_a_decision(written: Mapping[str, Any]) -> bool:
    """Return whether an invalid event has an unreadable decision, or an opt-out that :func:`opt_outs_of` misses."""
    draft = _draft(written)
    lost = any(is_unreadable(one) for one in draft.fields.get("unplaced", ()))
    for member, read in _READERS.items():
        for point in draft.fields.get(member, ()):
            opt_ins = point.get("opt_ins", ())
            lost = lost or any(is_unreadable(one) for one in opt_ins)
            outs = [one for one in opt_ins if is_opt_out(one)]
            lost = lost or any(not _has_channel(one, member) for one in outs)
            lost = lost or bool(outs and not _reads(read, point.get(_KEYS[member])))
    return lost or any(is_opt_out(one) for one in draft.lost)


def has_decision(written: Mapping[str, Any]) -> bool:
    """Return whether an event that may be invalid has an opt-in or an opt-out, readable or not."""
    draft = _draft(written)
    points = (point for member in _READERS for point in draft.fields.get(member, ()))
    return bool(draft.lost or draft.fields.get("unplaced") or any(point.get("opt_ins") for point in points))


def _draft(written: Mapping[str, Any]) -> Draft:
    return draft_of(written, names.EVENT_ALIASES, promotes=False)


def _points(draft: Draft) -> Iterator[tuple[str, str, list[Any]]]:
    """Return the phones and emails that can be read, with the opt-ins of each."""
    for member, read in _READERS.items():
        for point in draft.fields.get(member, ()):
            try:
                identifier = read(point.get(_KEYS[member]))
            except (ValueError, TypeError):
                continue
            yield member, identifier, list(point.get("opt_ins", ()))


def _read_phone(value: Any) -> str:
    """Read a phone, even one that became a fraction or got an exponent, if all its digits are there.

    ``2125550100.0`` and ``2.125550131E9`` have all digits. ``2.12555E9`` may have been rounded, and is rejected.

    :raises ValueError: it is not a phone.
    """
    value = plain(value)
    if isinstance(value, (float, Decimal)) and not is_nothing(value) and 0 < value < _LONGEST and value % 1 == 0:
        value = int(value)
    elif isinstance(value, str):
        value = _ZEROS.sub("", trimmed(value))
        if (number := _EXPONENT.fullmatch(value)) is not None and int(number[3]) == len(number[2]):
            value = number[1] + number[2]
    return read_phone(value)


_READERS: Final[dict[str, Callable[[Any], str]]] = {names.PHONES: _read_phone, names.EMAILS: read_email}


def _reads(read: Callable[[Any], str], value: Any) -> bool:
    try:
        read(value)
    except (ValueError, TypeError):
        return False
    return True


def _time(opt_in: Any, zone: tzinfo) -> datetime | None:
    given = opt_in.get("timestamp") if isinstance(opt_in, Mapping) else getattr(opt_in, "timestamp", None)
    try:
        return None if is_blank(given) else read_time(given, zone, of_day=time.max, latest=True)
    except ValueError:
        return None


def _channel(opt_in: Any) -> Any:
    return read_channel(opt_in.get("channel") if isinstance(opt_in, Mapping) else getattr(opt_in, "channel", None))


def _has_channel(opt_in: Any, member: str) -> bool:
    return _channel(opt_in) in names.CHANNELS_OF[member]
