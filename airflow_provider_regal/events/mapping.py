"""A row of a table as an event: the column names are the mapping, so SQL does the mapping.

============================================  =======================================================
column                                        becomes
============================================  =======================================================
user_id, phone, email, timestamp, sub_brand   the field of that name
event                                         the name of a track event, if the delivery names none
opt_in                                        a list of opt-ins (JSON)
sms_opt_in, voice_opt_in, email_opt_in        an opt-in; evidence in ``..._at, _ip, _text, _source``
first_name, last_name, address_*              Regal's standard traits
message_id                                    nothing at Regal: a repeated one is sent once
any other                                     a trait (identify) or a property (track, page, screen)
============================================  =======================================================

``mapping={"column": "traits.plan" | "properties.amount" | "phones.work" | None}`` overrides. A column that ``mapping``
or ``types`` names must be in the row: a slip of the pen would else send it under another name, or at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events.coercion import COERCIONS, coerce
from airflow_provider_regal.events.consent import Withheld, read_truth
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.models import Event, Identify, Page, Screen, Track
from airflow_provider_regal.events.plain import is_blank, is_nothing
from airflow_provider_regal.events.values import Reading

CALLS: Final[dict[str, type[Event]]] = {"identify": Identify, "track": Track, "page": Page, "screen": Screen}

_FIELDS: Final = ("user_id", "phone", "email", "timestamp", "sub_brand", "opt_in", "message_id")
_OWN_FIELDS: Final = {"track": ("event",), "page": ("name", "category"), "screen": ("name", "category")}
_EVIDENCE: Final = {"_at": "timestamp", "_ip": "ip", "_text": "text", "_source": "source", "": "subscribed"}
_STANDARD: Final = {"first_name": ("traits", "firstName"), "last_name": ("traits", "lastName")}
_ADDRESS: Final = {"postal_code": "zipcode", "zip": "zipcode", "zip_code": "zipcode"}
_MANY: Final = ("phones", "emails")
# Rows that are no table may each have columns of their own.
_MOST_PLANS: Final = 1_000

Path = tuple[str, ...]
_CONSENT_FIELDS: Final = ("consent", "opt_in")
_CONSENT_TRAITS: Final = tuple(("traits", name) for name in ("optIn", "opt_in", *_MANY))


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become events.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param event: the name of the track events; None if a column ``event`` holds it.
    :param columns: column -> ``"traits.x"``, ``"properties.x"``, ``"phones.label"``, ``"emails.label"``, a field's
        name, or None to leave the column out.
    :param types: column -> ``str``, ``int``, ``float``, ``bool``, ``date`` or ``datetime``: coerce, or refuse the row.
    :param lower_upper: lower-case the names where all of them are upper case (Snowflake).
    """

    call: str
    event: str | None = None
    columns: Mapping[str, str | None] | None = None
    types: Mapping[str, type] | None = None
    lower_upper: bool = True

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ValueError(f"call must be one of {', '.join(CALLS)}, not {self.call!r}")
        if self.event is not None and self.call != "track":
            raise ValueError(f"event names track events; a {self.call} has none")
        for column, target in (self.columns or {}).items():
            if target is not None:
                _check_target(column, target, self.call)
        for column, kind in (self.types or {}).items():
            if kind not in COERCIONS:
                raise ValueError(f"types[{column!r}] must be one of str, int, float, bool, date, datetime")


