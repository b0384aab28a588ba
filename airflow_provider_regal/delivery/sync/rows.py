"""Read the rows of a consent table: who decided yes or no, on which channel, when, and with what evidence.

=================================  =================================================================
columns                            a row is
=================================  =================================================================
channel, subscribed, timestamp,    one consent (long form)
ip, text, source
sms_opt_in, sms_opt_in_at, ...     one consent for each channel with a yes or no (wide form)
user_id, phone, email              whose: sms and voice belong to the phone, email to the email
=================================  =================================================================

Each consent is read separately, so a fault in one does not hold back another. An opt-out in an otherwise invalid row is
still used. If a row in both forms has a yes and a no for the same channel, the no counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from airflow_provider_regal.delivery.reading.prepare import people_in
from airflow_provider_regal.delivery.sync.columns import DETAILS, PERSON, check_columns
from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events import Consent, ConsentPolicy, Identify, OptIn, Phone, Reading, to_payload
from airflow_provider_regal.events.consent import channels_beside, is_opt_out, is_unreadable, read_channel
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.identifiers import read_email, read_phone, read_user_id
from airflow_provider_regal.events.names import EMAIL_CHANNELS, PHONE_CHANNELS, Channel
from airflow_provider_regal.events.options import EVIDENCE, WIDE_FORM, Target, targets_of
from airflow_provider_regal.events.python_values import is_blank, is_missing, is_nothing
from airflow_provider_regal.events.rows.mapping import in_our_words, with_values
from airflow_provider_regal.events.rows.opt_outs import opt_outs_of, unreadable_decisions


@dataclass(frozen=True, slots=True)
class Said:
    """One consent that can be sent.

    :param identifier: phone or email; ``user:<id>`` if an event represents the opt-in and its row has no phone.
    :param at: None for an opt-out without a time.
    """

    identifier: str = field(repr=False)
    channel: str
    subscribed: bool
    at: datetime | None
    user_id: str | None = field(repr=False)
    ip: str | None = field(repr=False)
    text: str | None = field(repr=False)
    source: str | None


class _NoEvidenceError(InvalidEventError):
    """An opt-in is withheld, and there is nothing else to send."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """One consent that can never be sent.

    :param no_evidence: an opt-in whose evidence is missing, unreadable or not acceptable.
    :param about: identifier and channel, as far as they can be read.
    :param barrier: an opt-out with a user id but no phone; it still blocks older opt-ins of that user id.
    :param loses_a_decision: it is a no, or can't be read as yes or no.
    :param unreadable_at: the time of a decision that can't be read.
    """

    faults: tuple[Fault, ...]
    about: tuple[str, str] | None = field(default=None, repr=False)
    barrier: Said | None = None
    loses_a_decision: bool = False
    unreadable_at: datetime | None = None
    no_evidence: bool = False


class ConsentRows:
    """Reads consents.

    :param columns: column -> a name of the long or the wide form, a list of such names, or None to ignore it.
    :param values: text of a decision -> whether it is a yes.
    :param phone_needed: whether an opt-in without a phone is invalid; False if an event represents the opt-in.
    :param phones_of: finds the phones on record for a user id, for an opt-out without a phone.
    """

    def __init__(
        self,
        columns: Mapping[str, Target] | None,
        *,
        lower_upper: bool,
        reading: Reading,
        policy: ConsentPolicy,
        values: Mapping[str, bool | None] | None = None,
        phone_needed: bool,
        phones_of: Callable[[str], Sequence[str]] = lambda user_id: (),
    ) -> None:
        check_columns(columns or {})
        self._columns = columns or {}
        self._lower_upper = lower_upper
        self._values = values
        self._reading = reading
        self._policy = replace(policy, opt_out_scope="channel")  # one consent each; see _closing_all_channels
        self._of_a_person = policy.opt_out_scope == "person"
        self._phone_needed = phone_needed
        self._phones_of = phones_of

    def read(self, row: Mapping[str, Any], now: datetime) -> list[Said | Unfit]:
        """Read the decisions of a row; an empty list if there are none.

        :param now: the current time (aware).
        """
        named, columns, faults = self._named(row)
        if faults:
            return [Unfit(tuple(faults), loses_a_decision=_decides(named))]
        person = {name: named[name] for name in PERSON if not is_missing(named.get(name))}
        wide = _wide(named)
        if not wide and "channel" not in named:
            reason = "is missing: a row needs channel and subscribed, or a column such as sms_opt_in"
            return [Unfit((Fault("channel", reason),), loses_a_decision=_decides(named))]
        long = [{name: named[name] for name in ("channel", "subscribed", *DETAILS) if name in named}]
        told = _without_contradictions([*wide, *(long if "channel" in named else ())])
        read: list[Said | Unfit] = []
        for opt_in in told:
            if _says_nothing(opt_in):
                continue
            if is_opt_out(opt_in) and not _mine(person, opt_in) and (phones := self._known_phones(person, opt_in)):
                read += [self._one({**person, "phone": phone}, opt_in, named, columns, now) for phone in phones]
            # A wide column with a default says no for everyone; without that address there is nothing to withdraw. But
            # a no without any address belongs to a person it would miss.
            elif not (opt_in in wide and is_opt_out(opt_in) and not _mine(person, opt_in) and _has_address(person)):
                read.append(self._one(person, opt_in, named, columns, now))
        return _closing_all_channels(read) if self._of_a_person else read

    def people_in(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return all identifiers of a row's person, as far as they can be read: by the names of the mapping."""
        named, _, _ = self._named(row)
        return people_in({name: named.get(name) for name in PERSON})[1]

    def _known_phones(self, person: Mapping[str, Any], opt_in: Mapping[str, Any]) -> Sequence[str]:
        if opt_in["channel"] not in PHONE_CHANNELS or "user_id" not in person:
            return ()
        try:
            return self._phones_of(read_user_id(person["user_id"]))
        except ValueError:
            return ()

    def _named(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[Fault]]:
        """Return the row by our names, and the source column of each name."""
        texts = [column for column in row if isinstance(column, str)]
        upper = self._lower_upper and all(column == column.upper() for column in texts)
        named, columns, faults = dict[str, Any](), dict[str, str](), list[Fault]()
        for column in texts:
            name = column.lower() if upper else column
            for target in targets_of(self._columns.get(name, self._columns.get(column, name))):
                if target in named:
                    faults.append(Fault(path_of((column,)), f"goes to {target}, as the column {columns[target]} does"))
                    if target in _DECISIONS and _decides(named):
                        continue
                named[target] = in_our_words(row[column], self._values) if target in _DECISIONS else row[column]
                columns[target] = column
        return named, columns, faults

    def _one(
        self,
        person: Mapping[str, Any],
        opt_in: Mapping[str, Any],
        named: Mapping[str, Any],
        columns: Mapping[str, str],
        now: datetime,
    ) -> Said | Unfit:
        written = _written(person, opt_in)
        try:
            return self._fit(written, opt_in, now)
        except InvalidEventError as error:
            faults, no_evidence = error.faults, isinstance(error, _NoEvidenceError)
        if (outs := opt_outs_of(written, self._reading)) is not None:  # never held back
            for one in (*outs.phones, *outs.emails):  # there is at most one
                mine = {"phone": one.number} if isinstance(one, Phone) else {"email": getattr(one, "address", None)}
                return self._fit({**mine, "opt_in": written["opt_in"]}, opt_in, now)
        if is_opt_out(opt_in) and not _mine(person, opt_in):
            faults = (Fault("opt_in[0]", _OF_NO_ONE.format(*_what_it_needs(opt_in))),)
        faults = tuple(_with_column_of_the_time(fault, opt_in, named) for fault in faults)
        told = (Fault(_in_words_of_the_table(fault.field, opt_in, columns), with_values(fault)) for fault in faults)
        unreadable = is_unreadable(opt_in)
        return Unfit(
            tuple(told),
            self._about(person, opt_in),
            self._barrier(written, opt_in, now),
            loses_a_decision=unreadable or is_opt_out(opt_in),
            unreadable_at=self._decided_at(written, now) if unreadable else None,
            no_evidence=no_evidence,
        )

    def _decided_at(self, written: Mapping[str, Any], now: datetime) -> datetime:
        return next((one.at for one in unreadable_decisions(written, self._reading) if one.at is not None), now)

    def _barrier(self, written: Mapping[str, Any], opt_in: Mapping[str, Any], now: datetime) -> Said | None:
        of_a_phone = opt_in.get("channel") not in EMAIL_CHANNELS and "phone" not in written
        if self._phone_needed or not of_a_phone or not is_opt_out(opt_in):
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
        if not self._phone_needed and not is_opt_out(opt_in):
            if opt_in.get("channel") in EMAIL_CHANNELS:
                raise InvalidEventError("track", [Fault("opt_in[0].channel", "as_event stands for sms and voice only")])
            if "phone" not in written:
                return self._without_phone(written, now)
        payload = to_payload(event := Identify.read(written, self._reading), now=now, policy=self._policy)
        if payload.withheld:
            one = payload.withheld[0]
            raise _NoEvidenceError("identify", [Fault(f"opt_in[0].{one.field}".rstrip("."), one.reason)])
        if not payload.consents:  # from a contact without a phone on record
            raise InvalidEventError("identify", [Fault("opt_in[0]", _OF_NO_ONE.format(*_what_it_needs(opt_in)))])
        (consent,) = payload.consents
        point = (event.phones or event.emails)[0]
        return _said(consent, point.opt_ins[0], event.user_id)

    def _without_phone(self, written: Mapping[str, Any], now: datetime) -> Said:
        """Read the decisions of a person whose phone Regal may already have, as if the phone were in the row."""
        if is_missing(written.get("user_id")):
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
    """Return the identifier of a person without a phone."""
    return f"user:{user_id}"


