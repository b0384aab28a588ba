"""Convert an event into Regal's format: one JSON object, always with phones/emails maps, and with consent judged.

All events go through this module, so no code path can bypass the consent rules. The exception is ``fast_path``, for
rows that can't contain consent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json

from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import names
from airflow_provider_regal.events.consent import Consent, OptIn, Withheld, judge
from airflow_provider_regal.events.contact import ContactPoint, Phone
from airflow_provider_regal.events.models import Event, Page, Track
from airflow_provider_regal.events.names import Channel
from airflow_provider_regal.events.options import ConsentPolicy
from airflow_provider_regal.events.times import write_time

# Regal publishes no limit; Segment's is 32 KB per event. A larger body is a mistake, such as a file in a cell.
LARGEST_BODY: Final = 256 * 1024


@dataclass(slots=True)  # created for each row; creating a frozen one takes three times as long
class Payload:
    """What is sent for one event, and what was left out of it. Not changed after creation.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param body: the JSON object.
    :param withheld: opt-ins that were not sent, with their reasons.
    :param notes: what Regal will do that the sender may not expect.
    :param consents: its opt-ins and opt-outs.
    :param left_out: the event's invalid phones and emails: place and reason.
    :param opt_outs_elsewhere: opt-outs that belong to none of its phones or emails: channel, time, and wire format.
    """

    call: str
    body: dict[str, Any] = field(repr=False)
    withheld: tuple[Withheld, ...] = ()
    notes: tuple[str, ...] = ()
    consents: tuple[Consent, ...] = ()
    opt_outs_elsewhere: tuple[tuple[Channel, datetime | None, dict[str, Any]], ...] = ()
    left_out: tuple[Fault, ...] = ()
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def encoded(self) -> bytes:
        """The body as UTF-8 JSON.

        :raises InvalidEventError: it is larger than 256 KB.
        """
        if self._encoded is not None:
            return self._encoded
        encoded = self._encoded = to_json(self.body)
        if len(encoded) > LARGEST_BODY:
            self._encoded = None
            size = f"{len(encoded):,} bytes; more than {LARGEST_BODY:,} are not sent"
            raise InvalidEventError(self.call, [Fault("the event", f"is {size}. Leave the largest value out")])
        return encoded

    @property
    def opt_outs(self) -> Payload | None:
        """An identify with only its opt-outs; None if it has none.

        The user id is omitted: the phone or email identifies the person.
        """
        outs = tuple(consent for consent in self.consents if not consent.subscribed)
        if not outs:
            return None
        traits: dict[str, dict[str, Any]] = {}
        for out in outs:
            member, key = _place_of(out.channel)
            info = self.body[names.TRAITS][member][out.identifier][key]
            traits.setdefault(member, {}).setdefault(out.identifier, {})[key] = info
        source = {name: self.body[name] for name in (names.EVENT_SOURCE,) if name in self.body}
        return Payload("identify", {names.TRAITS: traits, **source}, consents=outs)

    def with_opt_outs(self, identifiers: Mapping[str, Sequence[str]]) -> Payload:
        """Add the opt-outs that belong to none of its phones, for phones of the person known from elsewhere.

        :param identifiers: ``phones`` of the person.
        """
        traits = dict(self.body.get(names.TRAITS, {}))
        consents = list(self.consents)
        for channel, at, written in self.opt_outs_elsewhere:
            member, key = _place_of(channel)
            for identifier in identifiers.get(member, ()):
                addresses = traits[member] = dict(traits.get(member, {}))
                info = addresses[identifier] = dict(addresses.get(identifier, {}))
                if key in info:
                    continue
                info[key] = written
                where = f"{member}[{len(addresses) - 1}]"
                evidence = (written.get(name) for name in ("ip", "text", "source"))
                consents.append(Consent(identifier, channel, False, at, where, *evidence))
        if len(consents) == len(self.consents):
            return self
        return replace(self, body={**self.body, names.TRAITS: traits}, consents=tuple(consents))

    def without(self, reasons: Mapping[Consent, str]) -> Payload:
        """Withhold consents that turned out to be outdated.

        :param reasons: consent of this payload -> why.
        """
        if not reasons:
            return self
        withheld = tuple(Withheld(consent, reason) for consent, reason in reasons.items())
        return replace(self.leaving_out(reasons), withheld=(*self.withheld, *withheld))

    def leaving_out(self, left_out: Collection[Consent]) -> Payload:
        """Leave out consents that need not be sent."""
        if not left_out:
            return self
        traits = dict(self.body[names.TRAITS])
        for consent in left_out:
            member, key = _place_of(consent.channel)
            addresses = traits[member] = dict(traits[member])
            info = addresses[consent.identifier] = dict(addresses[consent.identifier])
            del info[key]
        return replace(
            self,
            body={**self.body, names.TRAITS: traits},
            consents=tuple(consent for consent in self.consents if consent not in left_out),
        )


def _place_of(channel: Channel) -> tuple[str, str]:
    """Return where a channel's opt-in is: under phones or emails, and its key there."""
    return names.EMAILS if channel in names.EMAIL_CHANNELS else names.PHONES, names.OPT_IN_KEYS[channel]


