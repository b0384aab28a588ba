"""Consent: what an opt-in is, and which opt-ins may be sent.

The rules have the numbers of the docs (*Opt-ins and consent*). This module applies them within one event; the module
in parentheses applies them elsewhere.

1. No evidence, no opt-in: ``subscribed: true`` needs the time the person agreed and the person's IP address.
   If one is missing or can't be read, the opt-in is *withheld*, and the rest of the event is sent. Nothing is invented.
2. An opt-out is never held back, and read leniently: its channel, and a no in any usual spelling, are enough
   (``events.rows.opt_outs``: in an event that is otherwise invalid).
3. An opt-out that was read and that Regal lacks is owed: the next delivery of contacts sends it first (only
   ``ledger.owed`` and ``delivery.sending.owed``).
4. Unknown is left out. A decision that can't be read as yes or no is a fault, and blocks an older yes
   (``delivery.reading.row_index``: in other rows of the source).
5. Per identifier and channel only the newest counts; at equal times the opt-out wins
   (``delivery.reading.row_index``: in one source; ``ledger.rules``: across deliveries).
6. A time in the future, or older than ``max_consent_age``, withholds the opt-in.
7. Promoting a phone to primary without its own opt-in is reported (only ``events.payload`` and ``ledger.account``).
8. An event that represents an opt-in needs a phone, in the row or on record; an opt-out of the user id blocks it (only
   ``delivery.sync``).
9. With ``opt_out_scope="person"`` an opt-out closes all channels of its phone or email.
10. Opt-outs that only Regal knows are recorded, not sent, so that no sync reverses them (only ``delivery.sync``, with
    ``known_to_regal``).
11. Each decision that was sent or withheld leaves proof (only ``ledger.consent_log``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.names import EMAIL_CHANNELS, OPT_IN_ALIASES, PHONE_CHANNELS, Channel
from airflow_provider_regal.events.options import ConsentPolicy, Reading
from airflow_provider_regal.events.python_values import (
    Text,
    address_alone,
    is_blank,
    plain,
    read_decision,
    read_truth,
    sendable,
    trimmed,
)
from airflow_provider_regal.events.times import READABLE_TIMES, read_time

_WHAT_TO_SEND: Final = "send the person's address, or require_ip=False where consent was given on paper or by phone"
# Dates such as 1970-01-01 or 0001-01-01 mean "none" in tables; US consent law for calls dates from 1991.
_FIRST_REAL_YEAR: Final = 1991
_SOON: Final = timedelta(days=1)
_EVIDENCE: Final = ("timestamp", "ip", "text", "source", *OPT_IN_ALIASES)
# Addresses inside a private network do not identify a person.
_NOT_ROUTED: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "0.0.0.0/8", "fc00::/7")
)


def is_opt_out(opt_in: Any) -> bool:
    """Return whether a written opt-in is a no; see :func:`read_decision`."""
    try:
        return not read_decision(_decision_in(opt_in))
    except ValueError:
        return False


def is_unreadable(opt_in: Any) -> bool:
    """Return whether a written opt-in has a decision that can't be read as yes or no."""
    decision = _decision_in(opt_in)
    if is_blank(decision):
        return False
    try:
        read_decision(decision)
    except ValueError:
        return True
    return False


def _decision_in(opt_in: Any) -> Any:
    return opt_in.get("subscribed") if isinstance(opt_in, Mapping) else getattr(opt_in, "subscribed", None)


def read_channel(value: Any) -> Any:
    """Return the name of a channel in lower case without white space; return anything else unchanged."""
    return trimmed(value).lower() if isinstance(value, str) else value


def read_ip(value: Any) -> str:
    """Read an IPv4 or IPv6 address.

    :raises ValueError: not one.
    """
    if isinstance(value := plain(value), str):
        text = address_alone(trimmed(value))
        with suppress(ValueError):
            if "%" not in text:  # a zone (fe80::1%eth0) is only meaningful on one machine
                return str(ipaddress.ip_address(text))
    raise ValueError("not an IP address")


def _is_routed(ip: str) -> bool:
    """Return whether an address can be a person's: not unspecified, loopback, or from a private network."""
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    odd = address.is_unspecified or address.is_loopback or address.is_link_local or address.is_multicast
    return not odd and not any(address in network for network in _NOT_ROUTED)