@dataclass(slots=True)
class Plan:
    """What to do with rows of one set of columns.

    :param steps: column, its place in the event, and the type it is read as (None: as it is).
    :param faults: why no such row can be mapped.
    :param columns: place, as a fault of the event names it -> column, where the place does not hold its name.
    """

    steps: list[tuple[str, Path, type | None]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def may_carry_consent(self) -> bool:
        """Whether an opt-in could stand in one of the columns."""
        return any(path[0] in _CONSENT_FIELDS or path[:2] in _CONSENT_TRAITS for _, path, _ in self.steps)

    def column_of(self, name: str) -> str | None:
        """Find the column that becomes a field."""
        return next((column for column, path, _ in self.steps if path == (name,)), None)


class RowMapper:
    """Maps rows; the plan of each set of columns is made once."""

    def __init__(self, how: RowMapping, reading: Reading) -> None:
        self._how = how
        self._reading = reading
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def event(self, row: Mapping[str, Any]) -> tuple[Event, tuple[Withheld, ...]]:
        """Map one row and validate it.

        :returns: the event, and the opt-ins of the row that belong to no phone or email of it.
        :raises InvalidEventError: every fault of the row; columns by their own names.
        """
        plan = self.plan(tuple(row))
        if plan.faults:
            raise InvalidEventError(self._how.call, plan.faults)
        written, withheld, columns, faults = self._written(row, plan)
        try:
            event = CALLS[self._how.call].read(written, self._reading)
        except InvalidEventError as error:
            faults += [Fault(_in_words_of_the_table(fault.field, columns), fault.reason) for fault in error.faults]
        if faults:
            raise InvalidEventError(self._how.call, faults)
        return event, withheld

    def written(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Map one row without validating it; empty where the columns cannot be mapped."""
        plan = self.plan(tuple(row))
        return {} if plan.faults else self._written(row, plan)[0]

    def _written(
        self, row: Mapping[str, Any], plan: Plan
    ) -> tuple[dict[str, Any], tuple[Withheld, ...], dict[str, str], list[Fault]]:
        written: dict[str, Any] = {}
        faults: list[Fault] = []
        columns = dict(plan.columns)
        for column, path, kind in plan.steps:
            try:
                value = row[column] if kind is None else coerce(row[column], kind, self._reading.timezone)
            except ValueError as error:
                faults.append(Fault(path_of((column,)), str(error)))
                continue
            _put(written, path, value, column, columns)
        if self._how.event is not None:
            written["event"] = self._how.event
        return written, _gather(written, columns), columns, faults

    def plan(self, columns: tuple[Any, ...]) -> Plan:
        """Say what is done with rows of these columns."""
        plan = self._plans.get(columns)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[columns] = plan_of(columns, self._how)
        return plan


def plan_of(columns: Sequence[Any], how: RowMapping) -> Plan:
    """Decide where each column goes.

    Faults: two columns go to the same place, one that ``mapping`` or ``types`` names is not there, a name is no text.
    """
    plan = Plan()
    if not all(isinstance(name, str) for name in columns):
        plan.faults.append(Fault("the row", "the name of a column is not text"))
        return plan
    all_upper = how.lower_upper and all(name.upper() == name for name in columns)
    names = {column: column.lower() if all_upper else column for column in columns}
    there = {*columns, *names.values()}
    for option, given in (("mapping", how.columns or {}), ("types", how.types or {})):
        plan.faults += [
            Fault(path_of((column,)), f"{option} names it, but the row has no such column")
            for column in given
            if column not in there
        ]
    taken: dict[Path, str] = {}
    for column, name in names.items():
        path = _path(_option(how.columns, name, column, _DEFAULT), name, how)
        if path is None:
            continue
        if clash := next((other for other in taken if path[: len(other)] == other[: len(path)]), None):
            reason = f"goes to {path_of(path)}, as the column {path_of((taken[clash],))} does; map one elsewhere"
            plan.faults.append(Fault(path_of((column,)), reason))
        taken[path] = column
        plan.steps.append((column, path, _option(how.types, name, column, None)))
        if path[0] not in ("consent", *_MANY) and path[-1] not in (column, name):
            plan.columns[path_of(path)] = column
    return plan


_DEFAULT: Final = "\0default"


def _option(options: Mapping[str, Any] | None, name: str, column: str, default: Any) -> Any:
    """Find what an option says of a column, by its name in lower case or as the source writes it."""
    return options.get(name, options.get(column, default)) if options else default


def _path(target: str | None, name: str, how: RowMapping) -> Path | None:
    if target is None:
        return None
    if target != _DEFAULT:
        kind, _, rest = target.partition(".")
        return (kind, rest) if kind in _MANY else tuple(target.split("."))
    if name in _FIELDS:
        return (name,)
    if name == "event" and how.call == "track":
        return None if how.event is not None else (name,)
    for channel in ("sms", "voice", "email"):
        for suffix, evidence in _EVIDENCE.items():
            if name == f"{channel}_opt_in{suffix}":
                return ("consent", channel, evidence)
    if name in _STANDARD:
        return _STANDARD[name]
    if (part := name.removeprefix("address_")) not in ("", name):
        return ("traits", "address", _ADDRESS.get(part, part))
    return ("traits" if how.call == "identify" else "properties", name)


def _check_target(column: str, target: str, call: str) -> None:
    kind, _, rest = target.partition(".")
    allowed = (*_FIELDS, *_OWN_FIELDS.get(call, ()))
    if target in allowed or (kind in _MANY and rest) or (kind in ("traits", "properties") and all(rest.split("."))):
        if kind == "properties" and call == "identify":
            raise ValueError(f"mapping[{column!r}]: an identify has no properties; use 'traits.{rest}'")
        return
    raise ValueError(
        f"mapping[{column!r}] must be 'traits.x', 'properties.x', 'phones.label', 'emails.label', "
        f"{', '.join(allowed)}, or None"
    )


def _put(written: dict[str, Any], path: Path, value: Any, column: str, columns: dict[str, str]) -> None:
    if path[0] in _MANY:
        if not is_blank(value):
            many = written.setdefault(path[0], [])
            columns[f"{path[0]}[{len(many)}]"] = column
            many.append({"number" if path[0] == "phones" else "address": value, "label": path[1]})
        return
    if path[0] == "consent":  # with its column, for the faults
        value = (value, column)
    place = written
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value


def _gather(written: dict[str, Any], columns: dict[str, str]) -> tuple[Withheld, ...]:
    """Turn the wide form of consent into opt-ins; a channel without a yes or no says nothing.

    :returns: those that say yes where there is no phone or email they could belong to.
    """
    withheld: list[Withheld] = []
    wide = written.pop("consent", {})
    given = _read_opt_ins(written.pop("opt_in", None))
    opt_ins = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    for channel, evidence in wide.items():
        if "subscribed" not in evidence or is_nothing(evidence["subscribed"][0]):
            continue
        if not _has_address(written, channel) and (truth := _truth(evidence["subscribed"][0])) is not None:
            if truth:  # a no of a column with a default is said to everybody: there is nothing to withdraw
                kind = "email" if channel == "email" else "phone"
                withheld.append(Withheld(path_of((evidence["subscribed"][1],)), channel, f"the row has no {kind}"))
            continue
        place = f"opt_in[{len(opt_ins)}]"
        columns[place] = evidence["subscribed"][1]
        columns.update({f"{place}.{name}": column for name, (_, column) in evidence.items()})
        opt_ins.append({"channel": channel, **{name: value for name, (value, _) in evidence.items()}})
    if opt_ins:
        written["opt_in"] = opt_ins
    return tuple(withheld)


def _has_address(written: Mapping[str, Any], channel: str) -> bool:
    one, many = ("email", "emails") if channel == "email" else ("phone", "phones")
    return not is_blank(written.get(one)) or bool(written.get(many))


def _truth(value: Any) -> bool | None:
    try:
        return read_truth(value)
    except ValueError:
        return None


def _read_opt_ins(given: Any) -> Any:
    """Read the JSON text of a database that has no type for JSON; what is no JSON stays, and is a fault."""
    if is_blank(given):
        return None
    if isinstance(given, str):
        try:
            read = json.loads(given)
        except (ValueError, RecursionError):
            return given
        return read if isinstance(read, (list, dict)) or read is None else given
    return given


def _in_words_of_the_table(place: str, columns: Mapping[str, str]) -> str:
    """Name the column at fault: ``sms_opt_in_at``, not ``opt_in[0].timestamp``."""
    for length in range(len(place), 0, -1):
        if (length == len(place) or place[length] in ".[") and (column := columns.get(place[:length])) is not None:
            return path_of((column,)) + place[length:]
    return place