def to_payload(
    event: Event, *, now: datetime, policy: ConsentPolicy | None = None, event_source: str | None = None
) -> Payload:
    """Convert an event into Regal's format.

    :param now: the current time (aware), to detect consent dated in the future.
    :param policy: which evidence opt-ins need.
    :param event_source: used if the event has none.
    :raises InvalidEventError: it contains only an opt-in, which is withheld.
    """
    policy = policy or ConsentPolicy()
    withheld: list[Withheld] = []
    consents: list[Consent] = []
    traits = dict(event.traits)
    for member, addresses, key in (
        (names.PHONES, event.phones, "number"),
        (names.EMAILS, event.emails, "address"),
    ):
        if addresses:
            infos = traits[member] = {}
            for position, address in enumerate(addresses):
                identifier, where = getattr(address, key), f"{member}[{position}]"
                fit, kept_back = judge(address.opt_ins, identifier=identifier, where=where, policy=policy, now=now)
                infos[identifier] = _info(address, fit, now)
                withheld += kept_back
                consents += (Consent.of(opt_in, identifier, where) for opt_in in fit)
    body: dict[str, Any] = {}
    if event.user_id is not None:
        body[names.USER_ID] = event.user_id
    if traits:
        body[names.TRAITS] = traits
    body.update(_what_happened(event))
    if event.timestamp is not None:
        body[names.ORIGINAL_TIMESTAMP] = write_time(event.timestamp)
    if source := event.event_source or event_source:
        body[names.EVENT_SOURCE] = source
    notes = (
        *_promotions(event.phones, traits.get(names.PHONES, {})),
        *state_note(traits),
        *_unread_times(event),
        *(f"{fault.field}: left out, since it is {fault.reason.partition(';')[0]}" for _, fault in event.left_out),
    )
    elsewhere, _ = judge([one for one in event.unplaced if not one.subscribed], where="", policy=policy, now=now)
    withheld += (_without_place(event, one) for one in event.unplaced if one.subscribed)
    outs = tuple((one.channel, one.timestamp, _opt_in(one, now)) for one in elsewhere)
    if withheld and body.keys().isdisjoint((names.TRAITS, names.NAME)) and not outs:
        raise InvalidEventError(
            event.call, [Fault(one.consent.where, one.reason) for one in withheld]
        )  # it contains nothing else
    return Payload(
        event.call, body, tuple(withheld), notes, tuple(consents), outs, tuple(fault for _, fault in event.left_out)
    )


def _without_place(event: Event, opt_in: OptIn) -> Withheld:
    of_email = opt_in.channel in names.EMAIL_CHANNELS
    kind, there = ("email", event.emails) if of_email else ("phone", event.phones)
    if len(there) > 1:
        reason = f"the event has several {kind}s; put the opt-in under the one it belongs to"
    elif there:
        reason = f"the {kind} it belongs to is empty"
    else:
        reason = f"there is no {kind} that it could belong to"
    return Withheld(Consent.of(opt_in, "", "opt_in"), reason)


def _unread_times(event: Event) -> list[str]:
    """Note opt-outs that count as given when they are read, although a time was given."""
    points = (*event.phones, *event.emails)
    opt_ins = [*event.unplaced, *(opt_in for point in points for opt_in in point.opt_ins)]
    lost = any("timestamp" in one.unreadable and not one.subscribed for one in opt_ins)
    return ["the time of an opt-out can't be read: it counts as given when the row was read"] if lost else []


def _info(address: ContactPoint, opt_ins: Sequence[OptIn], now: datetime) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if address.label is not None:
        info[names.LABEL] = address.label
    if address.is_primary is not None:
        info[names.IS_PRIMARY] = address.is_primary
    for opt_in in opt_ins:
        info[names.OPT_IN_KEYS[opt_in.channel]] = _opt_in(opt_in, now)
    return info


def _opt_in(opt_in: OptIn, now: datetime) -> dict[str, Any]:
    written: dict[str, Any] = {"subscribed": opt_in.subscribed}
    if opt_in.timestamp is not None and opt_in.timestamp <= now:  # otherwise Regal would apply it only from then on
        written["timestamp"] = write_time(opt_in.timestamp)
    for name in ("ip", "text", "source"):
        if (value := getattr(opt_in, name)) is not None:
            written[name] = value
    return written


def _what_happened(event: Event) -> dict[str, Any]:
    if isinstance(event, Track):
        properties, name = event.properties, event.event
    elif isinstance(event, Page):
        # The event's name is fixed: a page's title must not become an event name of its own.
        own = {"name": event.name, "category": event.category}
        properties = event.properties | {key: value for key, value in own.items() if value is not None}
        name = event.regal_name
    else:
        return {}
    return {names.NAME: name, names.PROPERTIES: properties} if properties else {names.NAME: name}


def _promotions(phones: Sequence[Phone], sent: dict[str, dict[str, Any]]) -> list[str]:
    """Rule 7: Regal contacts people on the primary phone only, and consent does not move with the flag."""
    notes = []
    for position, phone in enumerate(phones):
        if not phone.is_primary:
            continue
        elsewhere = {o.channel for other in phones if other is not phone for o in other.opt_ins if o.subscribed}
        own = {channel for channel, key in names.OPT_IN_KEYS.items() if _subscribes(sent[phone.number].get(key))}
        if missing := sorted(elsewhere - own):
            notes.append(lost_by_promotion(f"phones[{position}]", missing, "another phone of the contact"))
    return notes


def lost_by_promotion(phone: str, channels: Sequence[str], other: str) -> str:
    """Note that a phone becomes primary without the opt-ins of another one."""
    return (
        f"{phone} becomes primary without its own opt-in for {' and '.join(channels)}, which {other} has: Regal will "
        "stop reaching this person there"
    )


def _subscribes(opt_in: dict[str, Any] | None) -> bool:
    return opt_in is not None and opt_in["subscribed"]


def state_note(traits: dict[str, Any]) -> list[str]:
    """Return a note on what Regal won't do with a state that is not in the format it expects."""
    state = traits.get(names.ADDRESS, {}).get("state")
    if state and len(state) != 2:
        return ["traits.address.state is not a two-letter code: Regal's calling rules for the state will not apply"]
    return []
