"""Consent: what an opt-in is, and which of them may be sent.

The rules (numbers as in the docs, *Opt-ins and consent*):

1. No evidence, no opt-in: ``subscribed: true`` needs the time the person agreed and the person's IP address.
   Without them the opt-in is *withheld*, the rest of the event goes. Nothing is ever invented.
2. An opt-out is never held back for missing or unreadable evidence.
3. Unknown is left out; only a boolean (or its unmistakable spelling) says yes or no.
4. Per identifier and channel only the newest counts; at equal times the opt-out wins.
5. Promoting a phone to primary without its own opt-in is reported.
6. A time in the future, or older than ``max_consent_age``, withholds the opt-in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator

from airflow_provider_regal.events.names import OPT_IN_ALIASES, Channel
from airflow_provider_regal.events.options import ConsentPolicy, Reading
from airflow_provider_regal.events.python_values import Text, is_blank, read_truth, sendable
from airflow_provider_regal.events.times import read_time

# Dates such as 1970-01-01 or 0001-01-01 stand for "none" in tables; US consent law for calls is of 1991.
_FIRST_REAL_YEAR: Final = 1991
_EVIDENCE: Final = ("timestamp", "ip", "text", "source", *OPT_IN_ALIASES)


def read_ip(value: Any) -> str:
    """Read an IP address, version 4 or 6.

    :raises ValueError: not one.
    """
    if isinstance(value, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        text = str(value).strip()
        with suppress(ValueError):
            if "%" not in text:  # a zone (fe80::1%eth0) is a name inside one machine
                return str(ipaddress.ip_address(text))
    raise ValueError("not an IP address")


def _read_time(value: Any, info: ValidationInfo) -> datetime | None:
    return None if is_blank(value) else read_time(value, Reading.of(info).timezone)


def _read_latest(value: Any, info: ValidationInfo) -> datetime:
    """Read the time of an opt-out: of a day alone its end, so that no opt-in of that day wins over it."""
    return read_time(value, Reading.of(info).timezone, of_day=time.max)


Time = Annotated[datetime | None, BeforeValidator(_read_time)]
Truth = Annotated[bool, BeforeValidator(read_truth)]
Ip = Annotated[str | None, BeforeValidator(lambda value: None if value is None else read_ip(value))]


class OptIn(BaseModel):
    """What a person agreed to, or no longer agrees to, on one channel of one phone or email.

    :param channel: ``sms``, ``voice`` or ``email``.
    :param subscribed: True for an opt-in, False for an opt-out.
    :param timestamp: when the person decided; an opt-in without it is withheld. A day alone stands for its beginning,
        that of an opt-out for its end.
    :param ip: the person's address at that moment; an opt-in without it is withheld unless consent was given
        on paper or by phone (``require_ip=False``).
    :param text: the wording the person agreed to.
    :param source: where consent was collected (``signup_form``); Regal prefixes it with the brand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    channel: Channel
    subscribed: Truth
    timestamp: Time = None
    ip: Ip = None
    text: Text | None = None
    source: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _clear_what_says_nothing(cls, data: Any, info: ValidationInfo) -> Any:
        """Blank evidence is no evidence, and an opt-out goes even if its evidence cannot be read (rule 2)."""
        if not isinstance(data, Mapping):
            return data
        told = {key: value for key, value in data.items() if not (key in _EVIDENCE and is_blank(value))}
        for alias, name in OPT_IN_ALIASES.items():
            if alias in told:
                told.setdefault(name, told.pop(alias))
        if _is_opt_out(told.get("subscribed")):
            told = {key: value for key, value in told.items() if _is_readable(key, value, info)}
            if "timestamp" in told:
                told["timestamp"] = _read_latest(told["timestamp"], info)
        return told


@dataclass(frozen=True, slots=True)
class Withheld:
    """An opt-in that was not sent, and why.

    :param where: the phone or email of the event, by position (``phones[0]``), never by value.
    :param subscribed: False if it is an older opt-out that is left out, since a newer decision is on record.
    """

    where: str
    channel: Channel
    reason: str
    subscribed: bool = True

    def __str__(self) -> str:
        return f"{self.where} {self.channel}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Consent:
    """What an event says about one phone or email on one channel.

    :param at: when the person decided; None for an opt-out that does not say.
    :param where: the phone or email of the event, by position.
    """

    identifier: str = field(repr=False)
    channel: Channel
    subscribed: bool
    at: datetime | None
    where: str

    @classmethod
    def of(cls, opt_in: OptIn, identifier: str, where: str) -> Consent:
        """Say whose opt-in it is."""
        return cls(identifier, opt_in.channel, opt_in.subscribed, opt_in.timestamp, where)


def judge(
    opt_ins: Sequence[OptIn], *, where: str, policy: ConsentPolicy, now: datetime
) -> tuple[list[OptIn], list[Withheld]]:
    """Decide which opt-ins of one phone or email are sent: at most one a channel, each with its evidence.

    :param now: the current time, aware.
    :returns: those to send, and those withheld with the reason.
    """
    fit: list[OptIn] = []
    withheld: list[Withheld] = []
    for opt_in in opt_ins:
        if not opt_in.subscribed:
            fit.append(_with_possible_time(opt_in, now))
        elif reason := _why_withheld(opt_in, policy, now):
            withheld.append(Withheld(where, opt_in.channel, reason))
        else:
            fit.append(opt_in)
    return _newest_per_channel(fit, now), withheld


def _with_possible_time(opt_out: OptIn, now: datetime) -> OptIn:
    """Take an impossible time off an opt-out: it must neither hold it back nor let an older opt-in win.

    So one of today, without an hour, counts as given when it was read: its day has not ended yet.
    """
    if opt_out.timestamp and not _is_real(opt_out.timestamp, now):
        return opt_out.model_copy(update={"timestamp": None})
    return opt_out


def _is_real(moment: datetime, now: datetime) -> bool:
    return moment.year >= _FIRST_REAL_YEAR and moment <= now


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


def _why_withheld(opt_in: OptIn, policy: ConsentPolicy, now: datetime) -> str | None:
    if opt_in.timestamp is None:
        return "no timestamp: send the time the person agreed"
    if opt_in.timestamp.year < _FIRST_REAL_YEAR:
        return f"the timestamp lies before {_FIRST_REAL_YEAR}, which is no real time of consent"
    if opt_in.timestamp > now:
        return "the timestamp lies in the future"
    if policy.max_consent_age is not None and now - opt_in.timestamp > policy.max_consent_age:
        return f"given longer ago than max_consent_age ({policy.max_consent_age})"
    if policy.require_ip and opt_in.ip is None:
        return "no ip: send the person's address, or require_ip=False where consent was given on paper or by phone"
    return None


def _is_opt_out(value: Any) -> bool:
    try:
        return not read_truth(value)
    except ValueError:
        return False


def _is_readable(name: object, value: Any, info: ValidationInfo) -> bool:
    """Whether a member of an opt-out may stay; what is no evidence is left to pydantic."""
    try:
        if name == "timestamp":
            _read_latest(value, info)
        elif name == "ip":
            read_ip(value)
        elif name in _EVIDENCE:
            return isinstance(value, str) and bool(sendable(value))
    except ValueError:
        return False
    return True