def _read_time(value: Any, info: ValidationInfo) -> datetime | None:
    return None if is_blank(value) else read_time(value, Reading.of(info).timezone)


def _read_evidence(name: object, value: Any, info: ValidationInfo, *, latest: bool) -> Any:
    """Read a piece of evidence.

    :param latest: read an ambiguous time, or a date without time, as the later one, so that no opt-in of that day or
        hour wins over an opt-out.
    :raises ValueError: it can't be read.
    """
    if name == "timestamp":
        zone = Reading.of(info).timezone
        moment = read_time(value, zone, of_day=time.max if latest else time.min, latest=latest)
        return moment.replace(microsecond=0)  # the precision Regal stores, so that both sides see the same order
    if name == "ip":
        return read_ip(value)
    if not isinstance(value, str):
        raise ValueError("not a text")
    return sendable(value)


Time = Annotated[datetime | None, BeforeValidator(_read_time)]
Truth = Annotated[bool, BeforeValidator(read_truth)]
Decision = Annotated[bool, BeforeValidator(read_decision)]


class OptIn(BaseModel):
    """A person's decision on one channel of one phone or email: agreement, or its withdrawal.

    :param channel: ``sms``, ``voice`` or ``email``.
    :param subscribed: True for an opt-in, False for an opt-out, which may also be written as a status such as
        ``unsubscribed`` or ``STOP``.
    :param timestamp: when the person decided; an opt-in without it is withheld. A date without a time means its start
        for an opt-in, and its end for an opt-out.
    :param ip: the person's address at that moment; an opt-in without it is withheld unless consent was given on paper
        or by phone (``require_ip=False``).
    :param text: the wording the person agreed to.
    :param source: where consent was collected (``signup_form``); Regal prefixes it with the brand.
    :param unreadable: evidence that was given but can't be read. Such an opt-in is withheld.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    channel: Annotated[Channel, BeforeValidator(read_channel)]
    subscribed: Decision
    timestamp: datetime | None = None
    ip: str | None = None
    text: Text | None = None
    source: Text | None = None
    unreadable: tuple[str, ...] = Field(default=(), repr=False)

    @model_validator(mode="before")
    @classmethod
    def _read_what_can_be_read(cls, data: Any, info: ValidationInfo) -> Any:
        """Read the evidence; omit what is empty or unreadable, and the unknown fields of an opt-out."""
        if not isinstance(data, Mapping):
            return data
        told = {key: value for key, value in data.items() if not (key in _EVIDENCE and is_blank(value))}
        for alias, name in OPT_IN_ALIASES.items():
            if alias in told:
                told.setdefault(name, told.pop(alias))
        opts_out = is_opt_out(told)
        if opts_out:
            told = {key: value for key, value in told.items() if key in cls.model_fields}
        unreadable = list(told.get("unreadable", ()))
        for name in _EVIDENCE[:4]:
            if name in told:
                try:
                    told[name] = _read_evidence(name, plain(told[name]), info, latest=opts_out)
                except ValueError:
                    del told[name]
                    unreadable.append(name)
        if unreadable:
            told["unreadable"] = unreadable
        return told


@dataclass(frozen=True, slots=True)
class Consent:
    """An event's decision for one phone or email on one channel, with its evidence.

    :param identifier: the phone or email; empty if the event has none that it belongs to.
    :param at: when the person decided; None for an opt-out without a time.
    :param where: the place of the phone or email in the event, by position (``phones[0]``), never by value.
    """

    identifier: str = field(repr=False)
    channel: Channel
    subscribed: bool
    at: datetime | None
    where: str
    ip: str | None = field(default=None, repr=False, compare=False)
    text: str | None = field(default=None, repr=False, compare=False)
    source: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, opt_in: OptIn, identifier: str, where: str) -> Consent:
        """Return the opt-in with its phone or email."""
        return cls(
            identifier,
            opt_in.channel,
            opt_in.subscribed,
            opt_in.timestamp,
            where,
            opt_in.ip,
            opt_in.text,
            opt_in.source,
        )


@dataclass(frozen=True, slots=True)
class Withheld:
    """A decision that was not sent, and why: an opt-in, or an opt-out older than a decision on record.

    :param field: the piece of evidence at fault: ``timestamp``, ``ip``, ``text``, ``source``; empty if none is.
    """

    consent: Consent
    reason: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.consent.where} {self.consent.channel}: {self.reason}"


def judge(
    opt_ins: Sequence[OptIn], *, identifier: str = "", where: str, policy: ConsentPolicy, now: datetime
) -> tuple[list[OptIn], list[Withheld]]:
    """Decide which opt-ins of one phone or email are sent: at most one per channel, each with its evidence.

    :param identifier: that phone or email.
    :param where: its place in the event, by position.
    :param now: the current time, aware.
    :returns: those to send, and those withheld with the reason.
    """
    fit: list[OptIn] = []
    withheld: list[Withheld] = []
    if policy.opt_out_scope == "person":
        opt_ins = [*opt_ins, *_of_the_other_channels(opt_ins)]
    for opt_in in opt_ins:
        if not opt_in.subscribed:
            fit.append(_with_possible_time(opt_in, now))
        elif (fault := _why_withheld(opt_in, policy, now)) is not None:
            withheld.append(Withheld(Consent.of(opt_in, identifier, where), fault.reason, fault.field))
        else:
            fit.append(opt_in)
    return _newest_per_channel(fit, now), withheld


def channels_beside(channel: Channel) -> list[Channel]:
    """Return the other channels of a phone or an email."""
    kind = EMAIL_CHANNELS if channel in EMAIL_CHANNELS else PHONE_CHANNELS
    return [other for other in kind if other != channel]


def _of_the_other_channels(opt_ins: Iterable[OptIn]) -> Iterator[OptIn]:
    """Repeat each opt-out for the other channels, unless they have a newer opt-in."""
    for opt_in in opt_ins:
        if not opt_in.subscribed:
            for channel in channels_beside(opt_in.channel):
                yield opt_in.model_copy(update={"channel": channel})


def _with_possible_time(opt_out: OptIn, now: datetime) -> OptIn:
    """Remove an impossible time from an opt-out, so that it neither delays the opt-out nor lets an older opt-in win.

    A time in the next few hours is kept: it may come from another time zone or clock, or from a day that has not ended.
    No opt-in wins until then.
    """
    at = opt_out.timestamp
    if at is not None and (at.year < _FIRST_REAL_YEAR or at > now + _SOON):
        return opt_out.model_copy(update={"timestamp": None})
    return opt_out


def _newest_per_channel(opt_ins: Iterable[OptIn], now: datetime) -> list[OptIn]:
    newest: dict[Channel, OptIn] = {}
    for opt_in in opt_ins:
        held = newest.get(opt_in.channel)
        if held is None or _rank(opt_in, now) > _rank(held, now):
            newest[opt_in.channel] = opt_in
    return list(newest.values())


def _rank(opt_in: OptIn, now: datetime) -> tuple[datetime, bool]:
    # An opt-out without a time counts as given when it was read.
    return opt_in.timestamp or now, not opt_in.subscribed


def _why_withheld(opt_in: OptIn, policy: ConsentPolicy, now: datetime) -> Fault | None:
    if opt_in.unreadable:
        name = opt_in.unreadable[0]
        format_ = f"; write {READABLE_TIMES}" if name == "timestamp" else ""
        return Fault(name, f"the {name} can't be read, so it is not evidence{format_}")
    if (reason := _what_is_wrong_with_the_time(opt_in.timestamp, policy, now)) is not None:
        return Fault("timestamp", reason)
    if policy.require_ip and opt_in.ip is None:
        return Fault("ip", f"no ip: {_WHAT_TO_SEND}")
    if policy.require_ip and opt_in.ip is not None and not _is_routed(opt_in.ip):
        return Fault("ip", f"the ip is not one of the internet: {_WHAT_TO_SEND}")
    return None


def _what_is_wrong_with_the_time(given: datetime | None, policy: ConsentPolicy, now: datetime) -> str | None:
    if given is None:
        return "no timestamp: send the time the person agreed"
    if given.year < _FIRST_REAL_YEAR:
        return f"the timestamp lies before {_FIRST_REAL_YEAR}, which is not a plausible time of consent"
    if given > now:
        return "the timestamp lies in the future"
    if policy.max_consent_age is not None and now - given > policy.max_consent_age:
        return f"given longer ago than max_consent_age ({policy.max_consent_age})"
    return None
