"""Rows of a table of consents: who said yes or no, on which channel, when, and with what evidence.

=================================  =================================================================
columns                            a row is
=================================  =================================================================
channel, subscribed, timestamp,    one consent (long form)
ip, text, source
sms_opt_in, sms_opt_in_at, ...     one consent a channel that says yes or no (wide form)
user_id, phone, email              whose: sms and voice belong to the phone, email to the email
=================================  =================================================================

Each consent is read alone, so that a fault of one holds no other back; of a row that is wrong elsewhere an opt-out is
taken all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from airflow_provider_regal.delivery.sync.columns import EVIDENCE, PERSON, WIDE, WIDE_FORM, check_columns
from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import Consent, ConsentPolicy, Identify, OptIn, Reading, to_payload
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.identifiers import read_email, read_phone, read_user_id
from airflow_provider_regal.events.names import EMAIL_CHANNELS
from airflow_provider_regal.events.python_values import is_blank, is_nothing, read_truth


@dataclass(frozen=True, slots=True)
class Said:
    """One consent, fit to be sent.

    :param identifier: phone or email; ``user:<id>`` where an event stands for the opt-in and its row has no phone.
    :param at: None for an opt-out that does not say.
    """

    identifier: str = field(repr=False)
    channel: str
    subscribed: bool
    at: datetime | None
    user_id: str | None = field(repr=False)
    ip: str | None = field(repr=False)
    text: str | None = field(repr=False)
    source: str | None


@dataclass(frozen=True, slots=True)
class Unfit:
    """One consent that can never be sent.

    :param about: identifier and channel, as far as they can be read.
    :param barrier: an opt-out that says whose it is, but not of which phone: no older opt-in may follow it, either.
    """

    faults: tuple[Fault, ...]
    about: tuple[str, str] | None = field(default=None, repr=False)
    barrier: Said | None = None


class ConsentRows:
    """Reads consents.

    :param columns: column -> a name of the long or the wide form, or None to leave it out.
    :param phone_needed: whether an opt-in without a phone is wrong; it is not where an event stands for it.
    """

    def __init__(
        self,
        columns: Mapping[str, str | None] | None,
        *,
        lower_upper: bool,
        reading: Reading,
        policy: ConsentPolicy,
        phone_needed: bool,
    ) -> None:
        check_columns(columns or {})
        self._columns = columns or {}
        self._lower_upper = lower_upper
        self._reading = reading
        self._policy = policy
        self._phone_needed = phone_needed

    def read(self, row: Mapping[str, Any], now: datetime) -> list[Said | Unfit]:
        """Read what a row says; an empty list if it says nothing.

        :param now: the current time (aware).
        """
        named, columns, faults = self._named(row)
        if faults:
            return [Unfit(tuple(faults))]
        person = {name: named[name] for name in PERSON if not is_blank(named.get(name))}
        wide = _wide(named)
        if not wide and "channel" not in named:
            reason = "is missing: a row needs channel and subscribed, or a column such as sms_opt_in"
            return [Unfit((Fault("channel", reason),))]
        told = wide or [{name: named[name] for name in ("channel", "subscribed", *EVIDENCE) if name in named}]
        # A wide column with a default says no to everybody; without an address there is nothing to withdraw.
        told = [o for o in told if not _says_nothing(o) and not (wide and _is_opt_out(o) and not _mine(person, o))]
        return [self._one(person, opt_in, columns, now) for opt_in in told]

    def _named(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[Fault]]:
        """Return the row by our names, and the column each name came from."""
        texts = [column for column in row if isinstance(column, str)]
        upper = self._lower_upper and all(column == column.upper() for column in texts)
        named, columns, faults = dict[str, Any](), dict[str, str](), list[Fault]()
        for column in texts:
            name = column.lower() if upper else column
            target = self._columns.get(name, self._columns.get(column, name))
            if target is None:
                continue
            if target in named:
                faults.append(Fault(path_of((column,)), f"goes to {target}, as the column {columns[target]} does"))
            named[target], columns[target] = row[column], column
        missing = [column for column in self._columns if column not in row and column.upper() not in row]
        faults += [Fault(path_of((column,)), "mapping names it, but the row has no such column") for column in missing]
        return named, columns, faults

    def _one(
        self, person: Mapping[str, Any], opt_in: Mapping[str, Any], columns: Mapping[str, str], now: datetime
    ) -> Said | Unfit:
        written = _written(person, opt_in)
        try:
            return self._fit(written, opt_in, now)
        except InvalidEventError as error:
            faults = error.faults
        if _is_opt_out(opt_in):  # never held back: only the channel and the identifier are needed
            bare = {key: value for key, value in written.items() if key != "user_id"}
            try:
                return self._fit(bare, opt_in, now)
            except InvalidEventError:
                pass
        told = (Fault(_in_words_of_the_table(fault.field, opt_in, columns), fault.reason) for fault in faults)
        return Unfit(tuple(told), self._about(person, opt_in), self._barrier(written, opt_in, now))

    def _barrier(self, written: Mapping[str, Any], opt_in: Mapping[str, Any], now: datetime) -> Said | None:
        of_a_phone = opt_in.get("channel") not in EMAIL_CHANNELS and "phone" not in written
        if self._phone_needed or not of_a_phone or not _is_opt_out(opt_in):
            return None
        try:
            return self._without_phone(written, now)
        except InvalidEventError:
            return None

    def _about(self, person: Mapping[str, Any], opt_in: Mapping[str, Any]) -> tuple[str, str] | None:
        channel = opt_in.get("channel")
        try:
            if channel in EMAIL_CHANNELS:
                return read_email(person["email"]), channel
            if self._phone_needed or "phone" in person:
                return read_phone(person["phone"]), str(channel)
            return user_key(read_user_id(person["user_id"])), str(channel)
        except (KeyError, TypeError, ValueError):
            return None

    def _fit(self, written: Mapping[str, Any], opt_in: Mapping[str, Any], now: datetime) -> Said:
        if not self._phone_needed and not _is_opt_out(opt_in):
            if opt_in.get("channel") in EMAIL_CHANNELS:
                raise InvalidEventError("track", [Fault("opt_in[0].channel", "as_event stands for sms and voice only")])
            if "phone" not in written:
                return self._without_phone(written, now)
        payload = to_payload(event := Identify.read(written, self._reading), now=now, policy=self._policy)
        if not payload.consents:
            reason = payload.withheld[0].reason
            missing = "ip" if reason.startswith("no ip") else "timestamp"
            raise InvalidEventError("identify", [Fault(f"opt_in[0].{missing}", reason)])
        (consent,) = payload.consents
        point = (event.phones or event.emails)[0]
        return _said(consent, point.opt_ins[0], event.user_id)

    def _without_phone(self, written: Mapping[str, Any], now: datetime) -> Said:
        """Read what somebody says whose phone Regal may have already; it is judged as if it were here."""
        if is_blank(written.get("user_id")):
            raise InvalidEventError("track", [Fault("user_id, phone", "one is needed: who opted in?")])
        someone = {**written, "phone": _SOMEONE}
        said = self._fit(someone, written["opt_in"][0], now)
        return Said(
            user_key(read_user_id(written["user_id"])),
            said.channel,
            said.subscribed,
            said.at,
            said.user_id,
            said.ip,
            said.text,
            said.source,
        )


def user_key(user_id: str) -> str:
    """Return the identifier of somebody whose phone is not said."""
    return f"user:{user_id}"


# A number that belongs to no one; it is only read, never sent.
_SOMEONE: Final = "+12125550100"


def _said(consent: Consent, opt_in: OptIn, user_id: str | None) -> Said:
    return Said(
        consent.identifier,
        consent.channel,
        consent.subscribed,
        consent.at,
        user_id,
        opt_in.ip,
        opt_in.text,
        opt_in.source,
    )


def _wide(named: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        if (place := WIDE_FORM.get(name)) is not None:
            channel, what = place
            found.setdefault(channel, {"channel": channel})[what] = value
    return [opt_in for opt_in in found.values() if "subscribed" in opt_in]


def _written(person: Mapping[str, Any], opt_in: Mapping[str, Any]) -> dict[str, Any]:
    """Write the event that says this alone: an identifier it does not need would be added to the contact."""
    user_id = {"user_id": person["user_id"]} if "user_id" in person else {}
    return {**user_id, **_mine(person, opt_in), "opt_in": [dict(opt_in)]}


def _mine(person: Mapping[str, Any], opt_in: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the consent belongs to."""
    name = "email" if opt_in.get("channel") in EMAIL_CHANNELS else "phone"
    return {name: person[name]} if name in person else {}


def _says_nothing(opt_in: Mapping[str, Any]) -> bool:
    return is_blank(opt_in.get("subscribed")) and ("subscribed" in opt_in or is_nothing(opt_in.get("channel")))


def _is_opt_out(opt_in: Mapping[str, Any]) -> bool:
    try:
        return not read_truth(opt_in.get("subscribed"))
    except ValueError:
        return False


def _in_words_of_the_table(place: str, opt_in: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    name = place.removeprefix("opt_in[0]").removeprefix(".") or "subscribed"
    channel = opt_in.get("channel")
    suffix = next((suffix for suffix, what in WIDE.items() if what == name), None)
    for candidate in (f"{channel}_opt_in{suffix}", name) if suffix is not None else (name,):
        if candidate in columns:
            return path_of((columns[candidate],))
    return name
