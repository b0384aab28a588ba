"""Read a message of a Segment archive as a written event, or the reason it is not sent.

::

    identify                traits, consent in them            ─▶ identify
    track                   event, properties                  ─▶ track
    page, screen            only if they are asked for         ─▶ page, screen
    alias, group, others, integrations that switch Regal off   ─▶ skipped

Only the members named here are sent; all others (``writeKey``, ``projectId``, ``context``) are ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events import names
from airflow_provider_regal.events.consent import read_ip
from airflow_provider_regal.events.identifiers import read_email, read_message_id, read_phone
from airflow_provider_regal.events.python_values import is_blank, is_missing, read_truth, trimmed
from airflow_provider_regal.events.rows.opt_outs import opt_outs_of
from airflow_provider_regal.events.times import read_time

# For messages without an event source; Segment's Regal destination is another path to the same contact.
EVENT_SOURCE: Final = "segment"

# Segment's own names, if they differ from Regal's.
_TYPE, _CHANNEL, _CONTEXT, _INTEGRATIONS = "type", "channel", "context", "integrations"
# Segment's mobile libraries also put them among the traits.
_IDS: Final = frozenset({names.USER_ID, names.ANONYMOUS_ID})
_OUR_MESSAGE_ID: Final = names.EVENT_ALIASES[names.MESSAGE_ID]
_LIBRARY, _DEVICE, _IP = "library", "device", "ip"
_PHONE, _EMAIL, _FULL_NAME = "phone", "email", "name"
_TIMES: Final = ("timestamp", names.ORIGINAL_TIMESTAMP)  # the first is corrected for the device's clock
_FOREIGN_CALLS: Final = frozenset({"alias", "group"})
# The members of a message of each call, other than who and when.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "identify": (names.TRAITS,),
    "track": ("event", names.PROPERTIES),
    "page": ("name", "category", names.PROPERTIES),
    "screen": ("name", "category", names.PROPERTIES),
}
_ALL: Final = "all"
_REGAL: Final = frozenset({"regal", "regal.io", "regal voice"})
_CLIENT_CHANNELS: Final = frozenset({"browser", "mobile", "client"})
_CLIENT_LIBRARIES: Final = frozenset(
    {
        "analytics.js",
        "analytics-ios",
        "analytics-android",
        "analytics-react-native",
        "@segment/analytics-react-native",
        "analytics-flutter",
        "analytics_flutter",
    }
)
# These run on servers, too; on a phone they describe it.
_LIBRARIES_OF_DEVICES: Final = frozenset({"analytics-kotlin", "analytics-swift"})
# Traits are cached and repeated with every identify; by then the person may have another IP address.
_SAME_MOMENT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is an event.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param written: the event for :meth:`~airflow_provider_regal.events.models.Event.read`.
    """

    call: str
    written: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A message that is not sent, on purpose.

    :param opt_outs: an identify whose opt-outs are still sent.
    """

    reason: str
    opt_outs: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Invalid:
    """Not a valid Segment message."""

    faults: tuple[Fault, ...]


def read_message(message: Mapping[str, Any], include: Collection[str] = ()) -> Message | Skipped | Invalid:
    """Read one message; its values are validated later, when the event is read.

    :param message: one call, as Segment archives it.
    :param include: ``page``, ``screen``: which of them are events; the others are skipped.
    """
    call = message.get(_TYPE)
    if is_blank(call):
        return Invalid((Fault(_TYPE, "is missing: every message of a Segment archive has one"),))
    if not isinstance(call, str) or (call not in _PARTS and call not in _FOREIGN_CALLS):
        return Skipped("a type of message that Regal does not know")
    if call in _FOREIGN_CALLS:
        return Skipped(f"{call}: Regal has no such call")
    if call in names.OPTIONAL_CALLS and call not in include:
        return Skipped(f"{call}: not asked for by include")
    switches = message.get(_INTEGRATIONS)
    if not isinstance(switches, Mapping | None):
        return Invalid((Fault(_INTEGRATIONS, "must be an object, or it can't be known whether Regal is switched off"),))
    written = _written(call, message)
    if _switched_off(switches or {}):
        says_no = call == "identify" and opt_outs_of(written) is not None
        return Skipped("integrations switch Regal off", written if says_no else None)
    if not _names_somebody(written) and not is_blank(message.get(names.ANONYMOUS_ID)):
        return Skipped("only an anonymous id")
    return Message(call, written)


def _written(call: str, message: Mapping[str, Any]) -> dict[str, Any]:
    # With Segment's own names, so that faults use them.
    said = (names.USER_ID, *_PARTS[call])
    written = {name: message[name] for name in said if not is_blank(message.get(name))}
    when = next((name for name in _TIMES if not is_blank(message.get(name))), None)
    if when is not None:
        written[when] = message[when]
    message_id = message.get(names.MESSAGE_ID)
    if not is_missing(message_id) and _reads(read_message_id, message_id):  # an unreadable one must not lose the event
        written[_OUR_MESSAGE_ID] = message_id
    context = _object(message.get(_CONTEXT))
    traits = written.get(names.TRAITS)
    if call != "identify":
        _add_identifiers(written, _object(context.get(names.TRAITS)))
    elif isinstance(traits, Mapping):
        called = None if when is None else _time(message[when])
        written[names.TRAITS] = _traits(traits, _address_of_person(message, context), called)
    return {**written, names.EVENT_SOURCE: EVENT_SOURCE}


def _add_identifiers(written: dict[str, Any], cached: Mapping[str, Any]) -> None:
    """Take only identifiers from cached traits: the rest may be outdated.

    An identifier that can't be read does not lose the event if there is another.
    """
    given = {name: cached[name] for name in (_PHONE, _EMAIL) if not is_missing(cached.get(name))}
    readers = {_PHONE: read_phone, _EMAIL: read_email}
    readable = {name: value for name, value in given.items() if _reads(readers[name], value)}
    written.update(readable if readable or names.USER_ID in written else given)


def _traits(traits: Mapping[str, Any], address: str | None, called: datetime | None) -> dict[str, Any]:
    kept = {name: value for name, value in traits.items() if name not in _IDS}
    if all(not is_blank(kept.get(name)) for name in names.TEXT_TRAITS[:2]):
        kept.pop(_FULL_NAME, None)  # Segment builds it from these two
    if address is None or called is None:
        return kept
    for name in (names.SEGMENT_OPT_IN, "opt_in"):
        if isinstance(kept.get(name), list):
            kept[name] = [_with_address(opt_in, address, called) for opt_in in kept[name]]
        elif name in kept:
            kept[name] = _with_address(kept[name], address, called)
    for name in (names.PHONES, names.EMAILS):
        if isinstance(kept.get(name), Mapping):
            kept[name] = {key: _point_with_address(info, address, called) for key, info in kept[name].items()}
    return kept


def _point_with_address(info: Any, address: str, called: datetime) -> Any:
    if not isinstance(info, Mapping):
        return info
    channels = names.OPT_IN_KEYS.values()
    return {key: _with_address(value, address, called) if key in channels else value for key, value in info.items()}


def _with_address(opt_in: Any, address: str, called: datetime) -> Any:
    if not isinstance(opt_in, Mapping) or not is_blank(opt_in.get(_IP)):
        return opt_in
    given = (_time(opt_in.get(name)) for name in (_TIMES[0], *names.OPT_IN_ALIASES))
    decided = next((time for time in given if time is not None), None)
    if decided is None or abs(called - decided) > _SAME_MOMENT:
        return opt_in
    return {**opt_in, _IP: address}


def _address_of_person(message: Mapping[str, Any], context: Mapping[str, Any]) -> str | None:
    """Return the call's IP address if the person made the call: a server's address is not evidence."""
    address = context.get(_IP)
    return address if _reads(read_ip, address) and _is_client_side(message.get(_CHANNEL), context) else None


def _is_client_side(channel: Any, context: Mapping[str, Any]) -> bool:
    channel = _word(channel) or _word(context.get(_CHANNEL))
    library = _word(_object(context.get(_LIBRARY)).get("name"))
    if channel is not None and channel not in _CLIENT_CHANNELS:
        return False
    if library is None:
        return channel is not None
    return library in _CLIENT_LIBRARIES or (library in _LIBRARIES_OF_DEVICES and bool(_object(context.get(_DEVICE))))


def _switched_off(switches: Mapping[str, Any]) -> bool:
    everything, regal = True, None
    for name, value in switches.items():
        wanted = None if value is None else _wanted(value)
        if wanted is None:
            continue
        if _word(name) == _ALL:
            everything = wanted
        elif _word(name) in _REGAL:
            regal = wanted and regal is not False
    return not (everything if regal is None else regal)


def _wanted(value: Any) -> bool:
    try:
        return read_truth(value)
    except ValueError:
        return True  # an object with options


def _names_somebody(written: Mapping[str, Any]) -> bool:
    traits = _object(written.get(names.TRAITS))
    single = [found.get(name) for found in (written, traits) for name in (_PHONE, _EMAIL)]
    many = [traits.get(name) for name in (names.PHONES, names.EMAILS)]
    return any(many) or not all(map(is_missing, (written.get(names.USER_ID), *single)))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _word(value: Any) -> str | None:
    return trimmed(value).casefold() or None if isinstance(value, str) else None


def _time(value: Any) -> datetime | None:
    try:
        return read_time(value)
    except ValueError:
        return None


def _reads(read: Any, value: Any) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True