_DECISIONS: Final = frozenset({"subscribed", *(name for name, (_, what) in WIDE_FORM.items() if what == "subscribed")})
_OF_NO_ONE: Final = "is an opt-out of no {}{}; name it, or leave the decision empty"
_NOW: Final = datetime.max.replace(tzinfo=UTC)
# A fictional number; it is only read, never sent.
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


def _closing_all_channels(read: list[Said | Unfit]) -> list[Said | Unfit]:
    """Repeat each opt-out for the other channels of its phone or email, unless the row has a newer decision there."""
    said = {(one.identifier, one.channel): one for one in read if isinstance(one, Said)}
    for out in [one for one in said.values() if not one.subscribed]:
        for channel in channels_beside(cast("Channel", out.channel)):
            other = said.get((out.identifier, channel))
            if other is None or _rank(other) < _rank(out):
                said[out.identifier, channel] = replace(out, channel=channel)
    return [*said.values(), *(one for one in read if isinstance(one, Unfit))]


def _rank(said: Said) -> tuple[datetime, bool]:
    # An opt-out without a time counts as given when it was read.
    return said.at or _NOW, not said.subscribed


def _without_contradictions(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge contradicting decisions of a row for one channel: a no wins."""
    for one in told:
        one["channel"] = read_channel(one.get("channel"))
    denied = {one["channel"]: one for one in told if is_opt_out(one) and isinstance(one["channel"], str)}
    kept = []
    for one in told:
        no = denied.get(one["channel"]) if isinstance(one["channel"], str) else None
        if no is None or no is one:
            kept.append(one)
        elif not _says_nothing(one):  # it counts as given when it was read, so no yes of this row is newer
            no.pop("timestamp", None)
    return kept


def _written(person: Mapping[str, Any], opt_in: Mapping[str, Any]) -> dict[str, Any]:
    """Write an event with this consent alone: unneeded identifiers would be added to the contact."""
    user_id = {"user_id": person["user_id"]} if "user_id" in person else {}
    return {**user_id, **_mine(person, opt_in), "opt_in": [dict(opt_in)]}


def _mine(person: Mapping[str, Any], opt_in: Mapping[str, Any]) -> dict[str, Any]:
    """Return the phone or email that the consent belongs to."""
    name = "email" if opt_in.get("channel") in EMAIL_CHANNELS else "phone"
    return {name: person[name]} if name in person else {}


def _has_address(person: Mapping[str, Any]) -> bool:
    return "phone" in person or "email" in person


def _what_it_needs(opt_in: Mapping[str, Any]) -> tuple[str, str]:
    if opt_in.get("channel") in EMAIL_CHANNELS:
        return "email", ""
    return "phone", ", and none is on record of this user id"


def _decides(named: Mapping[str, Any]) -> bool:
    """Return whether an unreadable row has a no, or a decision that can't be read."""
    told = [{"subscribed": named[name]} for name in _DECISIONS if name in named]
    return any(is_opt_out(one) or is_unreadable(one) for one in told)


def _says_nothing(opt_in: Mapping[str, Any]) -> bool:
    return is_blank(opt_in.get("subscribed")) and ("subscribed" in opt_in or is_nothing(opt_in.get("channel")))


def _with_column_of_the_time(fault: Fault, opt_in: Mapping[str, Any], named: Mapping[str, Any]) -> Fault:
    """Name the column to write to, where a wide row has a time that is not that of an opt-in.

    It is never taken for it: in most tables ``timestamp`` is when the row changed, and consent is not invented.
    """
    is_wide = f"{opt_in.get('channel')}_opt_in" in named and "channel" not in named
    lacks_its_time = fault.field == "opt_in[0].timestamp" and is_blank(opt_in.get("timestamp"))
    if not (is_wide and lacks_its_time) or is_blank(named.get("timestamp")):
        return fault
    name = f"{opt_in['channel']}_opt_in"
    where = f"timestamp is not read as the time of {name}: map the column with the time to {name}_at"
    return Fault(fault.field, f"{fault.reason} ({where})")


def _in_words_of_the_table(place: str, opt_in: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    name = place.removeprefix("opt_in").removeprefix("[0]").removeprefix(".") or "subscribed"
    channel = opt_in.get("channel")
    suffix = next((suffix for suffix, what in EVIDENCE.items() if what == name), None)
    if suffix is not None and f"{channel}_opt_in" in columns and "channel" not in columns:  # the wide form
        name = f"{channel}_opt_in{suffix}"
    for candidate in (f"{channel}_opt_in{suffix}", name) if suffix is not None else (name,):
        if candidate in columns:
            return path_of((columns[candidate],))
    return name
